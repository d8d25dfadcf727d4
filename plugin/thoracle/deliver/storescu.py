"""Storage SCU: objects on one association, and what the archive answered to each."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
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


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An object as a file, and how it may be changed for an archive."""

    stored: Path
    """Sent as it is where the archive takes its transfer syntax, else decoded."""
    comprehensive: Callable[[], Path] | None
    """Gives a report as Comprehensive SR: called, and sent in its place, only for an archive that
    takes no Comprehensive 3D SR. ``None`` for an object that is not ours: its pixels are never
    decoded, so it is sent as it is or not at all."""


class _Ended(ArchiveUnavailable):
    """The association ended before an object was answered."""


@dataclass(frozen=True, slots=True)
class _Proposed:
    """What has to be accepted for an object."""

    outgoing: Outgoing
    sop_class: UID
    syntax: UID

    @classmethod
    def of(cls, outgoing: Outgoing) -> "_Proposed":
        meta = read_file_meta_info(outgoing.stored)
        return cls(outgoing, UID(meta.MediaStorageSOPClassUID), UID(meta.TransferSyntaxUID))

    @property
    def native(self) -> bool:
        return self.syntax in NATIVE

    def contexts(self) -> Iterator[Any]:
        """Yield what is proposed, as :class:`Call` takes it: each SOP Class in its own context.

        First its own transfer syntax alone: of several an archive may choose another one, and
        then each object is parsed and encoded again.
        """
        ours = self.outgoing.comprehensive is not None
        yield self.sop_class, self.syntax
        if ours or self.native:
            yield self.sop_class
        if ours and self.sop_class == Comprehensive3DSRStorage:
            yield ComprehensiveSRStorage

    def store(self, assoc: Association, peer: Peer) -> Receipt:
        """Send it in the form that was accepted."""
        accepted = {context.abstract_syntax for context in assoc.accepted_contexts}
        comprehensive = self.outgoing.comprehensive
        if self.sop_class in accepted:
            return _store(assoc, self.outgoing.stored)
        if (
            comprehensive is not None
            and self.sop_class == Comprehensive3DSRStorage
            and ComprehensiveSRStorage in accepted
        ):
            return _store(assoc, comprehensive())
        name = self.sop_class.name
        what = name if self.native or comprehensive is not None else f"{name} as {self.syntax.name}"
        raise ArchiveRefused(f"{peer.ae_title} does not accept {what}")


def deliver(peer: Peer, objects: Sequence[Outgoing]) -> Iterator[Receipt | Exception]:
    """Yield for each object, in their order, the archive's receipt or why there is none.

    All go on one association. When an object ends it, the next ones get another: one that an
    archive cannot stand holds up no other. An ``ArchiveUnavailable`` is to be tried again: broken
    off, or out of resources; an ``ArchiveRefused`` is final.

    Raises
    ------
    ArchiveUnavailable
        Not reached, so that what has no answer yet is to be tried again.
    ArchiveRefused
        No presentation context was accepted.
    """
    left = list(objects)
    while left:
        proposed = _readable(left)
        wanted = dict.fromkeys(context for one in proposed for context in one.contexts())
        with Call(peer, wanted) if wanted else nullcontext() as assoc:
            ended = False
            while left and not ended:
                answer = _answer(assoc, peer, left.pop(0))
                ended = isinstance(answer, _Ended)
                yield answer


def _readable(objects: Iterable[Outgoing]) -> list[_Proposed]:
    found = []
    for one in objects:
        with suppress(Exception):  # `_answer` meets it again, and says so
            found.append(_Proposed.of(one))
    return found


def _answer(assoc: Association | None, peer: Peer, one: Outgoing) -> Receipt | Exception:
    try:
        proposed = _Proposed.of(one)
        if assoc is None:
            raise ArchiveUnavailable("it could not be read a moment ago")
        return proposed.store(assoc, peer)
    except Exception as error:  # noqa: BLE001 - the caller says what each means
        return error


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
        raise _Ended("association ended before the C-STORE") from error
    if "Status" not in answer:
        raise _Ended("association ended before the C-STORE was answered")
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
