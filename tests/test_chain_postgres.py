"""The chain on PostgreSQL, with several writers at once in processes of their own."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DBAPIError

from postgres import postgres
from test_questions import FILTERS, ROWS
from thoracle.audit import query
from thoracle.audit.query import Question
from thoracle.audit.verification import verify
from thoracle.store import chain, database, trail
from thoracle.store.tables import audit_event, metadata

WRITER = """
import sys
from thoracle.store import trail
from thoracle.store.database import connect
engine = connect(sys.argv[1])
for number in range(int(sys.argv[3])):
    with engine.connect() as connection:
        trail.record(connection, trail.Event.AUDIT_READ, {"user_id": sys.argv[2],
            "probability": number / 7, "detail": {"number": number, "text": "\\u0000\\u00e4"}})
        connection.rollback() if number % 10 == 9 else connection.commit()
"""
WRITERS, EACH = 4, 50


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgres() as found:
        yield found


@pytest.fixture(scope="module")
def engine(url: str) -> Iterator[Engine]:
    found = database.open_database(url)
    yield found
    found.dispose()


def test_the_migrations_make_the_tables_of_the_code(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": "thoracle_schema",
                "compare_type": True,
                # SQLite alone has it; the comparison does not know `ddl_if`.
                "include_name": lambda name, *_: name != "ix_worklist_search",
                "include_object": lambda _, name, *__: name != "ix_worklist_search",
            },
        )
        assert compare_metadata(context, metadata) == []


def test_every_filter_gives_on_postgresql_what_it_gives_on_sqlite(engine: Engine) -> None:
    with engine.connect() as connection:
        for event, columns in ROWS:
            trail.record(connection, event, columns)
        statement = select(audit_event.c.id).order_by(audit_event.c.id)
        ids = [row.id for row in connection.execute(statement).all()]
        for name, (value, expected) in FILTERS.items():
            found = query.page(connection, Question(**{name: value}), 10)
            assert [event["id"] for event in found] == [ids[one - 1] for one in expected[::-1]]
        connection.rollback()


def test_many_writers_make_one_chain(engine: Engine, url: str) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, url, f"writer{number}", str(EACH)])
        for number in range(WRITERS)
    ]
    seen = threading.Event()

    def follow() -> None:  # a verification meanwhile sees a whole chain, whenever it looks
        while any(writer.poll() is None for writer in writers):
            with engine.connect() as connection, connection.begin():
                connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
                assert verify(connection).well
            seen.set()

    follow()
    assert [writer.wait(60) for writer in writers] == [0] * WRITERS
    assert seen.is_set()
    with engine.connect() as connection:
        found = verify(connection)
        assert (found.well, found.rows) == (True, WRITERS * EACH * 9 // 10)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_event SET user_id = 'x'",
        "DELETE FROM audit_event",
        "TRUNCATE audit_event",
        "DELETE FROM audit_head",
    ],
)
def test_the_database_refuses_to_change_what_was_written(engine: Engine, statement: str) -> None:
    with engine.connect() as connection:
        trail.record(connection, trail.Event.AUDIT_READ, {})
        with pytest.raises(DBAPIError, match="only ever added"):
            connection.execute(text(statement))
        connection.rollback()


def test_a_changed_row_is_found(engine: Engine) -> None:
    with engine.connect() as connection:
        for _ in range(3):
            trail.record(connection, trail.Event.AUDIT_READ, {"user_id": "me"})
        last, _ = chain.head(connection)
        connection.execute(text("ALTER TABLE audit_event DISABLE TRIGGER USER"))
        statement = text("UPDATE audit_event SET user_id = 'you' WHERE id = :id")
        connection.execute(statement, {"id": last - 1})
        assert verify(connection).broken_id == last - 1
        connection.rollback()
