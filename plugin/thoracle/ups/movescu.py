"""Retrieve SCU: having an archive send images to us (PS3.4 Annex C, Study Root, C-MOVE)."""

from collections.abc import Sequence

from pydicom import Dataset
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StudyRootQueryRetrieveInformationModelMove,
)
from pynetdicom.status import code_to_category

from thoracle.deliver.association import Call, Peer
from thoracle.errors import ArchiveRefused, ArchiveUnavailable

MOVE_TRY_AGAIN = (0x0110, 0x0213, 0xA701, 0xA702, 0xFE00)
"""Processing failure, resource limitation, out of resources, cancelled: time may heal them."""


def retrieve(
    peer: Peer,
    ae_title: str,
    study_instance_uid: str,
    series_instance_uid: str,
    sop_instance_uids: Sequence[str],
) -> None:
    """Have an archive send objects of a series to an AE title, and return when it says it has.

    Raises
    ------
    ArchiveUnavailable
        Not reached, no answer, or one of ``TRY_AGAIN``.
    ArchiveRefused
        Another failure, or sub-operations that failed.
    """
    keys = Dataset()
    keys.QueryRetrieveLevel = "IMAGE"
    keys.StudyInstanceUID, keys.SeriesInstanceUID = study_instance_uid, series_instance_uid
    keys.SOPInstanceUID = list(sop_instance_uids)
    status = None
    with Call(peer, [StudyRootQueryRetrieveInformationModelMove]) as assoc:
        try:
            answers = assoc.send_c_move(keys, ae_title, StudyRootQueryRetrieveInformationModelMove)
            for answer, _ in answers:
                status = int(answer.Status) if "Status" in answer else None
        except RuntimeError as error:  # the archive ended the association before
            raise ArchiveUnavailable(f"{peer.ae_title} ended the association") from error
    if status is None:
        raise ArchiveUnavailable(f"{peer.ae_title} did not answer the C-MOVE")
    text = f"{peer.ae_title} answered 0x{status:04X} to the C-MOVE"
    if status in MOVE_TRY_AGAIN:
        raise ArchiveUnavailable(text)
    if code_to_category(status) != "Success":
        raise ArchiveRefused(text)
