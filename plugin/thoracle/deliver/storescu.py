"""Storage SCU: one association for one attempt, and what the archive answered."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
)
from pynetdicom import _config
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

from thoracle.deliver import statuses
from thoracle.deliver.association import NATIVE, Call, Peer
from thoracle.deliver.statuses import Fate
from thoracle.errors import ArchiveRefused, ArchiveUnavailable


@dataclass(frozen=True, slots=True)
class Receipt:
    """The archive's answer to one object that it took."""

    sop_class_uid: str
    sop_instance_uid: str
    """The object that it has now: of the report, or of its Comprehensive SR form."""
    status: str
    """E.g. ``0x0000``."""


def deliver(peer: Peer, stored: Path, comprehensive: Callable[[], Path] | None) -> Receipt:
    """Return the archive's receipt for an object.

    Parameters
    ----------
    peer
        The archive.
    stored
        The object as a file. It is sent as it is where the archive takes its transfer syntax,
        else decoded.
    comprehensive
        Gives a report as Comprehensive SR: called, and sent in its place, only for an archive that
        takes no Comprehensive 3D SR. Each SOP Class is proposed in a context of its own.
        ``None`` for an object that is not ours: its pixels are never decoded, so it is sent as it
        is or not at all.

    Raises
    ------
    ArchiveUnavailable
        Not reached, broken off, or out of resources: to be tried again.
    ArchiveRefused
        It does not take the SOP Class, or answered with another failure.
    """
    meta = read_file_meta_info(stored)
    sop_class, syntax = UID(meta.MediaStorageSOPClassUID), UID(meta.TransferSyntaxUID)
    native = syntax in NATIVE
    wanted: list[Any] = [sop_class] if native else [(sop_class, syntax)]
    if comprehensive is not None:
        wanted += [] if native else [sop_class]
        wanted += [ComprehensiveSRStorage] if sop_class == Comprehensive3DSRStorage else []
    with Call(peer, wanted) as assoc:
        accepted = {context.abstract_syntax for context in assoc.accepted_contexts}
        if sop_class in accepted:
            return _store(assoc, stored)
        if ComprehensiveSRStorage in accepted and comprehensive is not None:
            return _store(assoc, comprehensive())
    what = (
        sop_class.name
        if native or comprehensive is not None
        else f"{sop_class.name} as {syntax.name}"
    )
    raise ArchiveRefused(f"{peer.ae_title} does not accept {what}")


def echo(peer: Peer) -> None:
    """Return when the peer has answered a C-ECHO.

    Raises
    ------
    ArchiveUnavailable, ArchiveRefused
        When it has not.
    """
    with Call(peer, [Verification]) as assoc:
        status = assoc.send_c_echo()
        if "Status" not in status:
            raise ArchiveUnavailable(f"{peer.ae_title} did not answer the C-ECHO")
        if status.Status != 0x0000:
            raise ArchiveRefused(f"{peer.ae_title} answered the C-ECHO with 0x{status.Status:04X}")


def send(peer: Peer, paths: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Yield each DICOM file with what came of sending it, as a sentence; nothing is retried."""
    files: dict[Path, Any] = {}
    for path in paths:
        try:
            files[path] = dcmread(path, specific_tags=["SOPClassUID", "SOPInstanceUID"])
        except (InvalidDicomError, OSError) as error:
            yield path, f"not sent: {error}"
    wanted = sorted({(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID) for ds in files.values()})
    with Call(peer, wanted) as assoc:
        for path in files:
            try:
                yield path, f"sent: {_store(assoc, path).status}"
            except (ArchiveRefused, ValueError) as error:
                yield path, f"not sent: {error}"


def _store(assoc: Association, path: Path) -> Receipt:
    ds = dcmread(path, specific_tags=["SOPClassUID", "SOPInstanceUID"])
    accepted = {(one.abstract_syntax, one.transfer_syntax[0]) for one in assoc.accepted_contexts}
    # The bytes of the file as they are, where the archive takes their transfer syntax; decoding
    # and encoding a report costs more than everything else here.
    _config.STORE_SEND_CHUNKED_DATASET = True
    as_it_is = (ds.SOPClassUID, ds.file_meta.TransferSyntaxUID) in accepted
    try:
        answer = assoc.send_c_store(path if as_it_is else _decoded(dcmread(path)))
    except RuntimeError as error:  # the archive has ended the association that it had accepted
        raise ArchiveUnavailable("association ended before the C-STORE") from error
    if "Status" not in answer:
        raise ArchiveUnavailable("association ended before the C-STORE was answered")
    status = int(answer.Status)
    text = f"0x{status:04X}"
    comment = str(answer.get("ErrorComment") or "")[:64]
    fate = statuses.fate(status)
    if fate is Fate.TAKEN:
        return Receipt(ds.SOPClassUID, ds.SOPInstanceUID, text)
    if fate is Fate.AGAIN:
        raise ArchiveUnavailable(f"answered {text} {comment!r}")
    raise ArchiveRefused(f"answered {text} {comment!r}")


def _decoded(ds: Dataset) -> Dataset:
    """Return an object with its pixels in native form; only ours are ever decoded here."""
    if ds.file_meta.TransferSyntaxUID.is_compressed:
        ds.decompress(generate_instance_uid=False)
    return ds
