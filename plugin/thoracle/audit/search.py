"""Searches of FHIR (ITI-81) in the trail: each term must hold, by one of its alternatives.

What a term finds is what audit/audit_event.py writes into the resource.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, false, func, or_, select, text, true

from thoracle.audit.message import TYPES, WORKITEM
from thoracle.audit.query import as_dict
from thoracle.fhir.rows import DICOM_UID, OID, Token
from thoracle.store import views
from thoracle.store.tables import audit_event
from thoracle.store.tables.audit import FAILED
from thoracle.store.trail import Event

# ---- addresses -----------------------------------------------------------------------------------
# The network addresses of the trail: few, in very many rows.


def known_addresses(connection: Connection, limit: int) -> list[str]:
    """Return the addresses that events came from, so many at most.

    The index is asked for the next one after each: SELECT DISTINCT would read every row.
    """
    address = audit_event.c.network_address
    least = select(func.min(address).label("address"))
    first = least.where(address.is_not(None)).cte("known", recursive=True)
    following = least.where(address > first.c.address).correlate(first).scalar_subquery()
    every = first.union_all(select(following).where(first.c.address.is_not(None)))
    rows = connection.execute(select(every.c.address).limit(limit))
    return [one for one in rows.scalars() if one is not None]


# ---- searches ------------------------------------------------------------------------------------

QUERY = "110112"
"""EventID of events of which the row is a query."""
PATIENT, REPORT, SECURITY, JOB, SEARCH = "1", "3", "13", "20", "24"
"""Roles of an entity."""


@dataclass(frozen=True, slots=True)
class EventSearch:
    """Which events are wanted."""

    terms: tuple[tuple[str, tuple[Token, ...]], ...] = ()
    """Parameter and its alternatives; systems of codes are known to be ours."""
    recorded: tuple[tuple[str, str], ...] = ()
    """``>=`` or ``<`` and a point in time as it is stored."""
    after: tuple[str, int] | None = None
    """Time and id of the last event of the page before."""


def page(
    connection: Connection, search: EventSearch, source_id: str, limit: int
) -> list[dict[str, Any]]:
    """Return so many of the events at most, newest first, without their empty columns.

    Parameters
    ----------
    source_id
        What the trail itself is called: it is the source, and an agent, of each event.
    """
    found: dict[int, dict[str, Any]] = {}
    # What one of several columns may have is asked as several questions: of each, an index has the
    # answer in order.
    for conditions in _questions(connection, search, source_id):
        statement = (
            select(audit_event)
            .where(*conditions, *_span(search))
            .order_by(_column.recorded_at.desc(), _column.id.desc())
            .limit(limit)
        )
        found |= {row["id"]: as_dict(row) for row in connection.execute(statement).mappings()}
    newest = sorted(found.values(), key=lambda one: (one["recorded_at"], one["id"]), reverse=True)
    return newest[:limit]


_column = audit_event.c
_Condition = ColumnElement[bool]
MOST_ADDRESSES = 2000
"""Addresses that are looked through for those that begin as one that is searched."""
MOST_QUESTIONS = 16
"""A search that would be more of them is asked as fewer, some of which no index answers."""


def _questions(
    connection: Connection, search: EventSearch, source_id: str
) -> Iterator[Sequence[_Condition]]:
    """Yield conditions that together let through what the terms demand."""
    terms, number = [], 1
    for name, tokens in search.terms:
        either = [
            one for token in tokens for one in _alternatives(connection, name, token, source_id)
        ]
        number *= len(either)
        if number > MOST_QUESTIONS:
            number //= len(either)
            either = [or_(*either)]
        terms.append(either)
    return itertools.product(*terms)


def _span(search: EventSearch) -> Iterator[_Condition]:
    for comparison, moment in search.recorded:
        recorded = _column.recorded_at
        yield recorded >= moment if comparison == ">=" else recorded < moment
    if search.after is not None:
        moment, row_id = search.after
        yield _column.recorded_at <= moment
        yield or_(_column.recorded_at < moment, _column.id < row_id)


def _alternatives(
    connection: Connection, name: str, token: Token, source_id: str
) -> Sequence[_Condition]:
    """Return conditions of which one must hold."""
    if name == "address":
        return _address(connection, token)
    ours = _is_plain(token) and token.code == source_id
    if name == "source":
        return [true() if ours else false()]
    if name == "agent":
        return [true()] if ours else _agent(token)
    if name in _SEVERAL:
        return _SEVERAL[name](token)
    return [_CONDITIONS[name](token)]


def _is_plain(token: Token) -> bool:
    """Return whether a token is of no system, or does not say of which."""
    return not token.system


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _id(token: Token) -> _Condition:
    fits = _is_plain(token) and _is_number(token.code) and len(token.code) < 19
    return _column.id == int(token.code) if fits else false()


def _address(connection: Connection, token: Token) -> Sequence[_Condition]:
    """Return a condition for each address that begins so, by which an index finds its events.

    One for all of them where there are too many: some of these are soon met with.
    """
    known = known_addresses(connection, MOST_ADDRESSES)
    begin = token.code.lower()
    found = [one for one in known if one.lower().startswith(begin)]
    if len(known) < MOST_ADDRESSES and len(found) <= MOST_QUESTIONS:
        return [_column.network_address == one for one in found] or [false()]
    return [func.lower(_column.network_address).startswith(begin, autoescape=True)]


def _agent(token: Token) -> Sequence[_Condition]:
    if not _is_plain(token):
        return [false()]
    nobody = and_(_column.user_id.is_(None), _column.calling_ae_title.is_(None))
    return [
        _user(token),
        *_ae_title(token),
        _column.destination == token.code,
        and_(nobody, _column.network_address == token.code),
    ]


def _user(token: Token) -> _Condition:
    return _column.user_id == token.code if _is_plain(token) else false()


def _ae_title(token: Token) -> Sequence[_Condition]:
    if not _is_plain(token):
        return [false()]
    return [_column.calling_ae_title == token.code, _column.called_ae_title == token.code]


def _patients(token: Token) -> Sequence[_Condition]:
    """Return whether the event names the patient, or is a list that showed one of the studies."""
    found = [_patient(token)]
    if token.code:
        system = token.system
        issuers = None if system is None else [system, system.removeprefix(OID)]
        found.append(views.showed(views.of_patient(token.code, issuers)))
    return found


def _patient(token: Token) -> _Condition:
    known = _column.patient_id == token.code if token.code else _column.patient_id.is_not(None)
    if token.system is None:
        return known
    issuer = func.coalesce(_column.issuer_of_patient_id, "")
    return and_(known, issuer.in_((token.system, token.system.removeprefix(OID))))


def _entity(token: Token) -> Sequence[_Condition]:
    found = [*_patients(token)]
    if token.code and token.system in (None, DICOM_UID):
        uid = token.code.removeprefix(OID)
        found += [
            views.showed([uid]),
            _column.study_instance_uid == uid,
            _column.sop_instance_uid == uid,
            _column.result_sop_instance_uid == uid,
        ]
    if token.code and _is_plain(token):
        found.append(_column.accession_number == token.code)
    return found


def _entity_type(token: Token) -> _Condition:
    found: Mapping[str, _Condition] = {"1": _column.patient_id.is_not(None), "2": true()}
    return found.get(token.code, false())


def _entity_role(token: Token) -> _Condition:
    job = and_(_column.sop_instance_uid.is_not(None), _column.event_type_code == WORKITEM)
    image = and_(
        _column.sop_instance_uid.is_not(None),
        func.coalesce(_column.event_type_code, "") != WORKITEM,
    )
    found: Mapping[str, _Condition] = {
        PATIENT: _column.patient_id.is_not(None),
        REPORT: or_(
            _column.study_instance_uid.is_not(None),
            _column.accession_number.is_not(None),
            _column.result_sop_instance_uid.is_not(None),
            image,
        ),
        SECURITY: _column.event_id != QUERY,
        JOB: job,
        SEARCH: _column.event_id == QUERY,
    }
    return found.get(token.code, false())


def _type(token: Token) -> _Condition:
    return _column.event_id == token.code


def _subtype(token: Token) -> Sequence[_Condition]:
    """Return whether it is the code of the kind, of DCM or our own, or our verb."""
    verbs = {one.verb.replace(" ", "-"): one.verb for one in Event}
    if token.system and (token.code in TYPES) is (token.system == SUBTYPES_OF_OURS):
        return [false()]
    found: list[_Condition] = [_column.event_type_code == token.code]
    if token.code in verbs and token.system in (None, SUBTYPES_OF_OURS):
        found.append(_column.event == verbs[token.code])
    return found


SUBTYPES_OF_OURS = "urn:oid:2.25.1252076735742979959174602804689620574"
"""System of our own codes, which DICOM knows as 99THORACLE."""


def _outcome(token: Token) -> _Condition:
    if not (_is_number(token.code) and len(token.code) < 3):
        return false()
    fits = _column.event_outcome == int(token.code)
    return and_(fits, text(FAILED)) if int(token.code) else fits


def _action(token: Token) -> _Condition:
    return _column.action == token.code


_CONDITIONS: Mapping[str, Callable[[Token], _Condition]] = {
    "_id": _id,
    "action": _action,
    "entity-role": _entity_role,
    "entity-type": _entity_type,
    "outcome": _outcome,
    "type": _type,
    "user": _user,
}
_SEVERAL: Mapping[str, Callable[[Token], Sequence[_Condition]]] = {
    "altid": _ae_title,
    "entity": _entity,
    "patient": _patients,
    "subtype": _subtype,
}
"""Those that more than one column answers."""
