"""Accounts: passwords, locks, the last administrator, and `thoracle person`."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

import processes
from browsing import add_person
from thoracle.accounts import accounts as audited
from thoracle.accounts import factor_rows
from thoracle.accounts import rows as people
from thoracle.accounts.accounts import Actor, PersonError
from thoracle.errors import ThoracleError
from thoracle.store.database import connect, open_database, sqlite_url
from thoracle.store.tables import now
from thoracle.web.session import credentials
from thoracle.web.session.access import Role
from thoracle.web.session.credentials import PasswordError

BY = Actor("tester")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "data").mkdir()
    made = open_database(sqlite_url(tmp_path / "data"))
    yield made
    made.dispose()


@pytest.mark.parametrize(
    "password",
    [
        *("elevenchars", "", "x" * 257, "aaaaaaaaaaaaaaaaa", "drwho1234567"),
        *("password1234", "P@ssw0rd1234", "1q2w3e4r5t6y", "letmeinletmein", "hospital1234"),
    ],
    ids=[
        *("short", "empty", "long", "one letter", "the name"),
        *("common", "with signs", "keys", "twice", "a word and a row"),
    ],
)
def test_a_poor_password_is_refused(password: str) -> None:
    with pytest.raises(PasswordError):
        credentials.require_password(password, "drwho123")


@pytest.mark.parametrize(
    "password", ["twelve chars", "x1y2z" * 51, "пароль из слов", " " * 8 + "gr7!pq"]
)
def test_any_long_password_will_do(password: str) -> None:
    credentials.require_password(password, "drwho")


def test_a_password_is_kept_as_argon2id_and_never_the_same_twice() -> None:
    kept = credentials.hashed_password("correct horse battery staple")
    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert kept != credentials.hashed_password("correct horse battery staple")
    assert credentials.password_matches("correct horse battery staple", kept)
    assert not credentials.password_matches("correct horse battery stapl", kept)


def test_a_password_longer_than_allowed_is_not_cut_and_compared() -> None:
    kept = credentials.hashed_password("")
    assert credentials.password_matches("", kept)
    assert not credentials.password_matches("x" * 257, kept)


def test_comparing_takes_as_long_when_there_is_nothing_to_compare() -> None:
    """The quickest of five: a log-in must not tell whether there is such a person."""
    kept = credentials.hashed_password("correct horse battery staple")
    credentials.password_matches("warm up", None)

    def quickest(against: str | None) -> float:
        times = []
        for _ in range(5):
            began = time.process_time()  # of all threads, whatever else the machine does
            credentials.password_matches("wrong horse battery staple", against)
            times.append(time.process_time() - began)
        return min(times)

    assert 0.5 < quickest(None) / quickest(kept) < 2


@pytest.mark.parametrize("name", ["", "-a", "a b", "a" * 65, "é", "<b>", "a\n", "a/b", "A"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ThoracleError, match=r"found .* in a log-in name"):
        credentials.require_name(name)


@pytest.mark.parametrize("shown", ["", "   ", "x" * 129, "a\x1b[31mb", "a\u202eb"])
def test_a_name_to_show_is_printable(shown: str) -> None:
    with pytest.raises(PersonError, match="found a name to show"):
        credentials.person_columns(shown, [Role.READER])


def test_attempts_at_the_same_moment_are_all_counted(engine: Engine) -> None:
    with engine.begin() as connection:
        add_person(connection, "reader", ["reader"])
    admitted: list[bool] = []
    start = threading.Barrier(12)

    def attempt() -> None:
        start.wait()
        with engine.begin() as connection:
            counted = audited.attempt(connection, "reader", failures=5, minutes=1)
        admitted.append(counted is not None)

    threads = [threading.Thread(target=attempt) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(admitted) == [False] * 7 + [True] * 5


def test_two_administrators_cannot_disable_each_other_at_the_same_moment(engine: Engine) -> None:
    with engine.begin() as connection:
        add_person(connection, "one", ["administrator"])
        add_person(connection, "two", ["administrator"])
    refused: list[str] = []
    start = threading.Barrier(2)

    def disable(name: str) -> None:
        start.wait()
        try:
            with engine.begin() as connection:
                audited.change(connection, BY, name, {"disabled": 1}, {})
        except PersonError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=disable, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1
    assert "is the last administrator" in refused[0]


@pytest.mark.parametrize("values", [{"disabled": 1}, {"roles": ["reader", "auditor"]}])
def test_the_last_administrator_stays(engine: Engine, values: dict[str, Any]) -> None:
    with engine.begin() as connection:
        add_person(connection, "boss", ["administrator"])
        add_person(connection, "gone", ["administrator"], disabled=1)
    with (
        pytest.raises(PersonError, match="is the last administrator"),
        engine.begin() as connection,
    ):
        audited.change(connection, BY, "boss", values, {})
    with engine.connect() as connection:
        assert people.active_administrators(connection) == {"boss"}


def test_a_change_that_is_refused_leaves_no_event(engine: Engine) -> None:
    with pytest.raises(PersonError, match="found no person 'nobody'"), engine.begin() as connection:
        audited.end_sessions(connection, BY, "nobody")


class Commands:
    """`thoracle person` on a data folder."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "thoracle.toml"
        self.config.write_text('data_folder = "data"\n')

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return processes.run("person", *arguments, "--config", str(self.config))


def test_persons_are_managed_from_the_command_line(engine: Engine, tmp_path: Path) -> None:
    person = Commands(tmp_path)
    added = person("add", "Boss", "--role", "administrator", "--shown", "The Boss")
    assert added.returncode == 0, added.stderr
    password = added.stdout.rsplit(" ", 1)[1].strip()
    with engine.connect() as connection:
        row = people.row_of(connection, "boss")
    assert row is not None
    assert credentials.password_matches(password, row.password_hash)
    assert row.one_time_until > now()
    assert json.loads(person("list", "--json").stdout) == {
        "name": "boss",
        "display_name": "The Boss",
        "roles": ["administrator"],
        "state": "one-time password",
        "by": "password",
        "second_factor": False,
        "sessions": 0,
    }
    last = person("disable", "boss")
    assert last.returncode == 1
    assert "boss is the last administrator" in last.stderr
    person("add", "second", "--role", "administrator", "--role", "auditor")
    assert person("disable", "boss").returncode == 0
    assert "boss (The Boss): administrator; disabled" in person("list").stdout
    assert person("enable", "boss").returncode == 0
    assert person("roles", "second", "--role", "reader").returncode == 0
    assert "second (second): reader; one-time" in person("list").stdout
    assert password not in person("password", "boss").stdout
    with engine.begin() as connection:
        factor_rows.begin(connection, "boss", "A" * 32)
        factor_rows.confirm(connection, "boss")
    assert "one-time password; second factor" in person("list").stdout
    assert person("reset-second-factor", "Boss").returncode == 0
    with engine.connect() as connection:
        assert not factor_rows.is_set(connection, "boss")
    none = person("reset-second-factor", "boss")
    assert none.returncode == 1
    assert "found no second factor of 'boss', required: one" in none.stderr
    assert "found 'king', required: one of" in person("add", "x", "--role", "king").stderr
    assert "required: a name that nobody has" in person("add", "boss", "--role", "reader").stderr


def test_enabling_an_account_unlocks_it(engine: Engine, tmp_path: Path) -> None:
    Commands(tmp_path)("add", "boss", "--role", "administrator")
    with engine.begin() as connection:
        people.set_attempts(connection, "boss", 0, "2999-01-01T00:00:00.000000Z")
    assert Commands(tmp_path)("enable", "boss").returncode == 0
    with engine.connect() as connection:
        row = people.row_of(connection, "boss")
    assert row is not None
    assert row.locked_until is None


def test_without_a_gateway_the_commands_say_so(tmp_path: Path) -> None:
    person = Commands(tmp_path)
    assert "found no database, required: one" in person("list").stderr


def test_an_older_database_is_named_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    engine = connect(sqlite_url(tmp_path / "data"))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE thoracle_schema (version_num VARCHAR(32))")
        connection.exec_driver_sql("INSERT INTO thoracle_schema VALUES ('0003')")
    engine.dispose()
    said = Commands(tmp_path)("list").stderr
    assert "found schema 0003, required: 00" in said
    assert "start `thoracle serve` of this version first" in said
