"""Statements about what DBOS leaves in our database beside its own tables."""

import re
from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import Connection, bindparam, inspect, text

from thoracle.store.database import ENGINE_SCHEMA

STATUS = "workflow_status"
STEPS = "operation_outputs"
"""What other steps returned."""
OF_STEPS = "datasource_outputs"
"""What transactions returned; DBOS deletes a workflow without them."""
_IMAGE = re.compile(r"images/[0-9a-f]{2}/[0-9a-f-]+\.dcm")


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


def bring_delays_forward(connection: Connection, seconds: float) -> None:
    """Have each delay that is under way end earlier by so many seconds."""
    statement = text(
        f"UPDATE {table(connection, STATUS)} "  # noqa: S608 - a constant
        "SET delay_until_epoch_ms = delay_until_epoch_ms - :earlier WHERE status = 'DELAYED'"
    )
    connection.execute(statement, {"earlier": round(seconds * 1000)})


def owners(connection: Connection, state: str) -> set[str]:
    """Return the executors of the workflows in a state."""
    status = table(connection, STATUS)
    if status is None:
        return set()
    statement = text(f"SELECT DISTINCT executor_id FROM {status} WHERE status = :state")  # noqa: S608 - a constant
    found = connection.execute(statement, {"state": state}).scalars()
    return {one for one in found if one}


def images_made(connection: Connection) -> set[str]:
    """Return the paths of images that steps of workflows have made that have not ended.

    They have no row yet, and a workflow that goes on after a crash makes them no second time.
    """
    status, steps = table(connection, STATUS), table(connection, STEPS)
    if status is None or steps is None:
        return set()
    statement = text(
        f"SELECT output FROM {steps} WHERE output LIKE :wanted AND workflow_uuid IN "  # noqa: S608 - constants
        f"(SELECT workflow_uuid FROM {status} WHERE status IN ('PENDING', 'ENQUEUED', 'DELAYED'))"
    )
    outputs = connection.execute(statement, {"wanted": "%images/%"}).scalars()
    return {path for output in outputs for path in _IMAGE.findall(output)}


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


# ---- rows that name somebody -----------------------------------------------------------------

_TEXTS = (
    (STATUS, "workflow_uuid", ("workflow_uuid", "inputs", "output", "error", "deduplication_id")),
    ("workflow_input", "workflow_uuid", ("inputs",)),
    ("workflow_output", "workflow_uuid", ("output", "error")),
    (STEPS, "workflow_uuid", ("output", "error", "child_workflow_id")),
    (OF_STEPS, "workflow_id", ("output", "error")),
    ("workflow_events", "workflow_uuid", ("value",)),
    ("notifications", "destination_uuid", ("message",)),
)
"""Tables of DBOS's with texts of ours, their column of the workflow's id, and those texts."""


def naming(connection: Connection, words_in: Callable[[str], Iterable[str]]) -> dict[str, set[str]]:
    """Return the workflows in whose texts there are words, and these; it reads them all."""
    found: dict[str, set[str]] = {}
    for name, of, wanted in _TEXTS:
        there = table(connection, name)
        if there is None:
            continue
        schema = None if connection.dialect.name == "sqlite" else ENGINE_SCHEMA
        known = {one["name"] for one in inspect(connection).get_columns(name, schema)}
        columns = ", ".join([of, *(one for one in wanted if one in known)])
        statement = text(f"SELECT {columns} FROM {there}")  # noqa: S608 - constants
        rows = connection.execution_options(stream_results=True).execute(statement)
        for row in rows:
            if words := {word for one in row if one for word in words_in(str(one))}:
                found.setdefault(row[0], set()).update(words)
    return found


def states(connection: Connection, workflow_ids: Iterable[str]) -> dict[str, str]:
    """Return the status of each of these workflows that there is."""
    statement = text(
        f"SELECT workflow_uuid, status FROM {table(connection, STATUS)} "  # noqa: S608 - a constant
        "WHERE workflow_uuid IN :ids"
    ).bindparams(bindparam("ids", expanding=True))
    rows = connection.execute(statement, {"ids": list(workflow_ids)})
    return {row[0]: row[1] for row in rows}
