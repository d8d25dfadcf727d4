"""STOW-RS and QIDO-RS: delivering to a DICOMweb archive, and looking there (PS3.18 Chapter 10).

dicomweb-client searches. It does not store: its ``store_instances`` encodes a data set anew, does
not say whether 200 or 202 came back, nor what came with 409, and reads no body whose media type
has a parameter. So the multipart message is posted here, in its session.
"""

import logging
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests
from dicomweb_client import DICOMwebClient
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from thoracle.deliver import statuses
from thoracle.deliver.dicomweb import (
    CREDENTIALS,
    NOT_PROVIDED,
    TRY_AGAIN,
    WebPeer,
    address,
    failure,
    status_of,
    talking,
)
from thoracle.deliver.statuses import Fate
from thoracle.deliver.storescu import Receipt
from thoracle.errors import ArchiveRefused, ArchiveUnavailable, DeliveryError

LARGEST_REQUEST = 32 * 1024 * 1024
"""Bytes of the objects that go in one request; one object may be larger."""
_NAMES = ["SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID"]

logger = logging.getLogger(__name__)

__all__ = ["WebPeer", "found", "reachable", "store", "store_all"]


def store(peer: WebPeer, path: Path) -> Receipt:
    """Send a file as it is and return the archive's receipt for its object.

    An archive that neither takes nor names the object is asked by QIDO-RS whether it has it: some
    answer 200 without a body, and some answer a repetition with 409.

    Returns
    -------
    Receipt
        With the HTTP status, and the Warning Reason (0008,1196) where there is one: ``200``,
        ``202 0xB000``, ``409, found by query``.

    Raises
    ------
    ArchiveUnavailable
        Not reached, 401, 403, one of ``TRY_AGAIN``, 500 or more, a redirection (none is followed,
        so that no other host gets the credentials), out of resources, success without naming the
        object, or a secret that cannot be read: to be tried again.
    ArchiveRefused
        Another Failure Reason (0008,1197) or HTTP status.
    """
    ds = dcmread(path, specific_tags=_NAMES)
    uid = str(ds.file_meta.MediaStorageSOPInstanceUID)
    with talking(peer) as (session, _):
        response = _post(session, peer, [path.read_bytes()])
    status = response.status_code
    if status in CREDENTIALS or status in TRY_AGAIN or status >= 500:
        raise failure(peer, status)
    kept, reason, text = _said_of(uid, response)
    said = f"{address(peer)} answered {text}"
    fate = None if reason is None else statuses.fate(reason)
    if kept or reason == statuses.DUPLICATE_SOP_INSTANCE:
        return Receipt(str(ds.SOPClassUID), uid, text)
    if _has(peer, ds, uid):
        return Receipt(str(ds.SOPClassUID), uid, f"{text}, found by query")
    if fate is Fate.AGAIN:
        raise ArchiveUnavailable(said)
    if reason is None and status < 300:
        raise ArchiveUnavailable(f"{said} without naming the object")
    raise ArchiveRefused(said)


def store_all(peer: WebPeer, paths: Sequence[Path]) -> Iterator[Receipt | Exception]:
    """Yield for each file, in their order, the archive's receipt or why there is none.

    They go in one request while they are small. What that neither stores nor finds there goes in a
    request of its own, as :func:`store` sends it: one object that an archive cannot stand holds up
    no other.

    Raises
    ------
    ArchiveUnavailable
        Not reached, 401, 403 or too many requests: what has no answer yet is to be tried again.
    """
    left = list(paths)
    while left:
        several = _together(left)
        taken = _stored_together(peer, several) if len(several) > 1 else {}
        for path in several:
            left.remove(path)
            if path in taken:
                yield taken[path]
                continue
            yield _answer(peer, path)


def _answer(peer: WebPeer, path: Path) -> Receipt | Exception:
    try:
        return store(peer, path)
    except Exception as error:  # noqa: BLE001 - the caller says what each means
        return error


def _together(paths: Sequence[Path]) -> list[Path]:
    """Return the first of some files that go in one request."""
    found: list[Path] = []
    size = 0
    for path in paths:
        size += path.stat().st_size if path.exists() else 0
        if found and size > LARGEST_REQUEST:
            break
        found.append(path)
    return found


def _stored_together(peer: WebPeer, paths: Sequence[Path]) -> dict[Path, Receipt]:
    """Return the receipts of those files that the archive has after one request with all."""
    headers = {}
    for path in paths:
        with suppress(Exception):  # `store` meets it again, and says so
            headers[path] = dcmread(path, specific_tags=_NAMES)
    if not headers:
        return {}
    with talking(peer) as (session, _):
        response = _post(session, peer, [path.read_bytes() for path in headers])
    status = response.status_code
    if status in CREDENTIALS or status in TRY_AGAIN:
        raise failure(peer, status)
    taken = {}
    for path, ds in headers.items():
        uid = str(ds.file_meta.MediaStorageSOPInstanceUID)
        kept, reason, text = _said_of(uid, response)
        if kept or (reason is not None and statuses.fate(reason) is Fate.TAKEN):
            taken[path] = Receipt(str(ds.SOPClassUID), uid, text)
        elif reason is None and status < 300 and _has(peer, ds, uid):
            taken[path] = Receipt(str(ds.SOPClassUID), uid, f"{text}, found by query")
    return taken


def found(
    peer: WebPeer,
    study_instance_uid: str,
    series_instance_uid: str,
    sop_instance_uids: Sequence[str],
) -> set[str] | None:
    """Return which objects of a series an archive says it has (QIDO-RS, PS3.18 Section 10.6).

    Returns
    -------
    set of str or None
        SOP Instance UIDs, all of them among those asked for: a match counts only when every UID in
        it is the one asked for. ``None`` when the archive offers no search.

    Raises
    ------
    ArchiveUnavailable, ArchiveRefused
        As :func:`store`.
    """
    here = set()
    with talking(peer) as (_, client):
        for uid in sop_instance_uids:
            asked = {
                "00080018": uid,
                "0020000D": study_instance_uid,
                "0020000E": series_instance_uid,
            }
            try:
                matches = client.search_for_instances(
                    study_instance_uid, series_instance_uid, search_filters={"SOPInstanceUID": uid}
                )
            except requests.HTTPError as error:
                if status_of(error) not in NOT_PROVIDED:
                    raise
                if not _searches(client):
                    return None
                continue  # no such study or series
            if any(_is_asked_for(match, asked) for match in matches):
                here.add(uid)
    return here


def reachable(peer: WebPeer) -> bool:
    """Return whether the archive answers a search (QIDO-RS).

    It is asked for a study that nobody has, so that no data of a patient comes back.

    Returns
    -------
    bool
        ``False`` when it answers with one of ``NOT_PROVIDED``: a server that only stores, or a url
        that is not its DICOMweb root.

    Raises
    ------
    ArchiveUnavailable, ArchiveRefused
        As :func:`store`.
    """
    with talking(peer) as (_, client):
        return _searches(client)


# ---- Requests ----------------------------------------------------------------------------------


def _post(session: requests.Session, peer: WebPeer, objects: Sequence[bytes]) -> requests.Response:
    """Post objects to ``/studies`` (PS3.18 Section 10.5.1).

    A part has no transfer-syntax parameter: Orthanc's plugin drops a part that has one, answering
    200 all the same. The transfer syntax is in the File Meta Information.
    """
    boundary = uuid.uuid4().hex
    start = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    parts = b"\r\n".join(start + encoded for encoded in objects)
    return session.post(
        f"{peer.url.rstrip('/')}/studies",
        data=parts + f"\r\n--{boundary}--\r\n".encode(),
        headers={
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": "application/dicom+json",
        },
        timeout=peer.timeout_seconds,
    )


def _searches(client: DICOMwebClient) -> bool:
    try:
        client.search_for_studies(limit=1, search_filters={"StudyInstanceUID": generate_uid()})
    except requests.HTTPError as error:
        if status_of(error) in NOT_PROVIDED:
            return False
        raise
    return True


def _has(peer: WebPeer, ds: Dataset, uid: str) -> bool:
    with suppress(DeliveryError):  # what the archive said to the POST is the error that counts
        return uid in (found(peer, ds.StudyInstanceUID, ds.SeriesInstanceUID, [uid]) or ())
    return False


# ---- Answers -----------------------------------------------------------------------------------


def _said_of(uid: str, response: requests.Response) -> tuple[bool, int | None, str]:
    """Return what the Store Instances Response Module (PS3.18 Annex I) says of an object.

    Returns
    -------
    tuple
        Whether it was stored, the Failure Reason (0008,1197), and the HTTP status with Warning or
        Failure Reason: ``202 0xB000``. An object named both ways has failed; one that is not named,
        and every one in a body that is no such module, is neither.
    """
    status = response.status_code
    try:
        content = response.json()
        answer = Dataset.from_json(content[0] if isinstance(content, list) else content)
        stored = _named(answer, "ReferencedSOPSequence", uid)
        failed = _named(answer, "FailedSOPSequence", uid)
        if failed is not None:
            reason = int(failed.get("FailureReason") or statuses.PROCESSING_FAILURE)
            return False, reason, f"{status} 0x{reason:04X}"
        if stored is not None and stored.get("WarningReason"):
            return True, None, f"{status} 0x{int(stored.WarningReason):04X}"
    except Exception as error:  # noqa: BLE001 - the body may be anything, and pydicom raises anything
        logger.warning("no Store Instances Response Module: %s", type(error).__name__)
        stored = None
    return stored is not None, None, str(status)


def _named(answer: Dataset, keyword: str, uid: str) -> Dataset | None:
    items = answer.get(keyword) or []
    return next((item for item in items if item.get("ReferencedSOPInstanceUID") == uid), None)


def _is_asked_for(match: Any, asked: dict[str, str]) -> bool:
    """Return whether a match in DICOM JSON is of the object; UIDs of upper levels may be absent."""
    uids = {tag: _uid(match, tag) for tag in asked}
    return uids["00080018"] is not None and all(
        uids[tag] in (None, uid) for tag, uid in asked.items()
    )


def _uid(match: Any, tag: str) -> str | None:
    try:
        return str(match[tag]["Value"][0])
    except (KeyError, IndexError, TypeError):
        return None
