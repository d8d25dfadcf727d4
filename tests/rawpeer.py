"""A peer that sends bytes: PDUs and commands as a case wants them, not as a library would."""

import socket
import struct
import time
from dataclasses import dataclass
from typing import Self

from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from hostile import Hostile, implicit

VERIFICATION = "1.2.840.10008.1.1"
STORE, ECHO = 0x0001, 0x0030
CHUNK = 65536
COMMAND, DATA, LAST = 1, 0, 2
Contexts = list[tuple[int, str, str]]
"""Context ID, abstract syntax and transfer syntax."""


@dataclass(frozen=True)
class Target:
    """An SCP, and the address that we call from."""

    host: str
    port: int
    ae_title: str
    calling: str = "WIRE"
    source: str = ""
    """Our own address; empty: what the machine chooses."""


@dataclass(frozen=True)
class Outcome:
    """What an SCP did: ``status``, ``rejected``, ``aborted``, ``closed`` or ``silence``."""

    what: str
    status: int | None = None
    comment: str = ""

    @property
    def failed(self) -> bool:
        """Whether the object was refused with a status."""
        return self.status is not None and self.status != 0 and self.status >> 12 != 0xB

    def __str__(self) -> str:
        if self.status is None:
            return self.what
        return f"0x{self.status:04X} {self.comment}".strip()


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def pdu(kind: int, content: bytes, length: int | None = None) -> bytes:
    """Return a PDU; ``length`` is what it claims instead of its own."""
    return struct.pack(">BBL", kind, 0, len(content) if length is None else length) + content


def pdv(context: int, control: int, value: bytes) -> bytes:
    """Return a PDV (PS3.8 Section 9.3.5.1)."""
    return struct.pack(">LBB", len(value) + 2, context, control) + value


def request(target: Target, contexts: Contexts) -> bytes:
    """Return an A-ASSOCIATE-RQ."""
    content = struct.pack(">HH", 1, 0) + target.ae_title.ljust(16).encode()
    content += target.calling.ljust(16).encode() + bytes(32)
    content += _item(0x10, b"1.2.840.10008.3.1.1.1")
    for context, abstract, syntax in contexts:
        content += _item(
            0x20,
            bytes([context, 0, 0, 0])
            + _item(0x30, abstract.encode())
            + _item(0x40, syntax.encode()),
        )
    user = _item(0x51, struct.pack(">L", 131072)) + _item(0x52, b"1.2.826.0.1.3680043.8.498.1")
    return pdu(1, content + _item(0x50, user))


def command(field: int, sop_class: str, uid: str | None, *, data_set: bool) -> bytes:
    """Return the command set of a request with message ID 1."""
    values = implicit(0, 2, _even(sop_class)) + implicit(0, 0x100, struct.pack("<H", field))
    values += implicit(0, 0x110, b"\1\0")
    if field == STORE:
        values += implicit(0, 0x700, b"\0\0")
    values += implicit(0, 0x800, struct.pack("<H", 1 if data_set else 0x0101))
    if uid is not None:
        values += implicit(0, 0x1000, _even(uid))
    return implicit(0, 0, struct.pack("<I", len(values))) + values


def _even(text: str) -> bytes:
    value = text.encode()
    return value + b"\0" * (len(value) % 2)


class RawPeer:
    """A connection, closed at the end of the block."""

    def __init__(self, target: Target, seconds: float = 20) -> None:
        self.target = target
        self._seconds = seconds
        source = (target.source, 0) if target.source else None
        self.socket = socket.create_connection((target.host, target.port), seconds, source)
        self.largest = CHUNK

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes; that the other side has closed shows when an answer is wanted."""
        try:
            self.socket.sendall(data)
        except OSError:
            return

    def associate(self, contexts: Contexts) -> Outcome:
        """Ask for an association and return what came of it."""
        self.send(request(self.target, contexts))
        kind, content = self.receive()
        if kind == "accepted":
            self.largest = _maximum_length(content)
        return Outcome(kind)

    def receive(self, seconds: float | None = None) -> tuple[str, bytes]:
        """Return the kind and the content of the next PDU: ``closed`` or ``silence`` for none."""
        kinds = {2: "accepted", 3: "rejected", 4: "data", 6: "released", 7: "aborted"}
        deadline = time.monotonic() + (self._seconds if seconds is None else seconds)
        try:
            head = self._exactly(6, deadline)
            kind, _, length = struct.unpack(">BBL", head)
            return kinds.get(kind, f"PDU {kind}"), self._exactly(length, deadline)
        except TimeoutError:
            return "silence", b""
        except OSError:
            return "closed", b""

    def _exactly(self, length: int, deadline: float) -> bytes:
        received = b""
        while len(received) < length:
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            more = self.socket.recv(length - len(received))
            if not more:
                raise ConnectionError
            received += more
        return received

    def response(self, seconds: float | None = None) -> Outcome:
        """Return the status of the next response, or how the association ended."""
        kind, content = self.receive(seconds)
        if kind != "data":
            return Outcome(kind)
        values = _values(content[6:])
        comment = values.get(0x0902, b"").decode("ascii", "replace").strip(" \0")
        return Outcome("status", int.from_bytes(values.get(0x0900, b""), "little"), comment)

    def store(self, made: Hostile, *, seconds: float | None = None) -> Outcome:
        """Send an object over an association of its own and return the answer."""
        contexts = [(1, str(ComputedRadiographyImageStorage), str(made.syntax))]
        associated = self.associate(contexts)
        if associated.what != "accepted":
            return associated
        self.store_again(made)
        return self.response(seconds)

    def store_again(self, made: Hostile) -> None:
        """Send an object on context 1, and wait for nothing."""
        rq = command(STORE, ComputedRadiographyImageStorage, made.sop_instance_uid, data_set=True)
        self.send(pdu(4, pdv(1, COMMAND | LAST, rq)))
        step = self.largest - 6
        for start in range(0, len(made.data_set), step):
            last = LAST if start + step >= len(made.data_set) else 0
            self.send(pdu(4, pdv(1, DATA | last, made.data_set[start : start + step])))

    def echo(self) -> Outcome:
        """Return the answer to a C-ECHO over an association of its own."""
        associated = self.associate([(1, VERIFICATION, str(ExplicitVRLittleEndian))])
        if associated.what != "accepted":
            return associated
        self.send(pdu(4, pdv(1, COMMAND | LAST, command(ECHO, VERIFICATION, None, data_set=False))))
        answer = self.response()
        self.release()
        return answer

    def release(self) -> None:
        """Release the association."""
        self.send(pdu(5, bytes(4)))
        self.receive(5)


def _maximum_length(accept: bytes) -> int:
    """Return the Maximum Length of an A-ASSOCIATE-AC, bytes."""
    at = accept.find(b"\x51\x00\x00\x04")
    (length,) = struct.unpack_from(">L", accept, at + 4) if at > 0 else (CHUNK,)
    return min(length or CHUNK, CHUNK)


def _values(command_set: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 8 <= len(command_set):
        _, number, length = struct.unpack_from("<HHI", command_set, at)
        found[number] = command_set[at + 8 : at + 8 + length]
        at += 8 + length
    return found
