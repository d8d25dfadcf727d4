"""review: the workitem by which a reader's client learns of a result (docs/ups.md)."""

import logging
from datetime import UTC, datetime
from typing import Any

from dbos import DBOS
from pydicom.sr.codedict import codes
from sqlalchemy import Connection

from thoracle.deliver.line import parts
from thoracle.image.header import header_of
from thoracle.records import Reading, study_outcome
from thoracle.report import context
from thoracle.report.codes import item
from thoracle.report.identity import derived_uid
from thoracle.routing.decision import Decision
from thoracle.routing.route import UPS
from thoracle.ups import review, workitems
from thoracle.ups.attributes import from_json
from thoracle.ups.subscriptions import EventReports

logger = logging.getLogger(__name__)

RESCHEDULED = item(codes.cid9300.DiscontinuedProcedureStepRescheduled)
DISCONTINUED = item(codes.cid9300.DiscontinuedForUnspecifiedReason)


@DBOS.step(name="workitem")
def propose(
    sources: list[str],
    readings: list[dict[str, Any]],
    report: dict[str, Any],
    made: str,
    routing: dict[str, Any],
) -> dict[str, Any] | None:
    """Return the attributes of the workitem for a result, ``None`` when it is to have none."""
    settings = parts().settings.ups
    read = [Reading.from_json(one) for one in readings]
    decision = Decision.from_json(routing)
    if not settings.offer or decision.shadow or UPS not in decision.planned.notify:
        return None
    if study_outcome(read) not in settings.outcomes:
        return None
    try:
        headers = [header_of(parts().path(path)) for path in sources]
        ds = review.build(
            context.study_context(headers[0]),
            context.referenced_requests(headers),
            read,
            parts().reader.bundle,
            sop_instance_uid=derived_uid("workitem", report["sop_instance_uid"]),
            worklist_label=settings.worklist_label,
            scheduled=datetime.fromisoformat(made).astimezone(UTC).strftime("%Y%m%d%H%M%S+0000"),
        )
        return ds.to_json_dict()
    except Exception as error:  # noqa: BLE001 - the result is worth more than this about it
        # Without the text, which may quote what the header says.
        logger.error("no workitem about a result: %s", type(error).__name__)
        return None


def conclude(
    connection: Connection,
    study: str,
    generation: int,
    digest: str,
    attributes: dict[str, Any] | None,
    *,
    held: bool,
) -> EventReports:
    """Offer the workitem of a new result in place of those of earlier ones.

    Returns the event reports that are to be sent.
    """
    workflow_id = str(DBOS.workflow_id)
    text = "There is a newer AI result on this study."
    told = workitems.supersede(connection, study, text, RESCHEDULED, workflow_id)
    if attributes is None:
        return told
    values = {
        "sop_instance_uid": from_json(attributes).SOPInstanceUID,
        "study_instance_uid": study,
        "generation": generation,
        "bundle_digest": digest,
        "attributes": attributes,
    }
    return told + workitems.offer(connection, values, held=held, workflow_id=workflow_id)


def withdraw(connection: Connection, study: str) -> EventReports:
    """Cancel the workitems of a result that is withdrawn."""
    text = "The AI result is withdrawn."
    return workitems.supersede(connection, study, text, DISCONTINUED, str(DBOS.workflow_id))
