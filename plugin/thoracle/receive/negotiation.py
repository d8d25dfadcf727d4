"""What the listener negotiates: application entity, SOP classes, transfer syntaxes, commitment."""

from collections.abc import Callable
from typing import Any

from pydicom import uid as syntaxes
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StorageCommitmentPushModel,
    Verification,
)

from thoracle import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from thoracle.deliver import commitment
from thoracle.deliver.commitment import CommitmentAnswer
from thoracle.receive.associations import Places
from thoracle.settings import Receive, tls

# ---- storage commitment --------------------------------------------------------------------------
# Storage Commitment: answers that come on associations which the archive opens (PS3.4 J.3.3).

OnAnswer = Callable[[str, CommitmentAnswer], bool]
"""Told of the calling AE title and its answer; returns whether the transaction is known, was put
to this archive, and the answer is kept durably."""
Handler = Callable[[evt.Event], tuple[int, None]]


def support_commitment(ae: AE) -> None:
    """Let archives call us as SCP of Storage Commitment: we stay its SCU (PS3.4 J.3.3.1.3)."""
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)


def commitment_handler(on_answer: OnAnswer) -> Handler:
    """Return what is to be bound to ``EVT_N_EVENT_REPORT``; it raises nothing.

    It answers 0x0000 once ``on_answer`` has returned true; 0x0115 for an unknown transaction or an
    Event Information that cannot be used; 0x0113 for an event type but 1 and 2; 0x0118 for another
    SOP Class; 0x0110 when ``on_answer`` raises, so that the archive may report again.
    """

    def on_n_event_report(event: evt.Event) -> tuple[int, None]:
        request: Any = event.request
        if request.AffectedSOPClassUID != StorageCommitmentPushModel:
            return commitment.NO_SUCH_SOP_CLASS, None
        caller = str(event.assoc.requestor.ae_title)
        status = commitment.answer_status(
            request, lambda: event.event_information, lambda answer: on_answer(caller, answer)
        )
        return status, None

    return on_n_event_report


# ---- negotiation ---------------------------------------------------------------------------------

IMAGE_STORAGE = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)

TRANSFER_SYNTAXES = (
    syntaxes.ExplicitVRLittleEndian,
    syntaxes.ImplicitVRLittleEndian,
    syntaxes.ExplicitVRBigEndian,
    syntaxes.DeflatedExplicitVRLittleEndian,
    syntaxes.RLELossless,
    syntaxes.JPEGBaseline8Bit,
    syntaxes.JPEGExtended12Bit,
    syntaxes.JPEGLossless,
    syntaxes.JPEGLosslessSV1,
    syntaxes.JPEGLSLossless,
    syntaxes.JPEGLSNearLossless,
    syntaxes.JPEG2000Lossless,
    syntaxes.JPEG2000,
    syntaxes.HTJ2KLossless,
    syntaxes.HTJ2KLosslessRPCL,
    syntaxes.HTJ2K,
)

MOST_CONTEXTS = 128
"""Presentation contexts of an association: their IDs are odd, and at most 255 (PS3.8 9.3.2.2)."""
Rejection = tuple[int, int, int]
"""Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 Section 9.3.4)."""
NOT_RECOGNISED: Rejection = (0x01, 0x01, 0x03)
NO_REASON: Rejection = (0x01, 0x01, 0x01)
LOCAL_LIMIT_EXCEEDED: Rejection = (0x02, 0x03, 0x02)


def objection(assoc: Any, settings: Receive, places: Places) -> tuple[str, Rejection] | None:
    """Return why a request for an association is rejected that pynetdicom would accept."""
    request = assoc.requestor.primitive
    address, calling = assoc.requestor.address, str(request.calling_ae_title)
    bound = settings.tls.fingerprints if settings.tls is not None else {}
    certificates = bound.get(calling)
    if certificates is not None and tls.fingerprint(assoc.dul.socket.socket) not in certificates:
        reason = "its certificate is not one that receive.tls.fingerprints has for this AE title"
        return reason, NOT_RECOGNISED
    contexts = [one.context_id for one in request.presentation_context_definition_list]
    if len(contexts) > MOST_CONTEXTS or len(set(contexts)) < len(contexts):
        reason = f"{len(contexts)} presentation contexts, allowed are 128 with different IDs"
        return reason, NO_REASON
    if not places.call(assoc, address, calling):
        reason = f"this AE title has {places.per_ae_title} associations already"
        return reason, LOCAL_LIMIT_EXCEEDED
    return None


def application_entity(settings: Receive) -> AE:
    """Return the listener's application entity, with Verification, images and commitment."""
    ae = AE(ae_title=settings.ae_title)
    ae.implementation_class_uid = syntaxes.UID(IMPLEMENTATION_CLASS_UID)
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.require_called_aet = True
    ae.require_calling_aet = list(settings.calling_ae_titles)
    ae.maximum_associations = settings.maximum_associations
    ae.maximum_pdu_size = settings.maximum_pdu_bytes
    ae.acse_timeout = settings.acse_timeout_seconds
    ae.dimse_timeout = settings.dimse_timeout_seconds
    ae.network_timeout = settings.network_timeout_seconds
    ae.add_supported_context(Verification)
    support_commitment(ae)
    secondary = (SecondaryCaptureImageStorage,) if settings.secondary_capture else ()
    for sop_class in IMAGE_STORAGE + secondary:
        ae.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
    return ae
