"""What is known of a study, gathered for its story: rows of the tables, and of the trail."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select

from thoracle.audit import query
from thoracle.audit.query import Question
from thoracle.audit.sentences.words import Row
from thoracle.audit.story import Known
from thoracle.deliver import rows as deliveries
from thoracle.hl7 import rows as notifications
from thoracle.store.tables import audit_event, instance, timestamp
from thoracle.store.trail import Event
from thoracle.study import rows as studies
from thoracle.ups import performance_rows as performances
from thoracle.ups import workitem_rows as workitems

AROUND = timedelta(minutes=10)
"""Before the first and after the last arrival: what its sender had refused then may belong here."""
MOST_AROUND = 10
"""Events around a study that are told, the newest."""
_ARRIVALS = (
    Event.INSTANCE_STORED.verb,
    Event.INSTANCE_DUPLICATE.verb,
    Event.INSTANCE_CORRECTED.verb,
)
_REFUSALS = (Event.INSTANCE_REFUSED.verb, Event.ASSOCIATION_REFUSED.verb)


def of_accession(connection: Connection, accession_number: str) -> list[str]:
    """Return the studies that ever came with an accession number, by the trail."""
    column = audit_event.c
    statement = (
        select(column.study_instance_uid)
        .where(column.accession_number == accession_number, column.study_instance_uid.is_not(None))
        .distinct()
        .order_by(column.study_instance_uid)
    )
    return list(connection.execute(statement).scalars())


def known_of(connection: Connection, study_instance_uid: str) -> Known:
    """Return what the tables and the trail say of a study, one that never came too."""
    events = list(query.events(connection, Question(study_instance_uid)))
    nothing = Known(study_instance_uid, None, 0, 0, "", None, (), (), (), (), (), events)
    rows = studies.rows(connection, study_instance_uid)
    if rows is None:
        return nothing
    return replace(
        nothing,
        study=_plain(rows.study),
        received=rows.received,
        unplanned=_unplanned(connection, study_instance_uid),
        state=rows.listed.ai_state if rows.listed is not None else "",
        analysis=None if rows.analysis is None else _plain(rows.analysis),
        readings=[_plain(one) for one in rows.readings.values()],
        deliveries=_deliveries(connection, study_instance_uid),
        notifications=_newest(map(_plain, notifications.of_study(connection, study_instance_uid))),
        workitems=[_plain(one) for one in workitems.of_study(connection, study_instance_uid)],
        performances=[_plain(one) for one in performances.of_study(connection, study_instance_uid)],
    )


def around(connection: Connection, study: Known) -> list[dict[str, Any]]:
    """Return what was refused, and may have belonged to a study; oldest first.

    Of a study that came, what its senders had refused around that time. Of one that never came,
    the newest refusals of all: nothing tells whose they are.
    """
    named = {event["id"] for event in study.events}
    found: dict[int, dict[str, Any]] = {}
    for question in _around(study.events):
        for event in _REFUSALS:
            wanted = replace(question, event=event)
            for row in query.page(connection, wanted, MOST_AROUND):
                found[row["id"]] = row
    return [row for number, row in sorted(found.items()) if number not in named]


def _around(events: Sequence[Row]) -> list[Question]:
    arrivals = [event for event in events if event["event"] in _ARRIVALS]
    if not arrivals:
        return [Question()]
    moments = sorted(datetime.fromisoformat(event["recorded_at"]) for event in arrivals)
    since, until = timestamp(moments[0] - AROUND), timestamp(moments[-1] + AROUND)
    senders = {str(event.get("calling_ae_title") or "") for event in arrivals} - {""}
    return [Question(since=since, until=until, ae_title=one) for one in sorted(senders)]


def _unplanned(connection: Connection, study_instance_uid: str) -> int:
    statement = select(instance.c.sop_instance_uid.distinct()).where(
        instance.c.study_instance_uid == study_instance_uid, instance.c.generation.is_(None)
    )
    return len(connection.execute(statement).all())


def _deliveries(connection: Connection, study_instance_uid: str) -> list[dict[str, Any]]:
    rows = _newest(map(_plain, deliveries.of_study(connection, study_instance_uid)))
    for row in rows:
        if row["transaction_uid"]:
            request = deliveries.request_row(connection, row["transaction_uid"])
            row["due_at"] = request.due_at if request is not None else None
    return rows


def _newest(rows: Any) -> list[dict[str, Any]]:
    """Return the rows of the newest generation among some."""
    every = list(rows)
    newest = max((row["generation"] for row in every), default=None)
    return [row for row in every if row["generation"] == newest]


def _plain(row: Any) -> dict[str, Any]:
    return dict(row._mapping)
