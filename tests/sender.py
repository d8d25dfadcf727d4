"""A sender of images: well-behaved or hostile, over a real association.

Commands and data sets are sent as the bytes that a test wants, not as pynetdicom would check them.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydicom import Dataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, dsutils
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import build_context

from gateway import AE_TITLE
from radiographs import gradient, radiograph

CR_EXPLICIT = ((ComputedRadiographyImageStorage, ExplicitVRLittleEndian),)
FRAGMENT = 65536
"""Bytes of a data set in one PDU."""


class NotAnswered(Exception):
    """The association was not accepted, or ended without the answer."""


@dataclass(frozen=True)
class Answer:
    """The response to a C-STORE."""

    status: int
    comment: str


class Sender:
    """An association to the gateway, released at the end of the block."""

    def __init__(
        self,
        port: int,
        contexts: Sequence[tuple[str, str]] = CR_EXPLICIT,
        calling: str = "SENDER",
        called: str = AE_TITLE,
        address: str = "127.0.0.1",
    ) -> None:
        self._port = port
        self._address = address
        self._called = called
        self._ae = AE(ae_title=calling)
        self._ae.maximum_pdu_size = 131072
        self._ae.connection_timeout = self._ae.acse_timeout = 10
        self._ae.dimse_timeout = self._ae.network_timeout = 30
        self._contexts = [build_context(UID(name), UID(syntax)) for name, syntax in contexts]
        self.assoc: Association

    def __enter__(self) -> Self:
        self.assoc = self._ae.associate(
            "127.0.0.1",
            self._port,
            self._contexts,
            ae_title=self._called,
            bind_address=(self._address, 0),
        )
        if not self.assoc.is_established:
            raise NotAnswered("association not established")
        return self

    def __exit__(self, *exception: object) -> None:
        if self.assoc.is_established:
            self.assoc.release()

    @property
    def accepted(self) -> set[tuple[str, str]]:
        """The accepted pairs of SOP Class and transfer syntax."""
        return {
            (str(context.abstract_syntax), str(context.transfer_syntax[0]))
            for context in self.assoc.accepted_contexts
        }

    def store(self, ds: Dataset) -> Answer:
        """Send a data set in the transfer syntax of its File Meta Information."""
        syntax = ds.file_meta.TransferSyntaxUID
        return self.store_bytes(encoded(ds, syntax), ds.SOPClassUID, ds.SOPInstanceUID, syntax)

    def store_bytes(
        self,
        data_set: bytes,
        sop_class: str = ComputedRadiographyImageStorage,
        sop_instance: str | None = None,
        syntax: str = ExplicitVRLittleEndian,
    ) -> Answer:
        """Send bytes under a command of these values; a ``None`` leaves the element out."""
        context = self._context(sop_class, syntax)
        self._pause()
        self._send_fragment(context, 3, _command(sop_class, sop_instance))
        for start in range(0, max(len(data_set), 1), FRAGMENT):
            last = start + FRAGMENT >= len(data_set)
            self._send_fragment(context, 2 * last, data_set[start : start + FRAGMENT])
        _, response = self.assoc.dimse.get_msg(block=True)
        self.assoc._reactor_checkpoint.set()
        if response is None:
            raise NotAnswered("association ended within a C-STORE")
        answer: Any = response
        return Answer(int(answer.Status), str(answer.ErrorComment or ""))

    def abort_within(self, ds: Dataset, sent: int) -> None:
        """Send so many bytes of a data set, then abort."""
        context = self._context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
        self._pause()
        self._send_fragment(context, 3, _command(ds.SOPClassUID, ds.SOPInstanceUID))
        self._send_fragment(context, 0, encoded(ds, ds.file_meta.TransferSyntaxUID)[:sent])
        self.assoc.abort()

    def _context(self, sop_class: str, syntax: str) -> int:
        for context in self.assoc.accepted_contexts:
            if (context.abstract_syntax, context.transfer_syntax[0]) == (sop_class, syntax):
                return int(context.context_id or 0)
        raise NotAnswered(f"{UID(sop_class).name} in {UID(syntax).name} was declined")

    def _pause(self) -> None:
        # As pynetdicom's own send_c_store: its reactor must not take the response.
        self.assoc._reactor_checkpoint.clear()
        while not self.assoc._is_paused:
            if not self.assoc.is_alive():
                raise NotAnswered("association ended before a C-STORE")
            time.sleep(0.0001)

    def _send_fragment(self, context: int, control: int, data: bytes) -> None:
        primitive = P_DATA()
        value: Any = [context, bytes([control]) + data]  # checked for a list, annotated as tuple
        primitive.presentation_data_value_list = [value]
        self.assoc.dul.send_pdu(primitive)


def encoded(ds: Dataset, syntax: UID) -> bytes:
    """Return the data set as it goes over the wire; native pixels are little endian."""
    wire = dsutils.encode(ds, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    assert wire is not None
    return wire


def _command(sop_class: str, sop_instance: str | None) -> bytes:
    values: list[tuple[int, bytes]] = [(0x0002, _even(sop_class.encode()))]
    values += [(0x0100, b"\x01\x00"), (0x0110, b"\x01\x00"), (0x0700, b"\x00\x00")]
    values += [(0x0800, b"\x00\x00")]
    if sop_instance is not None:
        values += [(0x1000, _even(sop_instance.encode()))]
    body = b"".join(
        b"\0\0" + number.to_bytes(2, "little") + len(value).to_bytes(4, "little") + value
        for number, value in values
    )
    return b"\0\0\0\0\x04\0\0\0" + len(body).to_bytes(4, "little") + body


def _even(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)


def small(**attributes: object) -> Dataset:
    """Return a radiograph too small to be classified, so that the model's time is not spent."""
    return radiograph(gradient(32, 32), **attributes)


def send(port: int, ds: Dataset) -> Answer:
    """Send one object over an association of its own."""
    pair = (str(ds.SOPClassUID), str(ds.file_meta.TransferSyntaxUID))
    with Sender(port, [pair]) as sender:
        return sender.store(ds)
