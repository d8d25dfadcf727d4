"""Query SCU: whether an archive has what we sent (PS3.4 Annex C, Study Root, IMAGE level)."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack

from pydicom import Dataset
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StudyRootQueryRetrieveInformationModelFind,
)
from pynetdicom.status import code_to_category

from thoracle.deliver import statuses
from thoracle.deliver.association import Call, Peer
from thoracle.errors import ArchiveRefused, ArchiveSilent, ArchiveUnavailable

logger = logging.getLogger(__name__)

TRY_AGAIN = (*statuses.TRY_AGAIN, 0xFE00)
"""And cancelled: time, or somebody, may heal them."""
NOT_PROVIDED = (0x0118, 0x0122, 0x0211)
"""No such SOP Class, SOP Class not supported, unrecognized operation: the context was accepted, the
service is not there (PS3.7 Annex C)."""

MOST_MATCHES = 1000
"""Responses to one query that are read. An archive that has more does not heed the keys."""


def found(
    peer: Peer,
    study_instance_uid: str,
    series_instance_uid: str,
    sop_instance_uids: Sequence[str],
) -> set[str] | None:
    """Return which objects of a series an archive says it has.

    Each is asked for alone, on one association: single value matching is what every archive
    can do, and a series of ours has few objects.

    Returns
    -------
    set of str or None
        SOP Instance UIDs, all of them among those asked for: a match counts only when every UID in
        it is the one asked for, since some archives do not heed a key. ``None`` when the archive
        offers no query.

    Raises
    ------
    ArchiveSilent
        No response.
    ArchiveUnavailable
        Not reached, or one of ``TRY_AGAIN``.
    ArchiveRefused
        Another failure status, or more than ``MOST_MATCHES`` matches.
    """
    here = set()
    with ExitStack() as stack:
        try:
            assoc = stack.enter_context(Call(peer, [StudyRootQueryRetrieveInformationModelFind]))
        except ArchiveRefused:  # no presentation context was accepted
            return None
        for uid in sop_instance_uids:
            is_here = _is_here(assoc, peer, _keys(study_instance_uid, series_instance_uid, uid))
            if is_here is None:
                return None
            if is_here:
                here.add(uid)
    return here


def _is_here(assoc: Association, peer: Peer, keys: Dataset) -> bool | None:
    is_here = False
    try:
        responses = assoc.send_c_find(keys, StudyRootQueryRetrieveInformationModelFind)
    except RuntimeError as error:  # the archive ended the association before
        raise ArchiveUnavailable(f"{peer.ae_title} ended the association") from error
    for number, (response, match) in enumerate(responses):
        if "Status" not in response:
            raise ArchiveSilent(f"{peer.ae_title} did not answer the C-FIND")
        status = int(response.Status)
        category = code_to_category(status)
        if category == "Pending":
            is_here = is_here or (match is not None and _is_asked_for(match, keys))
            if number >= MOST_MATCHES:
                raise ArchiveRefused(
                    f"{peer.ae_title} answered the C-FIND for one object with more than "
                    f"{MOST_MATCHES} matches"
                )
        elif category not in ("Success", "Warning"):
            if status in NOT_PROVIDED:
                return None
            text = f"{peer.ae_title} answered the C-FIND with 0x{status:04X}"
            raise ArchiveUnavailable(text) if status in TRY_AGAIN else ArchiveRefused(text)
    return is_here


def _keys(study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> Dataset:
    """Return the Identifier: the unique keys of all levels (PS3.4 Section C.4.1.2.1)."""
    keys = Dataset()
    keys.QueryRetrieveLevel = "IMAGE"
    keys.StudyInstanceUID = study_instance_uid
    keys.SeriesInstanceUID = series_instance_uid
    keys.SOPInstanceUID = sop_instance_uid
    return keys


def _is_asked_for(match: Dataset, keys: Dataset) -> bool:
    """Return whether a match is of the object; UIDs of upper levels may be left out of it."""
    try:
        return match.get("SOPInstanceUID") == keys.SOPInstanceUID and all(
            match.get(keyword) in (None, "", keys[keyword].value)
            for keyword in ("StudyInstanceUID", "SeriesInstanceUID")
        )
    except Exception as error:  # noqa: BLE001 - pydicom decodes what is looked at, raises anything
        logger.warning("match cannot be decoded: %s", type(error).__name__)
        return False
