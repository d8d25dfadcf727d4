"""Statements about what DBOS leaves in our database beside its own tables."""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, inspect, text

OF_STEPS = "datasource_outputs"
"""What transactions returned; DBOS deletes a workflow without them."""


def has_any(connection: Connection) -> bool:
    """Return whether the engine has ever run on this database."""
    return inspect(connection).has_table(OF_STEPS)


def forget_steps(connection: Connection, workflow_ids: Sequence[str]) -> None:
    """Delete what the transactions of workflows returned."""
    statement = text(f"DELETE FROM {OF_STEPS} WHERE workflow_id IN :ids")  # noqa: S608 - a constant
    connection.execute(
        statement.bindparams(bindparam("ids", expanding=True)), {"ids": list(workflow_ids)}
    )
