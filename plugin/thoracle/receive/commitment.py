"""Storage Commitment: answers that come on associations which the archive opens (PS3.4 J.3.3)."""

from collections.abc import Callable
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StorageCommitmentPushModel,
)

from thoracle.deliver import commitment_answers
from thoracle.deliver.commitment_answers import Answer

OnAnswer = Callable[[str, Answer], bool]
"""Told of the calling AE title and its answer; returns whether the transaction is known, was put
to this archive, and the answer is kept durably."""
Handler = Callable[[evt.Event], tuple[int, None]]


def support(ae: AE) -> None:
    """Let archives call us as SCP of Storage Commitment: we stay its SCU (PS3.4 J.3.3.1.3)."""
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)


def handler(on_answer: OnAnswer) -> Handler:
    """Return what is to be bound to ``EVT_N_EVENT_REPORT``; it raises nothing.

    It answers 0x0000 once ``on_answer`` has returned true; 0x0115 for an unknown transaction or an
    Event Information that cannot be used; 0x0113 for an event type but 1 and 2; 0x0118 for another
    SOP Class; 0x0110 when ``on_answer`` raises, so that the archive may report again.
    """

    def on_n_event_report(event: evt.Event) -> tuple[int, None]:
        request: Any = event.request
        if request.AffectedSOPClassUID != StorageCommitmentPushModel:
            return commitment_answers.NO_SUCH_SOP_CLASS, None
        caller = str(event.assoc.requestor.ae_title)
        status = commitment_answers.answer_status(
            request, lambda: event.event_information, lambda answer: on_answer(caller, answer)
        )
        return status, None

    return on_n_event_report
