"""The trail: one row for each event, committed in the transaction of what it tells.

The verbs are those of PS3.15 A.5.3 as far as the standard has one; that "an AI read this image"
is an Instances Accessed event with our own type code, because no standard event says it.
"""

from enum import Enum
from typing import Any, TypedDict

from sqlalchemy import Connection

from thoracle.store import chain, views
from thoracle.store.tables import now

SUCCESS = 0
"""Event Outcome Indicator (PS3.15 Table A.5.1-1)."""
MINOR_FAILURE = 4
SERIOUS_FAILURE = 8


class Event(Enum):
    """What can happen: verb, EventID (DCM), EventTypeCode, EventActionCode."""

    APPLICATION_STARTED = ("application started", "110100", "110120", "E")
    APPLICATION_STOPPED = ("application stopped", "110100", "110121", "E")
    CONFIGURATION_CHANGED = ("configuration changed", "110113", "110129", "E")
    CONFIGURATION_EDITED = ("configuration edited", "110113", "110129", "E")
    DATABASE_ACCEPTED = ("database accepted", "110113", "110129", "E")
    DATABASE_MOVED = ("database moved", "110113", "110129", "E")
    BUNDLE_REFUSED = ("bundle refused", "110113", "110129", "E")
    ASSOCIATION_REFUSED = ("association refused", "110113", "110126", "E")
    ASSOCIATION_ACCEPTED = ("association accepted", "110113", "110126", "E")
    INSTANCE_STORED = ("instance stored", "110104", None, "C")
    INSTANCE_DUPLICATE = ("instance duplicate", "110104", None, "C")
    INSTANCE_CORRECTED = ("instance corrected", "110104", None, "U")
    PATIENTS_DIFFER = ("patients differ", "110111", "PATIENT", "U")
    PATIENTS_RECONCILED = ("patients reconciled", "110111", "PATIENT", "U")
    INSTANCE_REFUSED = ("instance refused", "110104", None, "C")
    STUDY_COMPLETE = ("study complete", "110111", None, "C")
    IMAGE_READ = ("image read", "110103", "IMAGE-READ", "R")
    ANALYSIS_REPLAYED = ("analysis replayed", "110103", "REPLAY", "R")
    ANALYSIS_SUPERSEDED = ("analysis superseded", "110111", None, "U")
    ANALYSIS_FAILED = ("analysis failed", "110111", None, "U")
    RESULT_CREATED = ("result created", "110111", None, "C")
    RULES_DECIDED = ("rules decided", "110111", "ROUTE", "U")
    STUDY_RELEASED = ("study released", "110111", "RELEASE", "U")
    NOTIFICATION_SENT = ("notification sent", "110106", "HL7", "R")
    NOTIFICATION_POSTPONED = ("notification postponed", "110106", "HL7", "R")
    NOTIFICATION_FAILED = ("notification failed", "110106", "HL7", "R")
    RESULT_WITHDRAWN = ("result withdrawn", "110111", "WITHDRAWN", "U")
    DELIVERY_SENT = ("delivery sent", "110104", None, "R")
    PROOF_REQUESTED = ("proof requested", "110104", "PROOF", "R")
    PROOF_ANSWERED = ("proof answered", "110104", "PROOF", "R")
    ARCHIVE_QUERIED = ("archive queried", "110112", "PROOF", "E")
    DELIVERY_SUCCEEDED = ("delivery succeeded", "110104", None, "R")
    DELIVERY_POSTPONED = ("delivery postponed", "110104", None, "R")
    DELIVERY_RETRIED = ("delivery retried", "110102", "RETRY", "E")
    DELIVERY_FAILED = ("delivery failed", "110104", None, "R")
    WORKLIST_QUERIED = ("worklist queried", "110112", "UPS", "E")
    WORKITEM_CREATED = ("workitem created", "110111", "UPS", "C")
    WORKITEM_CHANGED = ("workitem changed", "110111", "UPS", "U")
    LOGGED_IN = ("logged in", "110114", "110122", "E")
    LOGIN_REFUSED = ("log-in refused", "110114", "110122", "E")
    LOGGED_OUT = ("logged out", "110114", "110123", "E")
    PERSON_CHANGED = ("person changed", "110113", "110137", "E")
    LIST_VIEWED = ("list viewed", "110112", "WORKLIST", "E")
    STUDY_VIEWED = ("study viewed", "110103", "VIEW", "R")
    VERDICT_GIVEN = ("verdict given", "110111", "VERDICT", "C")
    PEER_TRIED = ("peer tried", "110100", "ECHO", "E")
    ALARM_RAISED = ("alarm raised", "110100", "WATCH", "E")
    ALARM_ENDED = ("alarm ended", "110100", "WATCH", "E")
    ALARM_ACKNOWLEDGED = ("alarm acknowledged", "110100", "ACKNOWLEDGE", "E")
    ALARM_SILENCED = ("alarm silenced", "110100", "SILENCE", "E")
    ALARM_UNSILENCED = ("alarm silence ended", "110100", "SILENCE", "E")
    AUDIT_BEHIND = ("audit forwarding behind", "110113", "FORWARD", "E")
    AUDIT_CAUGHT_UP = ("audit forwarding caught up", "110113", "FORWARD", "E")
    HOLD_PLACED = ("legal hold placed", "110113", "110135", "E")
    HOLD_RELEASED = ("legal hold released", "110113", "110135", "E")
    RETENTION_DELETED = ("retention deleted", "110105", "RETENTION", "D")
    AUDIT_KEY_CREATED = ("audit key created", "110113", "110129", "E")
    AUDIT_TIMESTAMPED = ("audit time-stamped", "110113", "TIMESTAMP", "E")
    AUDIT_PURGED = ("audit purged", "110113", "110132", "E")
    ERASURE_REQUESTED = ("erasure requested", "110105", "ERASURE", "D")
    PATIENT_ERASED = ("patient erased", "110105", "ERASURE", "D")
    EXPORTED = ("exported", "110106", None, "R")
    AUDIT_READ = ("audit read", "110101", None, "R")

    def __init__(self, verb: str, event_id: str, event_type_code: str | None, action: str) -> None:
        self.verb = verb
        self.event_id = event_id
        self.event_type_code = event_type_code
        self.action = action


VIEWS = (Event.LIST_VIEWED, Event.STUDY_VIEWED, Event.AUDIT_READ, Event.EXPORTED)
"""Events that can have shown studies."""


class Columns(TypedDict, total=False):
    """The columns of an event beside its verb and time; meanings in ``store/tables/audit.py``."""

    event_outcome: int
    event_type_code: str | None
    """Where the event's own is not precise enough."""
    calling_ae_title: str | None
    called_ae_title: str | None
    network_address: str | None
    user_id: str | None
    patient_id: str | None
    issuer_of_patient_id: str | None
    study_instance_uid: str | None
    accession_number: str | None
    sop_instance_uid: str | None
    result_sop_instance_uid: str | None
    bundle_version: str | None
    bundle_digest: str | None
    finding: str | None
    outcome: str | None
    probability: float | None
    reason_code: str | None
    destination: str | None
    proof: str | None
    status: str | None
    correlation_id: str | None
    seconds: float | None
    detail: dict[str, Any]


def record(connection: Connection, event: Event, columns: Columns) -> None:
    """Add an event to the transaction of ``connection``, at the end of the chain.

    The studies that a view showed, if its detail has ``studies``, can be asked for: store/views.py.
    """
    row_id = chain.append(
        connection,
        {
            "event_outcome": SUCCESS,
            "event_type_code": event.event_type_code,
            "detail": {},
            **columns,
            "recorded_at": now(),
            "event": event.verb,
            "event_id": event.event_id,
            "action": event.action,
        },
    )
    studies = columns.get("detail", {}).get("studies")
    if event in VIEWS and isinstance(studies, list):
        views.add(connection, row_id, studies)
