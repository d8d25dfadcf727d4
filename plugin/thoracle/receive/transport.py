"""Begin and end of an association's threads: what pynetdicom leaves open, closed for ours alone.

Each cure is an attribute of an object of one association, replaced when that begins: what is read
from its connection (``connection.py``), what its threads wait for, and what its end is.

TLS begins here too. Given a context, pynetdicom would do the handshake between two calls of
``accept``, where a peer that says nothing would keep all others out.
"""

import contextlib
import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from pynetdicom import evt

from thoracle.receive.connection import InboundConnection
from thoracle.receive.inbox import IncomingFile
from thoracle.settings import Receive, tls

# ---- loops ---------------------------------------------------------------------------------------
# The loops of an association, which wait where pynetdicom's look around each millisecond.
#
# pynetdicom runs two threads for each association: one reads and writes the connection, the other
# serves requests. Both are replaced here in what they wait for, for our associations alone: the
# first sleeps until bytes come or something is to be sent, the second until it is told of a
# message.

LOOK_AROUND = 2.0
"""Seconds until a thread that nobody wakes looks at its timers."""
CLOSING = 0.01
"""Alike, while its connection is closed and it waits for the other thread."""
UNSERVED = 2
"""Messages that may wait to be served; more are left in the connection. A sender waits for each
answer (PS3.7 Annex D.3.3.3), but for C-CANCEL."""


class _NotifyingQueue(queue.Queue[Any]):
    """A queue that notifies of what is put in."""

    def __init__(self, notify: Callable[[], object]) -> None:
        super().__init__()
        self._notify = notify

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in, and notify."""
        super().put(item, block, timeout)
        self._notify()


class _Wakeup:
    """Wakes a thread that waits for a connection."""

    def __init__(self) -> None:
        self._listening, self._waking = socket.socketpair()
        self._listening.setblocking(False)
        self._waking.setblocking(False)

    def wake(self) -> None:
        """Wake whoever waits, or who will wait next."""
        try:
            self._waking.send(b"\0")
        except OSError:  # full, so it has been rung; or closed, so nobody waits
            return

    def wait(self, connection: socket.socket | None, seconds: float) -> None:
        """Return when the connection can be read, after :meth:`wake`, or after so many seconds."""
        poll = select.poll()
        poll.register(self._listening, select.POLLIN)
        if connection is not None and connection.fileno() >= 0:
            poll.register(connection, select.POLLIN)
        poll.poll(seconds * 1000)
        try:
            self._listening.recv(4096)
        except OSError:
            return

    def close(self) -> None:
        """Give the sockets back."""
        self._listening.close()
        self._waking.close()


def wait_instead_of_polling(assoc: Any, dimse_timeout: float) -> Callable[[], None]:
    """Replace the loops of an association that has not begun; return what ends the waiting.

    Parameters
    ----------
    assoc
        The association.
    dimse_timeout
        Seconds after which a message that does not go on ends it.
    """
    wakeup, incoming = _Wakeup(), threading.Event()
    dul = assoc.dul
    dul.to_provider_queue = _NotifyingQueue(wakeup.wake)
    dul.to_user_queue = _NotifyingQueue(incoming.set)
    assoc.dimse.msg_queue = _NotifyingQueue(incoming.set)
    dul._run_loop_delay = 0
    look = dul._is_transport_event

    def is_transport_event() -> bool:
        state = dul.state_machine.current_state
        connection = dul.socket.socket
        if connection is None or state == "Sta1":
            wakeup.wait(None, CLOSING)
        elif assoc.dimse.msg_queue.qsize() >= UNSERVED:
            wakeup.wait(None, LOOK_AROUND)
            return False
        elif state != "Sta13" and dul.event_queue.empty() and not _pending(connection):
            wakeup.wait(connection, _until_due(dul.artim_timer))
        return bool(look())

    dul._is_transport_event = is_transport_event
    assoc._run_reactor = lambda: _serve(assoc, incoming, wakeup, dimse_timeout)
    return wakeup.close


def _until_due(timer: Any) -> float:
    """Return how long to wait for a connection whose peer may have to act in time (PS3.8 9.1.5)."""
    if timer._start_time is None or timer._end_time is not None:  # not started, or stopped
        return LOOK_AROUND
    return float(min(max(timer.remaining, CLOSING), LOOK_AROUND))


def _pending(connection: Any) -> bool:
    """Return whether TLS has bytes that the socket no longer has."""
    return hasattr(connection, "pending") and connection.pending() > 0


def _serve(assoc: Any, incoming: threading.Event, wakeup: _Wakeup, dimse_timeout: float) -> None:
    """Serve requests until the association ends: pynetdicom's own loop, but for its waiting.

    A release is taken after the requests that came before it. When the connection is closed,
    nobody hears an answer: what waits is left, and not acknowledged.
    """
    while not assoc._kill:
        assoc._is_paused = True
        assoc._reactor_checkpoint.wait()
        assoc._is_paused = False
        if assoc.acse.is_aborted():
            assoc.dul.receive_pdu(wait=False)
            assoc.is_aborted, assoc.is_established = True, False
            evt.trigger(assoc, evt.EVT_ABORTED, {})
            assoc.kill()
            return
        context_id, message = assoc.dimse.get_msg(block=False)
        if message is not None:
            wakeup.wake()  # there is room for another one
            try:
                assoc._serve_request(message, context_id)
            finally:
                _discard_file(message)
        elif assoc.is_established and assoc.acse.is_release_requested():
            assoc.acse.send_release(is_response=True)
            assoc.is_released, assoc.is_established = True, False
            evt.trigger(assoc, evt.EVT_RELEASED, {})
            assoc.kill()
            return
        elif not assoc.dul.is_alive():
            assoc.kill()
            return
        elif assoc.dul.idle_timer_expired() or _stalled(assoc, dimse_timeout):
            assoc.abort()
            assoc.kill()
            return
        else:
            incoming.wait(LOOK_AROUND)
            incoming.clear()


def _discard_file(message: Any) -> None:
    """Remove the file of an object that no handler took, e.g. of a request without its UID."""
    file = getattr(message, "_dataset_file", None)
    if file is not None:
        file.refuse("its request is not valid")


def _stalled(assoc: Any, seconds: float) -> bool:
    """Return whether a message has begun and nothing more of it has come for so many seconds."""
    timer = assoc.dul._idle_timer
    started = timer._start_time
    return assoc.dimse.message is not None and time.time() - started > seconds


# ---- begin and end -------------------------------------------------------------------------------

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


def reject(assoc: Any) -> None:
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
    InboundConnection(assoc, settings, refused).guard()
    closed = wait_instead_of_polling(assoc, settings.dimse_timeout_seconds)
    at_end(assoc, lambda _: closed())
