"""Events of the trail as sentences: pure functions of rows, which never fail for what stands there.

Whatever others wrote into a row comes out inert: on one line, control characters escaped.
"""

from thoracle.audit.sentences import analysis, house, sending
from thoracle.audit.sentences.words import Row, Rows, detail, inert
from thoracle.store.trail import Event

__all__ = ["SENTENCES", "alike", "inert", "sentence"]

SENTENCES = {**analysis.SENTENCES, **sending.SENTENCES, **house.SENTENCES}
_EVENTS = {event.verb: event for event in Event}
_CALLER = ("calling_ae_title", "network_address", "user_id")
_TOGETHER = {
    Event.INSTANCE_STORED: _CALLER,
    Event.INSTANCE_DUPLICATE: _CALLER,
    Event.INSTANCE_CORRECTED: _CALLER,
    Event.INSTANCE_REFUSED: (*_CALLER, "status", "comment"),
    Event.RESULT_CREATED: ("correlation_id",),
    Event.DELIVERY_SENT: ("destination", "status", "attempt"),
    Event.DELIVERY_SUCCEEDED: ("destination", "proof", "attempt"),
    Event.DELIVERY_POSTPONED: ("destination", "result_sop_instance_uid", "detail"),
    Event.DELIVERY_FAILED: ("destination", "status", "detail"),
    Event.NOTIFICATION_POSTPONED: ("destination", "detail"),
    Event.LOGGED_IN: (*_CALLER, "means"),
    Event.LOGIN_REFUSED: (*_CALLER, "why"),
    Event.LIST_VIEWED: (*_CALLER, "means"),
    Event.STUDY_VIEWED: (*_CALLER, "means"),
    Event.EXPORTED: (*_CALLER, "means"),
    Event.AUDIT_READ: (*_CALLER, "means"),
    Event.ASSOCIATION_REFUSED: (*_CALLER, "called_ae_title", "reason"),
}
"""Events that one sentence tells together, when they have these alike and follow on each other."""


def sentence(rows: Rows) -> str:
    """Return one sentence about one event, or about several that are :func:`alike`."""
    event = _EVENTS.get(str(rows[0].get("event")))
    if event is None:  # of a later version
        return f"{inert(rows[0].get('event'), 32).capitalize()}."
    return SENTENCES[event](rows)


def alike(one: Row, other: Row) -> bool:
    """Return whether a sentence can tell two events that follow on each other together."""
    if one.get("event") != other.get("event"):
        return False
    event = _EVENTS.get(str(one.get("event")))
    if event not in _TOGETHER:
        return False
    return all(_value(one, name) == _value(other, name) for name in _TOGETHER[event])


def _value(row: Row, name: str) -> object:
    """Return a column, or a value of ``detail``, which is not compared as a whole."""
    return row.get(name) if name in row and name != "detail" else detail(row, name)
