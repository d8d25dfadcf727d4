"""What pynetdicom leaves open between socket and handler, closed for our associations alone.

It reads 4096 bytes at a time and believes any length that a PDU states; a peer that stops within
a PDU holds its thread for ever; a bare connection holds one of the few places even when it has
closed; and a message that cannot be parsed ends the thread without an answer. Each cure is an
attribute of an object of one association, replaced when that begins.

TLS begins here too. Given a context, pynetdicom would do the handshake between two calls of
``accept``, where a peer that says nothing would keep all others out.
"""

import logging
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from pynetdicom import evt

from thoracle.receive.inbox import IncomingFile
from thoracle.settings import tls

logger = logging.getLogger(__name__)

LARGEST_ASSOCIATE_PDU = 1_048_576
"""Bytes of an A-ASSOCIATE-RQ; 128 contexts with 16 transfer syntaxes need about 100 kB."""
TLS_HANDSHAKE = b"\x16\x03"
"""How a TLS record with a handshake begins (RFC 8446 Section 5.1); 0x16 is no PDU type."""


def secure(event: evt.Event, context: ssl.SSLContext, seconds: float) -> None:
    """Begin TLS on a connection; to be called on ``EVT_CONN_OPEN``, in a thread of its own.

    Raises
    ------
    HandshakeFailed
        The connection is closed.
    """
    assoc: Any = event.assoc
    try:
        assoc.dul.socket.socket = tls.accept(assoc.dul.socket.socket, context, seconds)
    except tls.HandshakeFailed:
        assoc.dul.socket.close()
        assoc.dul.to_user_queue.put(None)  # as below: nobody will ask for an association
        raise


def at_end(assoc: Any, ended: Callable[[Any], None]) -> None:
    """Have ``ended`` called with an association when its thread ends, whatever ends it.

    pynetdicom's own events of an end come in two threads in any order, or not at all.
    """
    run = assoc.run

    def run_to_its_end() -> None:
        try:
            run()
        finally:
            ended(assoc)

    assoc.run = run_to_its_end


def unread(assoc: Any) -> list[IncomingFile]:
    """Return the files of objects that an association brought and nobody will take any more."""
    messages = [assoc.dimse.message]
    while not assoc.dimse.msg_queue.empty():
        messages.append(assoc.dimse.msg_queue.get()[1])
    names = ("_data_set_file", "_dataset_file")  # of a message, and of a primitive
    files = [getattr(message, name, None) for message in messages for name in names]
    return [file for file in files if file is not None]


def prepare(
    event: evt.Event, maximum_pdu_bytes: int, seconds: float, refused: Callable[[str], None]
) -> None:
    """Guard an association; to be called on ``EVT_CONN_OPEN``, before the first byte is read.

    Parameters
    ----------
    event
        The connection that was opened.
    maximum_pdu_bytes
        The Maximum Length that we announce (PS3.8 Annex D.1).
    seconds
        Time for the rest of a PDU whose first bytes have come.
    refused
        Told why, when it begins with TLS although none is expected.
    """
    assoc: Any = event.assoc
    limit = max(maximum_pdu_bytes, LARGEST_ASSOCIATE_PDU)
    connection: socket.socket = assoc.dul.socket.socket

    def recv(length: int) -> bytearray:
        received = _read(connection, length, limit, seconds)
        if assoc.requestor.primitive is not None:
            return received
        if received.startswith(TLS_HANDSHAKE):
            refused("speaks TLS where receive.tls is not set")
            received.clear()
        if len(received) < length:
            # Nobody will ask for an association any more; the thread that waits for the request
            # would hold its place until the ACSE timeout, and a few probes would fill them all.
            assoc.dul.to_user_queue.put(None)
        return received

    assoc.dul.socket.recv = recv
    assoc.dimse.receive_primitive = _guarded(assoc, assoc.dimse.receive_primitive)


def _read(connection: socket.socket, length: int, limit: int, seconds: float) -> bytearray:
    """Return so many bytes, or fewer when the connection ends: pynetdicom then closes it.

    Raises
    ------
    TimeoutError
        When they do not come in time; it is handled as the end of the connection, too.
    """
    if length > limit:
        logger.warning("connection closed: PDU of %d bytes, at most %d are taken", length, limit)
        return bytearray()
    received = bytearray(length)
    deadline = time.monotonic() + seconds
    with memoryview(received) as view:
        filled = 0
        while filled < length:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            count = connection.recv_into(view[filled:])
            if count == 0:
                break
            filled += count
    connection.settimeout(None)
    del received[filled:]
    return received


def _guarded(assoc: Any, receive: Callable[[Any], None]) -> Callable[[Any], None]:
    def receive_primitive(primitive: Any) -> None:
        try:
            receive(primitive)
        except Exception as error:  # noqa: BLE001 - raised by any fault of any message
            logger.warning("association aborted: message with %s", type(error).__name__)
            assoc.dul.event_queue.put("Evt19")  # unrecognized PDU: A-ABORT (PS3.8 Table 9-10)

    return receive_primitive
