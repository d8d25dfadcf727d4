"""Statements about what DBOS leaves in our database beside its own tables."""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, inspect, text

from thoracle.store.database import ENGINE_SCHEMA

STATUS = "workflow_status"
OF_STEPS = "datasource_outputs"
"""What transactions returned; DBOS deletes a workflow without them."""


def table(connection: Connection, name: str) -> str | None:
    """Return how a table of DBOS's is named in SQL; ``None`` before the engine's first start."""
    schema = None if connection.dialect.name == "sqlite" else ENGINE_SCHEMA
    if not inspect(connection).has_table(name, schema):
        return None
    return name if schema is None else f"{schema}.{name}"


def delete_steps(connection: Connection, workflow_ids: Sequence[str]) -> None:
    """Delete what the transactions of workflows returned; they have run, so there is a table."""
    steps = table(connection, OF_STEPS)
    statement = text(f"DELETE FROM {steps} WHERE workflow_id IN :ids")  # noqa: S608 - a constant
    connection.execute(
        statement.bindparams(bindparam("ids", expanding=True)), {"ids": list(workflow_ids)}
    )


def given_up(connection: Connection, since: float) -> dict[str, int]:
    """Return how many workflows of each name ended in an error since a moment (POSIX time, s)."""
    status = table(connection, STATUS)
    if status is None:
        return {}
    # As DBOS's index of such workflows has it: SQLite uses an index of a part for nothing less.
    statement = text(
        f"SELECT name, count(*) FROM {status} "  # noqa: S608 - a constant
        "WHERE status IN ('ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED') "
        "AND status <> 'CANCELLED' AND updated_at >= :since GROUP BY name ORDER BY name"
    )
    rows = connection.execute(statement, {"since": round(since * 1000)}).all()
    return {row[0]: row[1] for row in rows}
