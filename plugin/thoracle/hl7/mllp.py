"""HL7 v2 messages over MLLP, plain or with TLS: sent, and acknowledged or not.

MLLP (HL7 Version 3 Transport Specification, MLLP Release 1) frames a message as ``<VT> message <FS>
<CR>``. Each message has a connection of its own, so no acknowledgement of another one can come in
between. The clients of python-hl7 and hl7apy know neither TLS nor time-outs, and take what the
first ``recv`` returns for the whole answer.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from thoracle.errors import ArchiveRefused, ArchiveUnavailable, SettingsError
from thoracle.settings import HL7, tls

START, END = b"\x0b", b"\x1c"
LARGEST_ANSWER = 65536
"""Bytes that are read from a receiver, all its acknowledgements together."""

ACCEPTED = ("AA", "CA")
"""HL7 Table 0008; CA, commit accept, is what some answer although original mode asks for AA."""
FINAL_CODES = {
    "100": "segment sequence error",
    "101": "required field missing",
    "102": "data type error",
    "103": "table value not found",
    "104": "value too long",
    "200": "unsupported message type",
    "201": "unsupported event code",
    "202": "unsupported processing id",
    "203": "unsupported version id",
    "205": "duplicate key identifier",
}
"""Error conditions (HL7 Table 0357) that the same bytes meet again each time."""
PASSING_CODES = {
    "204": "unknown key identifier",  # the order may reach it after our result
    "206": "application record locked",
    "207": "application internal error",
}


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What a receiver answered to a message (segment MSA)."""

    code: str
    """MSA-1, HL7 Table 0008."""
    control_id: str
    """MSA-2: of which message."""
    text: str
    """MSA-3, in the receiver's words: may hold patient data, so never for a log or an error."""
    condition: str = ""
    """ERR-3, or MSA-6 of older versions: HL7 Table 0357."""


class NotReached(ArchiveUnavailable):
    """No connection came about."""


def send(receiver: HL7, message: bytes) -> Acknowledgement:
    """Send a message and return the acknowledgement that accepts it.

    Parameters
    ----------
    receiver
        Whom to call; ``timeout_seconds`` is for the connection, and once more for message and
        answer together.
    message
        As :func:`thoracle.hl7.oru.oru` returns it.

    Raises
    ------
    ArchiveUnavailable
        Not reached, TLS failed or its files cannot be used, no acknowledgement of this message in
        time, or an error that time may heal. It may have the message: to send it again is to send
        the same bytes with the same control id.
    ArchiveRefused
        The receiver named an error that the same message meets again each time.
    """
    control_id = message.split(b"\r", 1)[0].split(b"|")[9].decode("ascii")
    where = _where(receiver)
    foreign = False
    with _connected(receiver) as connection:
        deadline = time.monotonic() + receiver.timeout_seconds
        try:
            connection.sendall(START + message + END + b"\r")
            for content in _frames(connection, deadline):
                acknowledgement = _parsed(content)
                if acknowledgement is not None and acknowledgement.control_id == control_id:
                    return _judged(where, acknowledgement)
                foreign = True
        except TimeoutError as error:
            raise ArchiveUnavailable(
                f"{where} did not acknowledge in {receiver.timeout_seconds:g} s"
            ) from error
        except OSError as error:
            # With TLS 1.3 it is only now that we learn that our certificate was refused.
            raise ArchiveUnavailable(f"{where} {_broken(error)}") from error
    if foreign:
        raise ArchiveUnavailable(f"{where} answered, but with no acknowledgement of this message")
    raise ArchiveUnavailable(f"{where} closed the connection without an acknowledgement")


def reach(receiver: HL7) -> None:
    """Connect to a receiver, with TLS where it is set, and send nothing.

    Raises
    ------
    ArchiveUnavailable
        As :func:`send`.
    """
    with _connected(receiver):
        pass


# ---- The connection ----------------------------------------------------------------------------


@contextmanager
def _connected(receiver: HL7) -> Iterator[socket.socket]:
    where = _where(receiver)
    try:
        context = None if receiver.tls is None else tls.client_context(receiver.tls, "hl7.tls")
    except SettingsError as error:
        raise NotReached(f"TLS files cannot be used: {error}") from error
    try:
        connection = socket.create_connection(
            (receiver.host, receiver.port), receiver.timeout_seconds
        )
    except (OSError, UnicodeError) as error:  # UnicodeError: no host name can be so
        reason = getattr(error, "strerror", None) or str(error)
        raise NotReached(f"{where} not reached: {reason}") from error
    with connection:
        if receiver.tls is None or context is None:
            yield connection
            return
        try:
            secured = context.wrap_socket(connection, server_hostname=receiver.host)
        except OSError as error:
            hint = isinstance(error, (*tls.ENDED, TimeoutError))
            plain = ", as if it spoke plain MLLP" if hint else ""
            raise NotReached(f"{where} {tls.failure(error)}{plain}") from error
        with secured:
            found, required = tls.fingerprint(secured), receiver.tls.fingerprint
            if required is not None and found != required:
                raise NotReached(
                    f"{where} has a certificate with SHA-256 {found}, required: {required}"
                )
            yield secured


def _frames(connection: socket.socket, deadline: float) -> Iterator[bytes]:
    """Yield what comes between START and END until the peer closes, or has sent too much.

    Bytes outside a frame are skipped. The CR after END is not waited for: some leave it out.
    """
    received, total = b"", 0
    while total < LARGEST_ANSWER:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        part = connection.recv(4096)
        if not part:
            return
        total += len(part)
        received += part
        while END in received:
            frame, received = received.split(END, 1)
            _, start, content = frame.rpartition(START)
            if start:
                yield content


def _where(receiver: HL7) -> str:
    return f"{receiver.host}:{receiver.port}"


def _broken(error: OSError) -> str:
    if isinstance(error, tls.ENDED):
        return "ended the connection without an acknowledgement"
    return tls.failure(error)


# ---- The answer --------------------------------------------------------------------------------


def _parsed(content: bytes) -> Acknowledgement | None:
    """Return the acknowledgement in a frame; ``None`` when it is none."""
    text = content.decode("utf-8", "replace")
    if not text.startswith("MSH") or len(text) < 5:
        return None
    separator, component = text[3], text[4]
    segments = {
        fields[0]: [*fields, *[""] * 7]
        for fields in (line.split(separator) for line in text.replace("\n", "\r").split("\r"))
    }
    if "MSA" not in segments:
        return None
    accepted = segments["MSA"]
    error = segments.get("ERR", [""] * 4)
    condition = (error[3] or accepted[6]).split(component)[0]
    return Acknowledgement(accepted[1].strip(), accepted[2].strip(), accepted[3], condition)


def _judged(where: str, acknowledgement: Acknowledgement) -> Acknowledgement:
    """Return an acknowledgement that accepts; of others only codes go into the error.

    AE and AR alone do not say whether time heals: AR means both "of a kind that I do not take" and
    "my database is down" (Chapter 2.9.2.2). Without a condition the message is sent again. CR is
    of the first kind alone (Chapter 2.9.3.2).
    """
    code, condition = acknowledgement.code, acknowledgement.condition
    if code in ACCEPTED:
        return acknowledgement
    if code not in ("AE", "AR", "CE", "CR"):
        raise ArchiveUnavailable(f"{where} answered with no code of HL7 Table 0008")
    if condition in FINAL_CODES:
        raise ArchiveRefused(f"{where} answered {code}, {condition} {FINAL_CODES[condition]}")
    if condition in PASSING_CODES:
        raise ArchiveUnavailable(f"{where} answered {code}, {condition} {PASSING_CODES[condition]}")
    if code == "CR":
        raise ArchiveRefused(f"{where} answered CR: it does not take messages of this kind")
    raise ArchiveUnavailable(f"{where} answered {code}, with no reason of HL7 Table 0357")
