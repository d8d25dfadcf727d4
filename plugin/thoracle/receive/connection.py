"""What is read from a connection: whole PDUs of a size, in time, whose PDVs are in order.

pynetdicom reads 4096 bytes at a time and believes any length that a PDU states; a peer that stops
within a PDU holds its thread for ever; a bare connection holds its place even when it has closed;
and a message that cannot be parsed ends the thread without an answer.
"""

import logging
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pynetdicom.pdu_primitives import P_DATA

from thoracle.settings import Receive

# ---- messages ------------------------------------------------------------------------------------
# What a message may be: its fragments in order, of a size, and going on.
#
# pynetdicom keeps a command set in memory however long it is, and waits for ever for a command
# whose data set has come first.

COMMAND_BIT, LAST_BIT = 1, 2
"""Bits of a Message Control Header (PS3.8 Annex E.2)."""
LARGEST_COMMAND = 65536
"""Bytes; the longest that the standard knows are of some hundred."""
LARGEST_DATA_SET = 16 * 1024 * 1024
"""Bytes of one that is kept in memory: identifiers, workitems, answers of storage commitment."""
PATIENCE = 8.0
"""Seconds for which a message may bring as little as it likes."""
SLOWEST = 1000
"""Bytes a second that it has to bring then. A pause of any length that the settings allow is one
PDU; a trickle is many."""
TRICKLE = 4
"""PDUs in which too little comes."""


class BadMessage(Exception):
    """The association has to be aborted; the text says why."""


class Messages:
    """Looks at the fragments of one association's messages before they are taken."""

    def __init__(self, assoc: Any) -> None:
        self._assoc = assoc
        self._context: int | None = None
        """Of the command set, when that is complete."""
        self._command = self._data_set = 0
        self._fragments = self._bytes = 0
        self._began = 0.0

    def check(self, context: int, data: bytes) -> None:
        """Raise BadMessage when a PDV (its control header and value) is out of order."""
        if not data:
            raise BadMessage("a PDV without a Message Control Header")
        if context not in self._assoc._accepted_cx:
            raise BadMessage(f"a PDV of presentation context {context}, which is not accepted")
        if data[0] & COMMAND_BIT:
            self._check_command(context, data)
        elif context != self._context:
            raise BadMessage("a data set without its command, or of another context")
        elif self._in_memory():
            self._data_set += len(data)
            if self._data_set > LARGEST_DATA_SET:
                raise BadMessage(f"a data set of more than {LARGEST_DATA_SET} bytes")
        self.go_on(len(data))

    def _check_command(self, context: int, data: bytes) -> None:
        if self._context is not None:
            raise BadMessage("a command within a data set")
        self._command += len(data)
        if self._command > LARGEST_COMMAND:
            raise BadMessage(f"a command set of more than {LARGEST_COMMAND} bytes")
        if data[0] & LAST_BIT:
            self._context = context

    def _in_memory(self) -> bool:
        message = self._assoc.dimse.message
        return message is None or message._data_set_file is None

    def go_on(self, size: int) -> None:
        """Count a fragment; raise BadMessage when the message trickles."""
        moment = time.monotonic()
        if not self._fragments:
            self._began = moment
        self._fragments += 1
        self._bytes += size
        seconds = moment - self._began
        if seconds < PATIENCE:
            return
        if self._fragments >= TRICKLE and self._bytes < SLOWEST * seconds:
            raise BadMessage(f"a message that brought {self._bytes} bytes in {seconds:.0f} seconds")
        self._fragments = self._bytes = 0  # what was fast enough saves up nothing

    def end(self) -> None:
        """Begin anew: a message is complete."""
        self._context = None
        self._command = self._data_set = self._fragments = self._bytes = 0


logger = logging.getLogger(__name__)

LARGEST_ASSOCIATE_PDU = 1_048_576
"""Bytes of an A-ASSOCIATE-RQ; 128 contexts with 16 transfer syntaxes need about 100 kB."""
TLS_HANDSHAKE = b"\x16\x03"
"""How a TLS record with a handshake begins (RFC 8446 Section 5.1); 0x16 is no PDU type."""
PDU_HEAD = 6
"""Bytes of a PDU's type, a reserved byte and its length (PS3.8 Section 9.3.1)."""
P_DATA_TF = 4
AT_ONCE = 16
"""PDUs of an object that are taken, while they are there, before the thread looks around: for what
is to be sent, and for its timers."""
ASSOCIATE_HEAD = 68
"""Bytes of an A-ASSOCIATE-RQ before its items, without the PDU's head (PS3.8 Section 9.3.2)."""
PRESENTATION_CONTEXT = 0x20
REJECTED = bytes.fromhex("03000000000400010201")
"""A-ASSOCIATE-RJ: rejected permanent, ACSE, no reason given (PS3.8 Section 9.3.4)."""
"""Seconds for which a PDU may bring as little as it likes."""
"""Bytes a second that it has to bring then, from its first byte on."""


class InboundConnection:
    """The reading side of an association, guarded.

    Parameters
    ----------
    assoc
        An association whose threads have not begun.
    settings
        Largest PDU, and how long things may take.
    refused
        Told why an association was ended that broke the rules.
    """

    def __init__(self, assoc: Any, settings: Receive, refused: Callable[[str], None]) -> None:
        self._assoc = assoc
        self._connection: socket.socket = assoc.dul.socket.socket
        self._largest_data = settings.maximum_pdu_bytes
        self._seconds = settings.dimse_timeout_seconds
        self._request_due = time.monotonic() + settings.acse_timeout_seconds
        self._refused = refused
        self._head_is_next = True
        self._began = 0.0
        self._pushed_back = bytearray()
        self._buffer: memoryview | None = None
        self._messages = Messages(assoc)
        self._decode = assoc.dimse.receive_primitive
        self._read_any = assoc.dul._read_pdu_data

    def guard(self) -> None:
        """Put itself in the place of what pynetdicom reads with; before the first byte is read."""
        seconds = max(1, int(self._seconds))
        self._connection.setsockopt(  # a peer that reads no answer holds its thread for ever
            socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", seconds, 0)
        )
        self._assoc.dul.socket.recv = self.recv
        self._assoc.dul._read_pdu_data = self.read_pdu
        self._assoc.dimse.receive_primitive = self.receive_primitive

    # ---- bytes ---------------------------------------------------------------------------------

    def recv(self, length: int) -> bytearray:
        """Return so many bytes, or fewer when the connection ends: pynetdicom then closes it."""
        head, self._head_is_next = self._head_is_next, not self._head_is_next
        if self._pushed_back:
            received, self._pushed_back = self._pushed_back, bytearray()
            return received
        asked = self._assoc.requestor.primitive is not None
        largest = self._largest_data if asked else LARGEST_ASSOCIATE_PDU
        if length > largest:
            self._refuse(f"a PDU of {length} bytes, at most {largest} are taken")
            return bytearray()
        received = bytearray(length)
        with memoryview(received) as view:
            filled = self._fill(view, head)
        del received[filled:]
        if asked:
            return received
        if received.startswith(TLS_HANDSHAKE):
            self._refused("speaks TLS where receive.tls is not set")
            received.clear()
        if not head and _has_even_context(received):
            # pynetdicom's thread would end of it, and leave the connection open.
            self._refuse("a presentation context whose ID is not odd")
            self._connection.sendall(REJECTED)
            received.clear()
        if len(received) < length:
            # Nobody will ask for an association any more; the thread that waits for the request
            # would hold its place until the ACSE timeout, and a few probes would fill them all.
            self._assoc.dul.to_user_queue.put(None)
        return received

    def _fill(self, view: memoryview, head: bool) -> int:
        """Return how many bytes came in time; a PDU has to make progress from its first byte on."""
        if head:
            self._began = time.monotonic()
        filled = self._fill_at_once(view)
        while filled < len(view):
            due = self._began + min(PATIENCE + filled / SLOWEST, self._seconds)
            if self._assoc.requestor.primitive is None:
                due = min(due, self._request_due)
            self._connection.settimeout(max(due - time.monotonic(), 0.001))
            try:
                count = self._connection.recv_into(view[filled:])
            except TimeoutError:
                seconds = time.monotonic() - self._began
                self._refuse(f"a PDU that brought {filled} bytes in {seconds:.0f} seconds")
                break
            except OSError:
                break
            if count == 0:
                break
            filled += count
        self._connection.settimeout(None)
        return filled

    def _fill_at_once(self, view: memoryview) -> int:
        """Return how many bytes were there already: to wait for them would cost more calls.

        An end or an error of the connection is left to whoever waits for the rest.
        """
        if isinstance(self._connection, ssl.SSLSocket):  # takes no flags
            return 0
        filled = 0
        with suppress(OSError):
            while filled < len(view):
                count = self._connection.recv_into(view[filled:], 0, socket.MSG_DONTWAIT)
                if count == 0:
                    break
                filled += count
        return filled

    def _has_more(self) -> bool:
        """Return whether bytes are there already."""
        if isinstance(self._connection, ssl.SSLSocket):
            return self._connection.pending() > 0
        try:
            return bool(self._connection.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK))
        except OSError:
            return False

    # ---- PDUs ----------------------------------------------------------------------------------

    def read_pdu(self) -> None:
        """Read a PDU; those of an object go from the connection into its file."""
        self._head_is_next = True
        message = self._assoc.dimse.message
        file = message._data_set_file if message is not None else None
        if file is None:
            self._read_any()
            return
        left = AT_ONCE
        while self._read_fragments(message, file) and (left := left - 1) and self._has_more():
            pass

    def _read_fragments(self, message: Any, file: Any) -> bool:
        """Read a PDU of an object's data set; another one is left to pynetdicom.

        Returns whether the data set goes on.
        """
        dul = self._assoc.dul
        if self._buffer is None:
            self._buffer = memoryview(bytearray(self._largest_data))
        head = bytearray(PDU_HEAD)
        with memoryview(head) as view:
            filled = self._fill(view, head=True)
        kind, _, length = struct.unpack(">BBL", head)
        if filled < PDU_HEAD:
            dul.event_queue.put("Evt17")  # transport connection closed (PS3.8 Table 9-10)
        elif kind != P_DATA_TF or length > self._largest_data:
            self._pushed_back = head
            self._read_any()
        elif self._fill(self._buffer[:length], head=False) < length:
            dul.event_queue.put("Evt17")
        else:
            return self._take(message, file, self._buffer[:length])
        return False

    def _take(self, message: Any, file: Any, pdu: memoryview) -> bool:
        """Write the PDVs of a PDU; what comes behind a last one is left to pynetdicom.

        Returns whether none of them was the last one.
        """
        at = 0
        goes_on = True
        try:
            while at < len(pdu) or at == 0:
                context, control, value, at = _pdv(pdu, at)
                if control & COMMAND_BIT or context != message.context_id:
                    raise BadMessage("a command, or another context, within a data set")
                file.append(value)
                self._messages.go_on(len(value))
                if control & LAST_BIT:
                    goes_on = False
                    self.receive_primitive(_primitive(context, bytes([LAST_BIT])))
                    break
            while at < len(pdu):
                context, control, value, at = _pdv(pdu, at)
                self.receive_primitive(_primitive(context, bytes([control]) + bytes(value)))
        except BadMessage as error:
            self._abort(str(error))
            return False
        return goes_on

    # ---- messages ------------------------------------------------------------------------------

    def receive_primitive(self, primitive: Any) -> None:
        """Take PDVs one by one, so that none behind the end of a message is lost."""
        try:
            values = primitive.presentation_data_value_list
            if not values:
                raise BadMessage("a P-DATA-TF PDU without a PDV")
            for context, data in values:
                self._messages.check(context, data)
                self._decode(_primitive(context, data))
                if self._assoc.dimse.message is None:
                    self._messages.end()
        except BadMessage as error:
            self._abort(str(error))
        except Exception as error:  # noqa: BLE001 - raised by any fault of any message
            self._abort(f"a message with {type(error).__name__}")

    def _abort(self, reason: str) -> None:
        self._refuse(reason)
        self._assoc.dul.event_queue.put("Evt19")  # unrecognized PDU: A-ABORT (PS3.8 Table 9-10)

    def _refuse(self, reason: str) -> None:
        logger.warning("association ended: %s", reason)
        self._refused(reason)


def _has_even_context(request: bytearray) -> bool:
    """Return whether an A-ASSOCIATE-RQ has a context ID that is even (PS3.8 Section 9.3.2.2)."""
    at = ASSOCIATE_HEAD
    while at + 5 <= len(request):
        kind, _, length = struct.unpack_from(">BBH", request, at)
        if kind == PRESENTATION_CONTEXT and request[at + 4] % 2 == 0:
            return True
        at += 4 + length
    return False


def _pdv(pdu: memoryview, at: int) -> tuple[int, int, memoryview, int]:
    """Return context ID, message control header, value and end of a PDV (PS3.8 Section 9.3.5.1)."""
    if len(pdu) - at < 6:
        raise BadMessage("a PDV without its head")
    size, context, control = struct.unpack_from(">LBB", pdu, at)
    end = at + 4 + size
    if size < 2 or end > len(pdu):
        raise BadMessage(f"a PDV of {size} bytes in a PDU of {len(pdu)}")
    return context, control, pdu[at + 6 : end], end


def _primitive(context: int, data: bytes) -> P_DATA:
    primitive = P_DATA()
    value: Any = [context, data]  # checked for a list, annotated as tuple
    primitive.presentation_data_value_list = [value]
    return primitive
