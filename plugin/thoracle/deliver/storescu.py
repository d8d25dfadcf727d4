"""Storage SCU: one association for one attempt, and what the archive answered."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import
from pynetdicom.status import code_to_category

from thoracle.errors import ArchiveRefused, ArchiveUnavailable

NATIVE: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
DUPLICATE_SOP_INSTANCE = 0x0111
"""PS3.7 Annex C.5: the archive has it; our UIDs and bytes are deterministic, so that is well."""
OUT_OF_RESOURCES = range(0xA700, 0xA800)


class Proof(StrEnum):
    """What shows that the archive has an object."""

    STATUS = "status"
    """Its answer to the C-STORE."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom to call, and as whom."""

    ae_title: str
    host: str
    port: int
    calling_ae_title: str
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Receipt:
    """The archive's answer to one object that it took."""

    sop_instance_uid: str
    """The object that it has now: of the report, or of its Comprehensive SR form."""
    status: str
    """E.g. ``0x0000``."""
    proof: Proof


def deliver(peer: Peer, report: Path, comprehensive: Callable[[], Path]) -> Receipt:
    """Return the archive's receipt for a report.

    Comprehensive 3D SR and Comprehensive SR are proposed in contexts of their own; the second is
    sent, as ``comprehensive`` makes it, only to an archive that takes no Comprehensive 3D SR.

    Raises
    ------
    ArchiveUnavailable
        Not reached, broken off, or out of resources: to be tried again.
    ArchiveRefused
        It takes neither SOP Class, or answered with another failure.
    """
    with _Call(peer, [Comprehensive3DSRStorage, ComprehensiveSRStorage]) as assoc:
        accepted = {context.abstract_syntax for context in assoc.accepted_contexts}
        if Comprehensive3DSRStorage in accepted:
            return _store(assoc, report)
        if ComprehensiveSRStorage in accepted:
            return _store(assoc, comprehensive())
    raise ArchiveRefused(
        f"{peer.ae_title} accepts neither Comprehensive 3D SR nor Comprehensive SR"
    )


def echo(peer: Peer) -> None:
    """Return when the peer has answered a C-ECHO.

    Raises
    ------
    ArchiveUnavailable, ArchiveRefused
        When it has not.
    """
    with _Call(peer, [Verification]) as assoc:
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
    with _Call(peer, wanted) as assoc:
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
    answer = assoc.send_c_store(path if as_it_is else dcmread(path))
    if "Status" not in answer:
        raise ArchiveUnavailable("association ended before the C-STORE was answered")
    status = int(answer.Status)
    text = f"0x{status:04X}"
    comment = str(answer.get("ErrorComment") or "")[:64]
    if status == DUPLICATE_SOP_INSTANCE or code_to_category(status) in ("Success", "Warning"):
        return Receipt(ds.SOPInstanceUID, text, Proof.STATUS)
    if status in OUT_OF_RESOURCES:
        raise ArchiveUnavailable(f"answered {text} {comment!r}")
    raise ArchiveRefused(f"answered {text} {comment!r}")


class _Call:
    """An association that is released, or aborted when something is raised."""

    def __init__(self, peer: Peer, wanted: Iterable[Any]) -> None:
        self._peer = peer
        self._contexts = [
            build_context(one[0], one[1]) if isinstance(one, tuple) else build_context(one, NATIVE)
            for one in wanted
        ]

    def __enter__(self) -> Association:
        peer = self._peer
        ae = AE(ae_title=peer.calling_ae_title)
        ae.connection_timeout = ae.acse_timeout = peer.timeout_seconds
        ae.dimse_timeout = ae.network_timeout = peer.timeout_seconds
        self._assoc = ae.associate(
            peer.host, peer.port, contexts=self._contexts, ae_title=peer.ae_title
        )
        if self._assoc.is_established:
            return self._assoc
        where = f"{peer.ae_title}@{peer.host}:{peer.port}"
        if self._assoc.is_rejected:
            raise ArchiveUnavailable(f"{where} rejected the association")
        if not self._assoc.accepted_contexts and self._assoc.rejected_contexts:
            raise ArchiveRefused(f"{where} accepted no presentation context")
        raise ArchiveUnavailable(f"{where} not reached")

    def __exit__(self, kind: object, _error: object, _trace: object) -> None:
        if kind is None:
            self._assoc.release()
        else:
            self._assoc.abort()
