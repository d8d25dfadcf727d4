"""What stands of a study's analyses, and the status of each resource that follows from it.

Two analyses matter for each study. The *newest* tells what becomes of it. The *standing* one is
the newest that has said something (it may be withdrawn since) to people outside: a result that a
rule holds or shadows is told to nobody, and so not here.
"""

from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, select
from sqlalchemy.sql.selectable import FromClause

from thoracle.store.tables import analysis, study, worklist

HIDDEN = ("held", "shadow")
"""States of sending of which nobody outside may know the result."""

NEWEST = analysis.alias("newest")
STANDING = analysis.alias("standing")
_earlier = analysis.alias("earlier")


def is_told(table: Any) -> ColumnElement[bool]:
    """Return whether an analysis has said something to people outside."""
    return and_(
        table.c.state.in_(("done", "withdrawn")),
        func.coalesce(table.c.sending, "").not_in(HIDDEN),
    )


JOINED: FromClause = (
    study.outerjoin(worklist, worklist.c.study_instance_uid == study.c.study_instance_uid)
    .outerjoin(
        NEWEST,
        (NEWEST.c.study_instance_uid == study.c.study_instance_uid)
        & (NEWEST.c.generation == study.c.generation)
        & (NEWEST.c.state != "superseded"),
    )
    .outerjoin(
        STANDING,
        (STANDING.c.study_instance_uid == study.c.study_instance_uid)
        & is_told(STANDING)
        & (
            STANDING.c.generation
            == select(func.max(_earlier.c.generation))
            .where(_earlier.c.study_instance_uid == study.c.study_instance_uid, is_told(_earlier))
            .correlate(study)
            .scalar_subquery()
        ),
    )
)
"""Each study with its place in the worklist, its newest and its standing analysis."""

REPORT_STATUS = case(
    (STANDING.c.state == "withdrawn", "entered-in-error"),
    (STANDING.c.state == "done", "preliminary"),
    (NEWEST.c.state == "failed", "cancelled"),
    (func.coalesce(NEWEST.c.sending, "") == "shadow", None),
    else_="registered",
)
"""DiagnosticReport.status; NULL: there is none to be told of."""
OBSERVATION_STATUS = case(
    (STANDING.c.state == "withdrawn", "entered-in-error"),
    (STANDING.c.state == "done", "preliminary"),
    else_=None,
)
TASK_STATUS = case(
    (NEWEST.c.state == "failed", "failed"),
    (and_(NEWEST.c.state == "done", NEWEST.c.sending == "held"), "on-hold"),
    (NEWEST.c.state.in_(("done", "withdrawn")), "completed"),
    (worklist.c.ai_state == "running", "in-progress"),
    else_="requested",
)
STATUS: dict[str, ColumnElement[Any]] = {
    "DiagnosticReport": REPORT_STATUS,
    "Observation": OBSERVATION_STATUS,
    "Task": TASK_STATUS,
    "ImagingStudy": case((study.c.generation >= 0, "available"), else_=None),
}


def _later(one: Any, other: Any) -> ColumnElement[Any]:
    """Return the later of two times; PostgreSQL and SQLite name such a function differently."""
    return case((func.coalesce(other, "") > one, other), else_=one)


UPDATED = _later(_later(study.c.changed_at, worklist.c.changed_at), NEWEST.c.finished_at)
