"""Begin and end of an association's threads: what pynetdicom leaves open, closed for ours alone.

Each cure is an attribute of an object of one association, replaced when that begins: what is read
from its connection (``connection.py``), what its threads wait for (``reactor.py``), and what its
end is.

TLS begins here too. Given a context, pynetdicom would do the handshake between two calls of
``accept``, where a peer that says nothing would keep all others out.
"""

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

from pynetdicom import evt

from thoracle.receive import reactor
from thoracle.receive.connection import Connection
from thoracle.receive.inbox import IncomingFile
from thoracle.settings import Receive, tls

LOCAL_LIMIT_EXCEEDED = bytes.fromhex("0300000000040002 0302")
"""A-ASSOCIATE-RJ: rejected transient, presentation, local limit exceeded (PS3.8 Table 9-21)."""
DRAIN_SECONDS = 1.0


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


def turn_away(assoc: Any) -> None:
    """Reject a connection before it has asked for anything; its threads do not begin."""
    connection: socket.socket = assoc.dul.socket.socket
    assoc.run = lambda: None
    with contextlib.suppress(OSError):
        connection.settimeout(DRAIN_SECONDS)
        connection.sendall(LOCAL_LIMIT_EXCEEDED)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):  # closed with bytes unread, it would take back what was sent
            pass
    connection.close()


def prepare(assoc: Any, settings: Receive, refused: Callable[[str], None]) -> None:
    """Guard an association; to be called on ``EVT_CONN_OPEN``, before the first byte is read.

    Parameters
    ----------
    assoc
        The association.
    settings
        Largest PDU (PS3.8 Annex D.1), and how long things may take.
    refused
        Told why, when the association is ended for what it sent.
    """
    Connection(assoc, settings, refused).guard()
    closed = reactor.wait_instead_of_polling(assoc, settings.dimse_timeout_seconds)
    at_end(assoc, lambda _: closed())
