"""Which database it is, what it must give, and what is said when it does not."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, insert, select, text, update
from sqlalchemy.exc import OperationalError

from certificates import Authority
from postgres import Server, server
from thoracle import settings
from thoracle.cli import machine
from thoracle.errors import DataFolderInUse, SettingsError, ThoracleError
from thoracle.settings import Settings
from thoracle.store import database, trail
from thoracle.store.database import DatabaseError, sqlite_url
from thoracle.store.postgresql import SoleGateway
from thoracle.store.tables import alarm, audit_event, now

SECRET = "s3cret-of-the-database"


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with server() as one:
        yield one


def configured(folder: Path, url: str, **more: object) -> Settings:
    values = {"data_folder": str(folder), "database": {"url": url, **more}}
    return settings.parse(values)


# ---- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"url": f"mysql://thoracle:{SECRET}@h/d"}, "found the scheme mysql, required: postgres"),
        ({"url": f"sqlite:///{SECRET}"}, "found the scheme sqlite, required: postgresql"),
        ({"url": SECRET}, "found a text without a scheme, required: postgresql"),
        ({"url": f"postgresql://u:{SECRET}@h/d"}, "found a password in the URL, required:"),
        ({"url": f"postgresql://h/d?password={SECRET}"}, "found a password in the URL"),
        ({"url": f"postgresql://h/d?sslpassword={SECRET}"}, "found a password in the URL"),
        ({"url": f"postgresql://[{SECRET}/d"}, "found a text that is no URL"),
        ({"url": "postgresql://h"}, "found no name of a database"),
        ({"password_file": "/x"}, "found a password_file without a url"),
        ({"password": SECRET}, "database.password: unknown setting; did you mean password_file?"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_secret(
    table: dict[str, str], expected: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.parse({"database": table})
    assert expected in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_password_file_must_be_private_and_not_empty(tmp_path: Path) -> None:
    file = tmp_path / "password"
    of = configured(tmp_path, "postgresql://h/d", password_file=str(file))
    with pytest.raises(SettingsError, match="No such file"):
        database.engine_of(of)
    file.write_text("")
    file.chmod(0o600)
    with pytest.raises(SettingsError, match="found nothing in"):
        database.engine_of(of)
    file.write_text(SECRET)
    file.chmod(0o644)
    with pytest.raises(SettingsError, match="found permissions 0644 on"):
        database.engine_of(of)
    file.chmod(0o640)
    assert SECRET not in repr(database.engine_of(of))


def test_without_a_url_it_is_sqlite_in_the_data_folder(tmp_path: Path) -> None:
    engine = database.engine_of(Settings(data_folder=tmp_path))
    assert engine.url.render_as_string() == sqlite_url(tmp_path)
    with pytest.raises(DatabaseError, match="found no database"):
        database.existing(Settings(data_folder=tmp_path))


# ---- the server ------------------------------------------------------------------------------


def test_a_password_is_taken_from_its_file_for_each_connection(
    running: Server, tmp_path: Path
) -> None:
    running.execute(f"CREATE ROLE scram LOGIN PASSWORD '{SECRET}'")
    url = running.create("OWNER scram").replace("postgres@", "scram@")
    file = tmp_path / "password"
    file.write_text(SECRET + "\n")
    file.chmod(0o600)
    of = configured(tmp_path, url, password_file=str(file))
    with running.asking("scram"):
        engine = database.engine_of(of)
        database.prepare(engine)
        assert SECRET not in database.described(of) + repr(engine) + repr(of)
        engine.dispose()
        running.execute("ALTER ROLE scram PASSWORD 'another'")
        with pytest.raises(DatabaseError, match="password authentication failed") as caught:
            database.existing(of)
        assert SECRET not in str(caught.value)
        file.write_text("another")
        with engine.connect() as connection:  # the same engine: no restart is needed
            assert connection.execute(text("SELECT 1")).scalar() == 1
        engine.dispose()


def test_libpq_finds_a_password_in_its_own_file(
    running: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.execute(f"CREATE ROLE filed LOGIN PASSWORD '{SECRET}'")
    url = running.create("OWNER filed").replace("postgres@", "filed@")
    file = tmp_path / "pgpass"
    file.write_text(f"127.0.0.1:*:*:filed:{SECRET}\n")
    file.chmod(0o600)
    with running.asking("filed"):
        with pytest.raises(DatabaseError, match="no password supplied"):
            database.open_database(url)
        monkeypatch.setenv("PGPASSFILE", str(file))
        database.open_database(url).dispose()


def test_tls_and_the_name_of_the_server_are_checked_as_the_url_says(
    running: Server, tmp_path: Path
) -> None:
    ours, other = Authority(tmp_path), Authority(tmp_path, "other")
    identity = ours.issue("database", "127.0.0.1")
    url = running.create() + f"?sslmode=verify-full&sslrootcert={ours.ca_file}"
    with running.secure(identity.certificate_file, identity.key_file):
        assert "with TLSv1.3" in database.described(configured(tmp_path, url))
        for wrong, expected in (
            (url.replace(str(ours.ca_file), str(other.ca_file)), "certificate verify failed"),
            (url.replace("127.0.0.1", "localhost"), "does not match host name"),
        ):
            with pytest.raises(DatabaseError, match=expected):
                database.open_database(wrong)


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    of = configured(tmp_path, "postgresql://thoracle@127.0.0.1:1/thoracle")
    with pytest.raises(DatabaseError, match="port 1 failed: Connection refused") as caught:
        database.existing(of)
    assert str(caught.value).startswith("postgresql://thoracle@127.0.0.1:1/thoracle: ")
    finding = next(one for one in machine.check(of) if one.subject == "database")
    assert not finding.well


def test_check_says_what_the_server_is_and_changes_nothing(running: Server, tmp_path: Path) -> None:
    of = configured(tmp_path, running.create())
    said = database.described(of)
    assert "PostgreSQL 15." in said
    assert said.endswith("without TLS, no tables yet: `thoracle serve` makes them")
    database.open_database(of.database.url).dispose()
    assert ", schema 00" in database.described(of)


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("SET synchronous_commit = off", "found synchronous_commit off, required: any but off"),
        ("SET default_transaction_read_only = on", "session is read-only"),
    ],
)
def test_a_role_whose_commits_may_be_lost_is_refused(
    running: Server, role: str, expected: str
) -> None:
    name = "role_" + role.split()[1]
    running.execute(f"CREATE ROLE {name} LOGIN", f"ALTER ROLE {name} {role}")
    url = running.create(f"OWNER {name}").replace("postgres@", f"{name}@")
    with pytest.raises(DatabaseError, match=expected):
        database.open_database(url)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("TEMPLATE template0 ENCODING 'LATIN1'", "found encoding LATIN1, required: UTF8"),
        (
            "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'",
            r"found collation C \(ICU\), required: C",
        ),
    ],
)
def test_a_database_that_keeps_or_sorts_text_otherwise_is_refused(
    running: Server, options: str, expected: str
) -> None:
    with pytest.raises(DatabaseError, match=expected):
        database.open_database(running.create(options))


def test_a_server_that_does_not_sync_is_refused_on_the_next_connection(running: Server) -> None:
    engine = database.open_database(running.create())
    try:
        running.configure("fsync = off")
        with pytest.raises(DatabaseError, match="found fsync off, required: on"):
            database.open_database(running.create())
        engine.dispose()
        with pytest.raises(OperationalError, match="found fsync off"):  # a C-STORE: 0xA700
            engine.connect()
    finally:
        running.configure("fsync = on")
    engine.dispose()


def test_a_database_of_something_else_is_left_alone(running: Server) -> None:
    url = running.create()
    engine = database.connect(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE attachedfiles (id integer)"))
    with pytest.raises(DatabaseError, match=r"tables of something else \(attachedfiles\)"):
        database.prepare(engine)
    with engine.connect() as connection:
        statement = text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        assert connection.execute(statement).scalar() == 1
    engine.dispose()


@pytest.mark.parametrize("embedded", [True, False])
def test_a_schema_of_a_newer_version_is_refused(
    running: Server, tmp_path: Path, embedded: bool
) -> None:
    engine = database.open_database(sqlite_url(tmp_path) if embedded else running.create())
    with engine.begin() as connection:
        connection.execute(text("UPDATE thoracle_schema SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match="found schema 9999 of another version of Thoracle"):
        database.prepare(engine)
    engine.dispose()


# ---- what is alike ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(running: Server) -> Iterator[Engine]:
    made = database.open_database(running.create())
    yield made
    made.dispose()


def _alarm(subject: str) -> dict[str, str]:
    return {
        "subject": subject,
        "level": "calm",
        "sentence": "",
        "since": now(),
        "changed_at": now(),
    }


def test_text_with_nul_and_half_characters_is_kept_as_far_as_it_is_text(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(insert(alarm).values(_alarm("A\0B\ud800")))
        statement = select(alarm.c.subject).where(alarm.c.subject == "A\0B\ud800")
        assert connection.execute(statement).scalar_one() == "A\ufffdB?"
        connection.rollback()


def test_transactions_write_one_after_the_other_and_see_what_the_one_before_wrote(
    engine: Engine,
) -> None:
    """As on SQLite: a question behind the first write is answered by what is then the case.

    Each adds its row when there are fewer than three, which READ COMMITTED alone does not keep.
    """

    def add(number: int) -> None:
        with engine.begin() as connection:
            connection.execute(update(alarm).where(alarm.c.subject == "none").values(level=""))
            there = connection.execute(select(func.count()).select_from(alarm)).scalar_one()
            if there < 3:
                connection.execute(text("SELECT pg_sleep(0.05)"))
                connection.execute(insert(alarm).values(_alarm(f"n{number}")))

    writers = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with engine.begin() as connection:
        assert connection.execute(select(func.count()).select_from(alarm)).scalar_one() == 3
        connection.execute(alarm.delete())


@pytest.mark.parametrize("embedded", [True, False])
def test_what_a_transaction_has_read_nobody_changes_before_it_writes(
    running: Server, tmp_path: Path, embedded: bool
) -> None:
    engine = database.open_database(sqlite_url(tmp_path) if embedded else running.create())

    def add(number: int) -> None:
        with engine.begin() as connection:
            database.begin_writing(connection)
            there = connection.execute(select(func.count()).select_from(alarm)).scalar_one()
            time.sleep(0.02)
            if there < 3:
                connection.execute(insert(alarm).values(_alarm(f"n{number}")))

    writers = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(alarm)).scalar_one() == 3
    engine.dispose()


def test_rows_written_in_opposite_orders_do_not_lock_each_other_out(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(insert(alarm), [_alarm("a"), _alarm("b")])
    failed = []

    def touch(*subjects: str) -> None:
        try:
            for _ in range(20):
                with engine.begin() as connection:
                    for one in subjects:
                        statement = update(alarm).where(alarm.c.subject == one)
                        connection.execute(statement.values(changed_at=now()))
                        trail.record(connection, trail.Event.AUDIT_READ, {})
        except OperationalError as error:
            failed.append(error)

    threads = [threading.Thread(target=touch, args=names) for names in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_who_only_reads_waits_for_nobody(engine: Engine) -> None:
    with engine.begin() as writing, engine.connect() as reading:
        trail.record(writing, trail.Event.AUDIT_READ, {})
        reading.execute(text("SET LOCAL statement_timeout = 2000"))
        reading.execute(select(func.count()).select_from(audit_event)).scalar_one()
        writing.rollback()


# ---- one gateway -----------------------------------------------------------------------------


def test_a_second_gateway_is_refused_and_told_which_the_first_is(running: Server) -> None:
    lost: list[str] = []
    first, second = (database.connect(running.create()) for _ in range(2))
    other = database.connect(first.url.render_as_string())
    held = SoleGateway(first, database.named(first), lost.append)
    SoleGateway(second, database.named(second), lost.append).close()  # of another database
    with pytest.raises(DataFolderInUse, match=r"found thoracle serve on .+ at work since 20"):
        SoleGateway(other, database.named(other), lost.append)
    held.close()
    SoleGateway(other, database.named(other), lost.append).close()
    assert lost == []
    for one in (first, second, other):
        one.dispose()


def test_a_gateway_that_lost_its_lock_is_told_and_gets_no_new_connection(running: Server) -> None:
    told = threading.Event()
    engine = database.open_database(running.create())
    held = SoleGateway(engine, database.named(engine), lambda _: told.set())
    engine.dispose()
    with engine.connect():  # while it has the lock, it gets them
        pass
    running.end("application_name LIKE 'thoracle serve on%'")
    assert told.wait(5)
    engine.dispose()
    with pytest.raises(OperationalError, match="the lock of this gateway is not on the server"):
        engine.connect()
    held.close()
    engine.connect().close()
    engine.dispose()


def test_the_commands_say_it_when_the_gateway_has_not_made_the_tables(
    running: Server, tmp_path: Path
) -> None:
    with pytest.raises(ThoracleError, match="found schema none, required: 00"):
        database.existing(configured(tmp_path, running.create()))


def test_the_driver_is_not_imported_for_sqlite(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from thoracle.store import database\n"
        "database.open_database(database.sqlite_url(Path(sys.argv[1]))).dispose()\n"
        "sys.exit('psycopg' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == 0
