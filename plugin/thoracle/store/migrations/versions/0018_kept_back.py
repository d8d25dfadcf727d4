"""What a rule keeps back is told by no order and no filter of the worklist."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

NEWEST = (
    "SELECT analysis.{} FROM analysis JOIN study USING (study_instance_uid)"
    " WHERE analysis.study_instance_uid = worklist.study_instance_uid"
    " AND analysis.generation = study.generation AND analysis.state = 'done'"
)
"""A column of the newest result of a row of the worklist."""
IS_KEPT_BACK = " AND analysis.sending IN ('held', 'shadow')"
KEPT_BACK = NEWEST.format("sending") + IS_KEPT_BACK
OTHERS = (
    "SELECT 1 FROM analysis"  # noqa: S608 - constants
    " WHERE analysis.study_instance_uid = worklist.study_instance_uid"
    f" AND analysis.state IN ('done', 'withdrawn'){IS_KEPT_BACK}"
)
"""Whether any result of a row is kept back, e.g. of another patient in the study."""
NO_RESULT = (
    "probability = NULL, threshold = NULL, reason_code = NULL, head_start_minutes = 0, why = NULL,"
    " sort_key = received_at"
)
"""What a row says, and where it stands, without a result."""
# Canceled while it was held, a workitem was to be seen by everybody.
WORKITEMS = (
    "DELETE FROM workitem WHERE state = 'CANCELED' AND EXISTS"  # noqa: S608 - constants
    " (SELECT 1 FROM analysis"
    " WHERE analysis.study_instance_uid = workitem.study_instance_uid"
    " AND analysis.generation = workitem.generation"
    f" AND analysis.bundle_digest = workitem.bundle_digest{IS_KEPT_BACK})"
)


def upgrade() -> None:
    """Move the schema one step forward."""
    op.create_index(op.f("ix_analysis_sending"), "analysis", ["sending"])
    # Where the newest result is told and an earlier one is not, the row may say either.
    for column, name in (("probability", "probability"), ("ai_state", "outcome")):
        newest = NEWEST.format(name)
        op.execute(
            f"UPDATE worklist SET {column} = ({newest} LIMIT 1)"  # noqa: S608 - constants
            f" WHERE EXISTS ({OTHERS}) AND NOT EXISTS ({KEPT_BACK})"
            f" AND EXISTS ({newest} AND analysis.outcome IS NOT NULL)"
            " AND ai_state IN ('positive', 'negative', 'indeterminate', 'rejected')"
        )
    # Between two readings the row has what the first one said, and where it put the study.
    op.execute(
        f"UPDATE worklist SET {NO_RESULT}"  # noqa: S608 - constants
        f" WHERE EXISTS ({OTHERS}) AND ai_state IN ('queued', 'running', 'withdrawn')"
    )
    op.execute(
        f"UPDATE worklist SET ai_state = ({KEPT_BACK} LIMIT 1), {NO_RESULT}"  # noqa: S608 - constants
        f" WHERE EXISTS ({KEPT_BACK})"
    )
    op.execute(WORKITEMS)
