"""The mark in a database whose rows were moved to another one: nothing may be written to it.

It is set before the first row is copied. A move that was interrupted leaves it, so that neither
database is taken for the one that counts until the move is done, or taken back.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, inspect, select, update

from thoracle.store.tables import database_move, now


@dataclass(frozen=True, slots=True)
class Mark:
    """What a database says of its rows."""

    target: str
    """URL of the database that they were, or are, moved to; no password is in it."""
    begun_at: str
    ended_at: str | None
    """``None``: the move is under way, or was interrupted."""

    def __str__(self) -> str:
        if self.ended_at is not None:
            return (
                f"found a database whose rows were moved to {self.target} ({self.ended_at[:19]}), "
                "required: that one; see docs/database.md"
            )
        return (
            f"found a move of its rows to {self.target}, begun {self.begun_at[:19]}, that did not "
            "end, required: `thoracle move` again, which ends it or begins anew"
        )


def mark(connection: Connection) -> Mark | None:
    """Return the mark of a database; ``None``: it has none, or is of a version without."""
    if not inspect(connection).has_table(database_move.name):
        return None
    column = database_move.c
    row = connection.execute(select(column.target, column.begun_at, column.ended_at)).first()
    return None if row is None else Mark(*row)


def begin(connection: Connection, target: str) -> None:
    """Mark a database as one whose rows are being moved."""
    clear(connection)
    connection.execute(insert(database_move).values(begun_at=now(), target=target))


def end(connection: Connection) -> None:
    """Mark it as one whose rows have been moved."""
    connection.execute(update(database_move).values(ended_at=now()))


def clear(connection: Connection) -> None:
    """Take the mark away: this database counts."""
    connection.execute(delete(database_move))
