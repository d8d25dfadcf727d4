"""tell: event reports about our workitems, to who subscribes, each until it is taken."""

import logging
from collections.abc import Iterable
from typing import Any

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID
from sqlalchemy import Connection

from thoracle.deliver.association import Peer
from thoracle.deliver.line import parts, peer_of_subscriber
from thoracle.errors import ArchiveRefused, ArchiveUnavailable
from thoracle.store import engine
from thoracle.ups import event_report, subscriptions
from thoracle.ups import workitem_rows as workitems
from thoracle.ups.attributes import from_json
from thoracle.ups.event_report import EventReport

logger = logging.getLogger(__name__)

PRIORITY = 1


def enqueue_reports(reports: Iterable[tuple[str, int]]) -> None:
    """Have event reports sent, each an AE title and the number of a row that is committed."""
    for ae_title, number in reports:
        enqueue_report(ae_title, number, 1, None)


def enqueue_pending_reports() -> None:
    """Send the reports of which the sending was not queued, e.g. for a crash."""
    with parts().database.connect() as connection:
        reports = workitems.untold(connection)
    enqueue_reports(reports)


def report_restart() -> None:
    """Tell all subscribers that the listener is back, and what they were not told before."""
    if not parts().settings.ups.offer:
        return
    with parts().database.begin() as connection:
        subscriptions.add_restart_reports(connection)
    enqueue_pending_reports()


def enqueue_report(ae_title: str, number: int, attempt: int, delay: float | None) -> None:
    """Have a report sent, after so many seconds; the same attempt again changes nothing."""
    with (
        SetWorkflowID(f"tell:{number}:{attempt}"),
        SetEnqueueOptions(priority=PRIORITY, queue_partition_key=ae_title, delay_seconds=delay),
    ):
        DBOS.enqueue_workflow(engine.TELL, send_report, ae_title, number, attempt)


@DBOS.workflow(name="tell", max_recovery_attempts=None)
def send_report(ae_title: str, number: int, attempt: int) -> None:
    """Send a report, and before it what waits for the same station: it hears things in order."""
    answers = _send(ae_title, number)
    delay = engine.transaction(_told, number, attempt, answers)
    if delay is not None:
        enqueue_report(ae_title, number, attempt + 1, delay)


@DBOS.step(name="report event")
def _send(ae_title: str, number: int) -> list[tuple[int, dict[str, Any]]]:
    """Return number and columns of each report of which something is to be recorded."""
    with parts().database.connect() as connection:
        rows = workitems.waiting(connection, number)
    if not rows:
        return []
    peer = _peer(ae_title)
    if peer is None:
        detail = f"{ae_title} is no longer in the settings"
        return [(number, {"state": "failed", "detail": detail})]
    reports = [
        EventReport(row.sop_instance_uid, row.event_type_id, from_json(row.information))
        for row in rows
    ]
    answers: list[tuple[int, dict[str, Any]]] = []
    try:
        for row, refusal in zip(rows, event_report.send_reports(peer, reports), strict=True):
            state = "told" if refusal is None else "refused"
            answers.append((row.id, {"state": state, "detail": refusal}))
    except (ArchiveUnavailable, OSError) as error:
        answers.append((number, {"state": "waiting", "detail": str(error)}))
    except ArchiveRefused as error:
        answers.append((number, {"state": "refused", "detail": str(error)}))
    except Exception as error:
        # A fault of ours: without an end here it would wait for ever, unseen.
        logger.exception("event not reported")
        answers.append((number, {"state": "failed", "detail": type(error).__name__}))
    return answers


def _peer(ae_title: str) -> Peer | None:
    settings = parts().settings
    found = next((one for one in settings.subscriber if one.ae_title == ae_title), None)
    return None if found is None else peer_of_subscriber(found, settings)


def _told(
    connection: Connection, number: int, attempt: int, answers: list[tuple[int, dict[str, Any]]]
) -> float | None:
    """Record what came of it; return the seconds until the next attempt at ``number``, if any."""
    delay = None
    for told, values in answers:
        row = workitems.event_row(connection, told)
        made = attempt if told == number else row.attempts + 1
        after = subscriptions.record_answer(
            connection, told, made, values, parts().settings.deliver
        )
        delay = after if told == number else delay
    return delay
