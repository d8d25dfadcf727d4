"""What is tried on an SCP over the wire: the cases, and what a right answer to each is."""

import struct
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

import hostile
from rawpeer import (
    COMMAND,
    DATA,
    ECHO,
    LAST,
    STORE,
    VERIFICATION,
    Outcome,
    RawPeer,
    Target,
    command,
    pdu,
    pdv,
    request,
)

CR = str(ComputedRadiographyImageStorage)
SYNTAX = str(ExplicitVRLittleEndian)
ONE = [(1, CR, SYNTAX)]
REFUSED, ENDED, TAKEN = "refused", "ended", "taken"
"""Refused with a status; the association rejected, aborted or closed; stored."""
CUT_SECONDS = 10.0


@dataclass(frozen=True)
class Case:
    """A case: what is done, what a right outcome is, and for how many seconds it may take."""

    name: str
    play: Callable[[Target], Outcome]
    right: str
    seconds: float = 20


def is_right(case: Case, outcome: Outcome) -> bool:
    """Return whether an outcome is what the case asks for."""
    if case.right == REFUSED:
        return outcome.failed
    if case.right == TAKEN:
        return outcome.status == 0
    return outcome.what in ("rejected", "aborted", "closed")


# ---- objects -----------------------------------------------------------------------------------


def _store(make: Callable[[], hostile.Hostile], target: Target) -> Outcome:
    made = make()  # takes longer than a connection may wait
    with RawPeer(target) as peer:
        return peer.store(made, seconds=120)


def _without_data_set(target: Target) -> Outcome:
    with RawPeer(target) as peer:
        if (outcome := peer.associate(ONE)).what != "accepted":
            return outcome
        peer.send(pdu(4, pdv(1, COMMAND | LAST, command(STORE, CR, "1.2.3", data_set=False))))
        return peer.response()


def _twice(first: hostile.Hostile, second: hostile.Hostile, target: Target) -> Outcome:
    outcome = _store(lambda: first, target)
    return _store(lambda: second, target) if outcome.status == 0 else outcome


def _with_other_patient(patient: bytes) -> Callable[[Target], Outcome]:
    names = {"uid": "2.25.77001", "study": "2.25.77002"}
    before, after = hostile.image(**names), hostile.image(patient=patient, **names)  # type: ignore[arg-type]  # both are text
    return partial(_twice, before, after)


# ---- bytes and PDUs ----------------------------------------------------------------------------


def _bytes(data: bytes, target: Target) -> Outcome:
    with RawPeer(target) as peer:
        peer.send(data)
        return Outcome(peer.receive()[0])


def _contexts(ids: list[int], target: Target) -> Outcome:
    with RawPeer(target) as peer:
        return peer.associate([(one, CR, SYNTAX) for one in ids])


def _pdvs(content: bytes, target: Target) -> Outcome:
    """Send the content of a P-DATA-TF PDU on an association."""
    with RawPeer(target) as peer:
        if (outcome := peer.associate(ONE)).what != "accepted":
            return outcome
        peer.send(pdu(4, content))
        return peer.response()


def _endless_command(target: Target) -> Outcome:
    with RawPeer(target) as peer:
        if (outcome := peer.associate(ONE)).what != "accepted":
            return outcome
        for _ in range(1000):
            peer.send(pdu(4, pdv(1, COMMAND, bytes(peer.largest - 6))))
        return peer.response()


def _store_request(target: Target, uid: str) -> bytes:
    return pdv(1, COMMAND | LAST, command(STORE, CR, uid, data_set=True))


def _other_context_within(target: Target) -> Outcome:
    return _pdvs(_store_request(target, "1.2.3") + pdv(3, DATA, bytes(100)), target)


def _two_messages_in_one_pdu(target: Target) -> Outcome:
    """A C-ECHO and a C-STORE; the second is answered, too."""
    made = hostile.image()
    with RawPeer(target) as peer:
        contexts = [*ONE, (3, VERIFICATION, SYNTAX)]
        if (outcome := peer.associate(contexts)).what != "accepted":
            return outcome
        echo = pdv(3, COMMAND | LAST, command(ECHO, VERIFICATION, None, data_set=False))
        store = _store_request(target, made.sop_instance_uid) + pdv(1, LAST, made.data_set)
        peer.send(pdu(4, echo + store))
        peer.response()
        return peer.response()


# ---- slow ones ---------------------------------------------------------------------------------


def _trickle(pieces: list[bytes], target: Target, first: bytes = b"") -> Outcome:
    """Send a piece a second until somebody ends it."""
    with RawPeer(target) as peer:
        if first:
            if (outcome := peer.associate(ONE)).what != "accepted":
                return outcome
            peer.send(first)
        for piece in pieces:
            peer.send(piece)
            kind, _ = peer.receive(1)
            if kind != "silence":
                return Outcome(kind)
        return Outcome("silence")


def _slow_request(target: Target) -> Outcome:
    return _trickle([bytes([one]) for one in request(target, ONE)[:40]], target)


def _slow_pdu(target: Target) -> Outcome:
    long = pdu(4, pdv(1, COMMAND | LAST, bytes(1000)))
    return _trickle([bytes([one]) for one in long[1:40]], target, first=long[:1])


def _slow_fragments(target: Target) -> Outcome:
    first = pdu(4, _store_request(target, "1.2.3"))
    return _trickle([pdu(4, pdv(1, DATA, b"x"))] * 40, target, first=first)


def _silent(target: Target) -> Outcome:
    return _trickle([b""] * 40, target)


# ---- crowds ------------------------------------------------------------------------------------


def _others_are_served(target: Target, crowd: int, data: bytes) -> Outcome:
    """Have a crowd at one address; return what a C-ECHO from another address gets."""
    other = Target(target.host, target.port, target.ae_title, "OTHER", "127.0.0.2")
    with ExitStack() as stack:
        for _ in range(crowd):
            try:
                peer = stack.enter_context(RawPeer(target, 5))
            except OSError:
                break
            peer.send(data)
        time.sleep(1)
        began = time.monotonic()
        try:
            outcome = stack.enter_context(RawPeer(other, 15)).echo()
        except OSError as error:
            return Outcome(type(error).__name__)
        late = time.monotonic() - began > 1
        return Outcome("late") if late and outcome.status == 0 else outcome


def _silent_crowd(target: Target) -> Outcome:
    return _others_are_served(target, 500, b"")


def _idle_crowd(target: Target) -> Outcome:
    return _others_are_served(target, 120, request(target, ONE))


def _burst_and_close(target: Target) -> Outcome:
    with RawPeer(target) as peer:
        if (outcome := peer.associate(ONE)).what != "accepted":
            return outcome
        for _ in range(3):
            peer.store_again(hostile.image())
    return Outcome("closed")


def cases() -> list[Case]:
    """Return all cases; objects are made when they are sent."""
    made = [
        Case(f"{name}: {number}", partial(_store, partial(make, number)), REFUSED, 120)
        for name, (make, number, _) in hostile.COSTLY.items()
    ]
    image = hostile.image
    return [
        *made,
        Case("no data set", _without_data_set, REFUSED),
        Case("study UID ..", partial(_store, partial(image, study="..")), REFUSED),
        Case("0 x 0 pixels", partial(_store, partial(image, rows=0, columns=0)), REFUSED),
        Case("UID with leading zeros", partial(_store, partial(image, study="1.02.3")), TAKEN),
        Case("60 levels of sequences", partial(_store, partial(hostile.nested, 60)), TAKEN),
        Case("HTTP", partial(_bytes, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), ENDED),
        Case("PDU of 4 GiB", partial(_bytes, pdu(1, bytes(1000), 0xFFFFFFFF)), ENDED),
        Case("PDU of an unknown type", partial(_bytes, pdu(9, bytes(10))), ENDED),
        Case("2000 contexts", partial(_contexts, list(range(1, 256, 2)) * 16), ENDED),
        Case("context with an even ID", partial(_contexts, [2]), ENDED),
        Case("one context ID twice", partial(_contexts, [1, 1]), ENDED),
        Case("command set without end", _endless_command, ENDED),
        Case("P-DATA without a PDV", partial(_pdvs, b""), ENDED),
        Case("PDV of length 0", partial(_pdvs, bytes(4)), ENDED),
        Case("PDV of length 1", partial(_pdvs, struct.pack(">LB", 1, 1)), ENDED),
        Case("PDV longer than its PDU", partial(_pdvs, struct.pack(">LBB", 9999, 1, 3)), ENDED),
        Case("PDV of another context", partial(_pdvs, pdv(99, COMMAND, b"x")), ENDED),
        Case("data set without command", partial(_pdvs, pdv(1, DATA, b"x")), ENDED),
        Case("other context within a message", _other_context_within, ENDED),
        Case("command of noise", partial(_pdvs, pdv(1, COMMAND | LAST, b"\xff" * 99)), ENDED),
        Case("two messages in one PDU", _two_messages_in_one_pdu, TAKEN),
        Case("nothing asked for", _silent, ENDED, CUT_SECONDS + 3),
        Case("request, a byte a second", _slow_request, ENDED, CUT_SECONDS + 3),
        Case("PDU, a byte a second", _slow_pdu, ENDED, CUT_SECONDS + 3),
        Case("object, a byte a second", _slow_fragments, ENDED, CUT_SECONDS + 3),
        Case("burst of objects, then closed", _burst_and_close, ENDED),
        Case("500 silent connections; others", _silent_crowd, TAKEN, 60),
        Case("120 idle associations; others", _idle_crowd, TAKEN, 60),
    ]
