"""Parameters of a search for AuditEvents: those of ITI-81, taken as strictly as the others.

Who asks for no span of time asks for everything: both bounds are required, as ITI-81 says.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from thoracle.audit.audit_event import DCM, ROLE_SYSTEM, TYPE_SYSTEM
from thoracle.audit.search import Search
from thoracle.fhir import elements
from thoracle.fhir.conditions import Token
from thoracle.web.api.fhir_values import (
    DEFAULT_COUNT,
    MOST_PARAMETERS,
    Parameter,
    SearchError,
    check_format,
    codes,
    count_of,
    period,
    tokens,
)

AUDIT_PARAMETERS = (
    Parameter("date", "date", "Required: a lower and an upper bound, with eq, ge, gt, le or lt."),
    Parameter("_id", "token", "Number of the row."),
    Parameter("address", "string", "Network address; its beginning is enough."),
    Parameter("agent", "reference", "By identifier alone: as agent.identifier."),
    Parameter("agent.identifier", "token", "User, AE title, destination, or this trail itself."),
    Parameter("altid", "token", "AE title, calling or called."),
    Parameter("user", "token", "Who did it: a person, or a user of the machine."),
    Parameter("patient.identifier", "token", "Patient ID, with or without its issuer."),
    Parameter("entity", "reference", "By identifier alone: as entity.identifier."),
    Parameter(
        "entity.identifier",
        "token",
        "Study or SOP Instance UID, Accession Number, or Patient ID.",
    ),
    Parameter("entity-type", "token", "1 person, 2 system object."),
    Parameter(
        "entity-role", "token", "1 patient, 3 report, 13 security resource, 20 job, 24 query."
    ),
    Parameter("source", "reference", "By identifier alone: as source.identifier."),
    Parameter("source.identifier", "token", "What this trail is called: receive.ae_title."),
    Parameter("type", "token", "EventID of PS3.15 A.5, e.g. 110103."),
    Parameter("subtype", "token", "EventTypeCode, or our verb with hyphens, e.g. image-read."),
    Parameter("outcome", "token", "0 success, 4 minor, 8 serious, 12 major failure."),
    Parameter("action", "token", "C, R, U, D or E."),
)
_SYSTEMS = {
    "type": (DCM,),
    "subtype": (DCM, elements.SCHEME_URI),
    "entity-type": (TYPE_SYSTEM,),
    "entity-role": (ROLE_SYSTEM,),
    "outcome": ("http://hl7.org/fhir/audit-event-outcome",),
    "action": ("http://hl7.org/fhir/audit-event-action",),
}
"""Systems of the codes that we write; a code of another finds nothing."""
_REFERENCES = {
    "agent": ("Device/", "Practitioner/"),
    "entity": ("ImagingStudy/", "Patient/", "ServiceRequest/", "Task/"),
    "source": ("Device/",),
}
_IDENTIFIED = ("agent", "patient", "entity", "source")
_NOWHERE = Token("", "")
MOST_VALUES = 64
"""Alternatives of all parameters together: a database plans no more in time."""


@dataclass(frozen=True, slots=True)
class AuditSearch:
    """What a search asks for."""

    search: Search
    count: int
    given: tuple[tuple[str, str], ...]
    """Name and value of each parameter, but for those of the page."""


def parse_audit_search(given: Iterable[tuple[str, str]]) -> AuditSearch:
    """Return what the parameters of a query ask for.

    Raises
    ------
    SearchError
        A parameter is not known, its value is none, or ``date`` leaves one end open.
    """
    terms: list[tuple[str, tuple[Token, ...]]] = []
    recorded: list[tuple[str, str]] = []
    paging: dict[str, str] = {}
    asked: list[tuple[str, str]] = []
    for name, value in given:
        if not value:
            raise SearchError(f"{name[:64]}: found no value, required is one")
        if name in ("_count", "_after", "_format"):
            if name in paging:
                raise SearchError(f"{name}: found twice, required is once")
            paging[name] = value
            continue
        asked.append((name, value))
        if name == "date":
            recorded += period("date", value)
        else:
            terms.append(_term(name, value))
    if len(asked) > MOST_PARAMETERS or sum(len(tokens) for _, tokens in terms) > MOST_VALUES:
        raise SearchError(
            f"found more than {MOST_PARAMETERS} parameters or {MOST_VALUES} values, required are "
            "fewer",
            "too-costly",
        )
    if {comparison for comparison, _ in recorded} != {">=", "<"}:
        raise SearchError(
            "date: found no span of time with two ends, required is e.g. "
            "date=ge2026-11-01&date=le2026-11-30",
            "required",
        )
    count, after = _page(paging)
    return AuditSearch(Search(tuple(terms), tuple(recorded), after), count, tuple(asked))


def _page(paging: dict[str, str]) -> tuple[int, tuple[str, int] | None]:
    if "_format" in paging:
        check_format(paging["_format"])
    count = count_of(paging["_count"]) if "_count" in paging else DEFAULT_COUNT
    return count, _audit_cursor(paging["_after"]) if "_after" in paging else None


def _term(name: str, value: str) -> tuple[str, tuple[Token, ...]]:
    plain = name.replace(":identifier", ".identifier")
    if plain not in {one.name for one in AUDIT_PARAMETERS}:
        known = ", ".join(one.name for one in AUDIT_PARAMETERS)
        raise SearchError(
            f"{name[:64]}: not supported, required is one of {known}, _count, _format",
            "not-supported",
        )
    if plain == "address":
        return plain, tuple(Token(None, one) for one in codes(value))
    if plain in _REFERENCES:
        return plain, tuple(_referred(plain, one) for one in codes(value))
    found = tokens(value)
    if plain.endswith(".identifier"):
        return plain.removesuffix(".identifier"), found
    return plain, tuple(_coded(plain, one) for one in found)


def _referred(name: str, value: str) -> Token:
    for beginning in _REFERENCES[name]:
        value = value.removeprefix(beginning)
    return Token(None, value)


def _coded(name: str, token: Token) -> Token:
    if name not in _SYSTEMS or token.system is None or token.system in _SYSTEMS[name]:
        return token
    return _NOWHERE


def _audit_cursor(value: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)~([0-9]{1,18})", value, re.ASCII)
    if match is None:
        raise SearchError("_after: found none of ours, required is the link `next` as it was given")
    return match[1], int(match[2])
