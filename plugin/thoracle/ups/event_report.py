"""SCU of event reports about workitems: UPS Event, as its SCP (PS3.4 Section CC.2.4)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydicom import Dataset
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    UnifiedProcedureStepEvent,
    UnifiedProcedureStepPush,
)
from pynetdicom.status import code_to_category

from thoracle.deliver.association import Call, Peer
from thoracle.errors import ArchiveUnavailable

REPORT_TRY_AGAIN = (0x0110, 0x0213)
"""Processing failure and resource limitation: time may heal them."""


@dataclass(frozen=True, slots=True)
class EventReport:
    """An event about a workitem."""

    sop_instance_uid: str
    event_type_id: int
    information: Dataset


def send_reports(peer: Peer, reports: Sequence[EventReport]) -> Iterator[str | None]:
    """Send reports in their order on one association; yield why each was refused, or ``None``.

    Raises
    ------
    ArchiveUnavailable
        Not reached; or the station did not answer, or answered one of ``TRY_AGAIN``: then this
        report and those behind it are not sent.
    ArchiveRefused
        The station takes no event reports at all.
    """
    # The SCP of the service calls, so it asks for its role (PS3.7 Section D.3.3.4).
    call = Call(peer, [UnifiedProcedureStepEvent], roles=[UnifiedProcedureStepEvent])
    with call as assoc:
        for one in reports:
            yield _send_report(assoc, peer, one)


def _send_report(assoc: Association, peer: Peer, one: EventReport) -> str | None:
    try:
        answer, _ = assoc.send_n_event_report(
            one.information,
            one.event_type_id,
            UnifiedProcedureStepPush,
            one.sop_instance_uid,
            meta_uid=UnifiedProcedureStepEvent,
        )
    except RuntimeError as error:  # the station ended the association before
        raise ArchiveUnavailable(f"{peer.ae_title} ended the association") from error
    if "Status" not in answer:
        raise ArchiveUnavailable(f"{peer.ae_title} did not answer the N-EVENT-REPORT")
    status = int(answer.Status)
    if code_to_category(status) in ("Success", "Warning"):
        return None
    text = f"{peer.ae_title} answered the N-EVENT-REPORT with 0x{status:04X}"
    if status in REPORT_TRY_AGAIN:
        raise ArchiveUnavailable(text)
    return text
