"""The tables. A change here needs a migration in ``migrations/versions``; a test compares the two.

Points in time are ISO 8601 strings in UTC with microseconds (:func:`now`): they sort as text, mean
the same on SQLite and PostgreSQL, and are readable in any tool an auditor uses.
"""

from thoracle.store.tables.audit import (
    audit_checkpoint,
    audit_erased,
    audit_event,
    audit_forward,
    audit_head,
    audit_view,
)
from thoracle.store.tables.fleet import gateway_lease
from thoracle.store.tables.images import header, instance, legal_hold, reconciliation, study
from thoracle.store.tables.move import database_move
from thoracle.store.tables.outbox import commitment, outbox
from thoracle.store.tables.pages import login_attempt, page_secret, provider_login
from thoracle.store.tables.people import (
    api_token,
    person,
    recovery_code,
    saved_filter,
    second_factor,
    waiting_login,
    web_session,
)
from thoracle.store.tables.results import (
    alarm,
    alarm_occurrence,
    alarm_silence,
    analysis,
    bundle,
    reading,
    result,
)
from thoracle.store.tables.schema import LARGEST_ID, ago, metadata, now, timestamp
from thoracle.store.tables.worklist import (
    performance,
    verdict,
    verdict_going,
    workitem,
    workitem_subscription,
    worklist,
)

__all__ = [
    "LARGEST_ID",
    "ago",
    "alarm",
    "alarm_occurrence",
    "alarm_silence",
    "analysis",
    "api_token",
    "audit_checkpoint",
    "audit_erased",
    "audit_event",
    "audit_forward",
    "audit_head",
    "audit_view",
    "bundle",
    "commitment",
    "database_move",
    "gateway_lease",
    "header",
    "instance",
    "legal_hold",
    "login_attempt",
    "metadata",
    "now",
    "outbox",
    "page_secret",
    "performance",
    "person",
    "provider_login",
    "reading",
    "reconciliation",
    "recovery_code",
    "result",
    "saved_filter",
    "second_factor",
    "study",
    "timestamp",
    "verdict",
    "verdict_going",
    "waiting_login",
    "web_session",
    "workitem",
    "workitem_subscription",
    "worklist",
]
