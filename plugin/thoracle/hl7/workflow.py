"""notify: one durable attempt to tell a receiver of HL7 messages, then another."""

import hashlib
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID
from pydicom import Dataset
from sqlalchemy import Connection

from thoracle.deliver.line import parts
from thoracle.errors import ArchiveRefused, ArchiveUnavailable
from thoracle.hl7 import attempts, mllp, oru
from thoracle.hl7 import rows as notifications
from thoracle.hl7.oru import ReportReference, Status
from thoracle.records import BundleIdentity, Reading
from thoracle.settings import HL7
from thoracle.store import engine, files

logger = logging.getLogger(__name__)

PRIORITY = 1
"""A message moves the study up the reading list: that is what it is for."""


def message(
    receiver: HL7,
    source: Dataset,
    readings: Sequence[Reading],
    bundle: BundleIdentity,
    report: ReportReference,
    sentence: str,
    made: datetime,
    status: Status,
) -> str:
    """Write the message to a receiver durably; return its path below the data folder."""
    line = parts()
    name = f"{report.sop_instance_uid} {receiver.name}"
    control_id = hashlib.sha256(name.encode()).hexdigest()[:20]
    content = oru.oru(
        source,
        readings,
        bundle,
        report,
        receiver,
        sentence=sentence,
        control_id=control_id,
        made=made,
        status=status,
    )
    below = f"messages/{control_id[-2:]}/{control_id}.hl7"
    files.keep_patiently(line.path(below), content)
    return below


def enqueue_notify(receiver: str, sop_instance_uid: str, attempt: int, delay: float | None) -> None:
    """Have a receiver told of a report, after so many seconds."""
    with (
        SetWorkflowID(f"notify:{receiver}:{sop_instance_uid}:{attempt}"),
        SetEnqueueOptions(priority=PRIORITY, queue_partition_key=receiver, delay_seconds=delay),
    ):
        DBOS.enqueue_workflow(engine.DELIVER, notify, receiver, sop_instance_uid, attempt)


@DBOS.workflow(name="notify", max_recovery_attempts=None)
def notify(receiver: str, sop_instance_uid: str, attempt: int) -> None:
    """Make one attempt; a failed one that time may heal is followed by another, later."""
    answer = _tell(receiver, sop_instance_uid)
    if answer is None:
        return
    delay = engine.transaction(_told, receiver, sop_instance_uid, attempt, answer)
    if delay is not None:
        enqueue_notify(receiver, sop_instance_uid, attempt + 1, delay)


@DBOS.step(name="tell")
def _tell(receiver: str, sop_instance_uid: str) -> dict[str, Any] | None:
    """Return columns of the notification, or ``None`` when it is not waiting any more."""
    line = parts()
    with line.database.connect() as connection:
        row = notifications.row_of(connection, sop_instance_uid, receiver)
    if row.state != "waiting":
        return None
    found = next((one for one in line.settings.hl7 if one.name == receiver), None)
    if found is None:
        return {"state": "failed", "detail": f"{receiver} is no longer in the settings"}
    try:
        mllp.send(found, line.path(row.path).read_bytes())
    except (ArchiveUnavailable, OSError) as error:
        return {"state": "waiting", "detail": str(error)}
    except ArchiveRefused as error:
        return {"state": "refused", "detail": str(error)}
    except Exception as error:
        # A fault of ours: without an end here it would wait for ever, unseen.
        logger.exception("%s not told", receiver)
        return {"state": "failed", "detail": f"{type(error).__name__}, see log"}
    return {"state": "told", "detail": None}


def _told(
    connection: Connection,
    receiver: str,
    sop_instance_uid: str,
    attempt: int,
    answer: dict[str, Any],
) -> float | None:
    return attempts.notified(
        connection,
        receiver,
        sop_instance_uid,
        attempt,
        answer,
        parts().settings.deliver,
        str(DBOS.workflow_id),
    )
