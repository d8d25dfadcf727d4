"""Alarms are listed, acknowledged and silenced; a silenced one is sent to nobody meanwhile."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, text, update
from typer.testing import CliRunner

from postgres import postgres
from test_migrations import at_revision
from thoracle import settings
from thoracle.accounts.accounts import Actor
from thoracle.cli import app
from thoracle.monitoring import conditions, occurrences
from thoracle.monitoring.alarms import outbox_of, record
from thoracle.monitoring.comparison import Comparison, Level
from thoracle.monitoring.occurrences import AlarmError
from thoracle.store.database import open_database, sqlite_url
from thoracle.store.tables import alarm_silence, audit_event, outbox, timestamp

BY = Actor("boss", "192.0.2.7")
SUBJECT = "analysis failed"
STUDY = "1.2.840.99"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    on_server = request.param == "postgresql"
    url = request.getfixturevalue("server") if on_server else sqlite_url(tmp_path)
    found = open_database(url)
    yield found
    found.dispose()


@pytest.fixture
def told() -> settings.Settings:
    """Settings with a webhook."""
    chat = {"name": "chat", "url": "http://127.0.0.1:9/", "secret": "file:chat.secret"}
    return settings.parse({"webhook": [chat]})


def failed(sentence: str = f"Analysis failed: 1 study, {STUDY}.") -> Comparison:
    found = conditions.alarm(SUBJECT, "Failed analysis", sentence, "What to do: mend it.")
    return Comparison(**{**_fields(found), "outside": "Analysis failed: 1 study."})


def _fields(one: Comparison) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Comparison.__slots__}


def messages(database: Engine) -> list[tuple[str, str]]:
    """Return level and sentence of the alarms that were put into the outbox."""
    with database.connect() as connection:
        found = connection.execute(select(outbox.c.content).order_by(outbox.c.id)).scalars()
        return [(one["level"], one["sentence"]) for one in found]


def verbs(database: Engine) -> list[str]:
    with database.connect() as connection:
        order = select(audit_event.c.event).order_by(audit_event.c.id)
        return list(connection.execute(order).scalars())


def hour() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


def test_the_life_of_an_alarm(database: Engine, told: settings.Settings) -> None:
    notify = outbox_of(told)
    record(database, [failed()], None, notify)
    with database.begin() as connection:
        (row,) = occurrences.standing(connection)
        occurrences.acknowledge(connection, BY, row.id, " the disk is away ")
        occurrences.silence(connection, BY, SUBJECT, hour(), "being mended")
    record(database, [failed("Analysis failed: 2 studies.")], None, notify)
    record(database, [], None, notify)  # ends and comes again, silently
    record(database, [failed()], None, notify)
    with database.connect() as connection:
        (open_one,) = occurrences.standing(connection)
        (first,) = occurrences.ended(connection, 9)
    assert (first.sentence, first.comment) == ("Analysis failed: 2 studies.", "the disk is away")
    assert (first.acknowledged_by, open_one.acknowledged_by) == ("boss", None)
    assert (open_one.silenced_by, open_one.silence_comment) == ("boss", "being mended")
    raised = ("alarm", "Analysis failed: 1 study. What to do: mend it.")
    assert messages(database) == [raised]
    with database.begin() as connection:
        occurrences.unsilence(connection, BY, SUBJECT)
    record(database, [failed()], None, notify)
    # What still stands is told again; so is the end of what was told before the silence.
    assert sorted(messages(database)) == sorted(
        [raised, raised, ("ended", "Analysis failed: 1 study.")]
    )
    record(database, [], None, notify)
    assert messages(database)[-1] == ("ended", "Analysis failed: 1 study.")
    record(database, [], None, notify)
    assert len(messages(database)) == 4
    assert verbs(database) == [
        *("alarm raised", "alarm acknowledged", "alarm silenced", "alarm ended", "alarm raised"),
        *("alarm silence ended", "alarm ended"),
    ]
    with database.connect() as connection:
        mine = audit_event.c.event == "alarm silenced"
        event = connection.execute(select(audit_event).where(mine)).one()
    assert (event.user_id, event.network_address) == ("boss", "192.0.2.7")
    assert event.detail["comment"] == "being mended"


@pytest.fixture
def local(tmp_path: Path) -> Engine:
    return open_database(sqlite_url(tmp_path))


def test_a_silence_that_has_run_out_is_over_by_itself(
    local: Engine, told: settings.Settings
) -> None:
    record(local, [failed()], None, outbox_of(told))
    with local.begin() as connection:
        occurrences.silence(connection, BY, SUBJECT, hour(), "")
        past = timestamp(datetime.now(UTC) - timedelta(seconds=1))
        connection.execute(update(alarm_silence).values(until=past))
        assert not occurrences.is_silenced(connection, SUBJECT)
    record(local, [failed()], None, outbox_of(told))
    assert [level for level, _ in messages(local)] == ["alarm", "alarm"]
    with local.connect() as connection:
        assert connection.execute(select(alarm_silence)).all() == []


def test_a_figure_that_hovers_stays_one_occurrence(local: Engine) -> None:
    levels = (Level.ALARM, Level.LOOK, Level.TOO_FEW, Level.ALARM, Level.CALM)
    for level in levels:
        record(local, [], [Comparison("scores", "Scores", level, f"They are {level}.", "Look.")])
    with local.connect() as connection:
        assert occurrences.standing(connection) == []
        (row,) = occurrences.ended(connection, 9)
    assert (row.sentence, row.advice) == ("They are alarm.", "Look.")


@pytest.mark.parametrize(
    ("hours", "text", "said"),
    [
        (None, "", "none or both"),
        (1.0, "2026-11-30T10:00", "none or both"),
        (0.0, "", "found 0 hours, required: 0 to 720"),
        (721.0, "", "found 721 hours"),
        (float("nan"), "", "found nan hours"),
        (None, "tomorrow", "found 'tomorrow', required: a time of UTC"),
    ],
)
def test_a_silence_ends_at_a_time(hours: float | None, text: str, said: str) -> None:
    with pytest.raises(AlarmError, match=said):
        occurrences.until_of(hours, text)


def test_what_cannot_be_acknowledged_or_silenced_is_named(local: Engine) -> None:
    record(local, [failed()], None)
    with local.begin() as connection:
        number = occurrences.standing(connection)[0].id
        with pytest.raises(AlarmError, match="required: a time between now"):
            occurrences.silence(connection, BY, SUBJECT, datetime(2999, 1, 1, tzinfo=UTC), "")
        with pytest.raises(AlarmError, match="required: a time between now"):
            occurrences.silence(connection, BY, SUBJECT, datetime(2020, 1, 1, tzinfo=UTC), "")
        with pytest.raises(AlarmError, match="found no alarm 'everything'"):
            occurrences.silence(connection, BY, "everything", hour(), "")
        with pytest.raises(AlarmError, match="found a comment of 501 characters"):
            occurrences.acknowledge(connection, BY, number, "x" * 501)
        with pytest.raises(AlarmError, match="found no silence"):
            occurrences.unsilence(connection, BY, SUBJECT)
        occurrences.acknowledge(connection, BY, number, "")
        with pytest.raises(AlarmError, match="found an acknowledgement by boss"):
            occurrences.acknowledge(connection, BY, number, "")


def test_an_alarm_that_stood_before_the_upgrade_stands_and_ends(
    tmp_path: Path, told: settings.Settings
) -> None:
    moment = "2026-11-22T18:45:29.123456Z"
    engine = at_revision(tmp_path, "0016")
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO alarm VALUES (:s, 'alarm', :t, NULL, :m, :m)"),
            {"s": SUBJECT, "t": f"Analysis failed: {STUDY}.", "m": moment},
        )
        connection.execute(
            text("INSERT INTO alarm VALUES ('scores', 'look', 'x', NULL, :m, :m)"), {"m": moment}
        )
    engine.dispose()
    engine = open_database(sqlite_url(tmp_path))
    with engine.connect() as connection:
        (row,) = occurrences.standing(connection)
    assert (row.subject, row.since) == (SUBJECT, moment)
    record(engine, [], None, outbox_of(told))
    assert messages(engine) == [("ended", "Alarm: analysis failed.")]  # names no study


def test_the_command_line_does_the_same(local: Engine, tmp_path: Path) -> None:
    config = tmp_path / "thoracle.toml"
    config.write_text(f'data_folder = "{tmp_path}"\n')
    runner = CliRunner()

    def run(*arguments: str) -> str:
        done = runner.invoke(app, [*arguments, "--config", str(config)])
        if done.exception and not isinstance(done.exception, SystemExit):
            return str(done.exception)
        return done.output

    assert run("alarms", "list") == "no alarms\n"
    record(local, [failed()], None)
    assert "required: an alarm that stands: 'analysis failed'" in run(
        "alarms", "acknowledge", "analysis"
    )
    assert (
        run("alarms", "acknowledge", SUBJECT, "--comment", "seen") == f"{SUBJECT}: acknowledged\n"
    )
    assert "silenced until 20" in run("alarms", "silence", SUBJECT, "--hours", "2")
    listed = run("alarms", "list")
    assert listed.startswith(f"alarm {SUBJECT}: since 20")
    assert "What to do: mend it.\n    acknowledged by " in listed
    assert "seen\n    silenced by " in listed
    (one,) = map(json.loads, run("alarms", "list", "--json").splitlines())
    assert (one["level"], one["subject"], one["comment"]) == ("alarm", SUBJECT, "seen")
    status = run("status")
    assert "What to do: mend it. (since 20" in status
    assert f", silenced by {one['silenced_by']} until {one['silenced_until']})" in status
    assert run("alarms", "unsilence", SUBJECT) == f"{SUBJECT}: no longer silenced\n"
    assert "silenced" not in run("status")
