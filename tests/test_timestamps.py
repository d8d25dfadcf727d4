"""Time stamps of the audit (RFC 3161), by `openssl ts`: asked for, refused, kept and verified."""

import hashlib
import json
import re
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rfc3161_client import HashAlgorithm, TimestampRequestBuilder
from sqlalchemy import Engine
from typer.testing import CliRunner

from stamping import StampingAuthority, stamping
from test_chain import fill
from thoracle.audit import query, timestamps
from thoracle.cli import app
from thoracle.errors import ThoracleError
from thoracle.store import anchors, database, signing, trail
from thoracle.store.anchors import ANCHORS_FILE, Anchor
from thoracle.store.tables import timestamp

ANCHOR = Anchor(7, "ab" * 32, "2026-11-01T00:00:00.000000Z")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> StampingAuthority:
    return StampingAuthority(tmp_path_factory.mktemp("tsa") / "own")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> StampingAuthority:
    return StampingAuthority(tmp_path_factory.mktemp("tsa") / "other", "other", "sha512")


def query_of(
    content: bytes = ANCHOR.content, algorithm: HashAlgorithm = HashAlgorithm.SHA256
) -> bytes:
    builder = TimestampRequestBuilder(data=content, hash_algorithm=algorithm)
    return builder.build().as_bytes()


def refused(authority: StampingAuthority, answer: bytes, status: int = 200) -> str:
    """Return the one line in which an answer is refused."""
    roots = timestamps.authorities(authority.ca_file)
    with stamping(lambda _: answer, status) as asked, pytest.raises(ThoracleError) as raised:
        timestamps.ask(asked.url, ANCHOR, roots)
    said = str(raised.value)
    assert said.startswith("http://127.0.0.1:")
    assert "\n" not in said
    return said.partition(": ")[2]


# ---- bad answers ---------------------------------------------------------------------------------


def test_an_answer_to_something_else_is_refused(authority: StampingAuthority) -> None:
    said = refused(authority, authority.answer(query_of(b"another")))
    assert re.fullmatch(r"found message imprint [0-9a-f]{64}, required: [0-9a-f]{64}", said)


def test_an_old_answer_to_the_same_anchor_is_refused(authority: StampingAuthority) -> None:
    said = refused(authority, authority.answer(query_of()))
    assert re.fullmatch(r"found nonce \d+, required: \d+", said)


def test_another_digest_is_refused(
    authority: StampingAuthority, foreign: StampingAuthority
) -> None:
    said = refused(authority, foreign.answer(query_of(algorithm=HashAlgorithm.SHA512)))
    assert said.startswith("found a message imprint by 2.16.840.1.101.3.4.2.3, required: SHA-256")


def test_a_rejection_is_told_with_its_reason(
    authority: StampingAuthority, foreign: StampingAuthority
) -> None:
    said = refused(authority, foreign.answer(query_of()))  # it stamps SHA-512 alone
    assert said.startswith("found status 2 (rejection: Message digest algorithm is not supported")
    assert said.endswith("required: 0 (granted)")


@pytest.mark.parametrize(
    ("answer", "status", "fault"),
    [
        (b"", 503, "found HTTP status 503, required: 200 with a time stamp"),
        (b"<html>\n", 200, "found 7 bytes that are no time-stamp response, required: RFC 3161"),
        (b"x" * (timestamps.LARGEST_ANSWER + 1), 200, "found more than 1048576 bytes"),
    ],
)
def test_what_is_no_time_stamp_is_refused(
    authority: StampingAuthority, answer: bytes, status: int, fault: str
) -> None:
    assert refused(authority, answer, status).startswith(fault)


def test_a_certificate_of_somebody_else_is_refused(
    authority: StampingAuthority, tmp_path: Path
) -> None:
    other = StampingAuthority(tmp_path / "third", "stamper")  # of the same name
    roots = timestamps.authorities(other.ca_file)
    with (
        stamping(authority.answer) as asked,
        pytest.raises(ThoracleError, match=r"its signature is not accepted: found .*, required:"),
    ):
        timestamps.ask(asked.url, ANCHOR, roots)


def test_a_time_before_the_anchor_is_refused(authority: StampingAuthority) -> None:
    late = replace(ANCHOR, recorded_at=timestamp(datetime.now(UTC) + timedelta(hours=1)))
    roots = timestamps.authorities(authority.ca_file)
    with (
        stamping(authority.answer) as asked,
        pytest.raises(ThoracleError, match=r"found the certified time .* one of the clocks"),
    ):
        timestamps.ask(asked.url, late, roots)


def test_nobody_listening_is_one_line(authority: StampingAuthority) -> None:
    with stamping(authority.answer) as asked:
        pass
    with pytest.raises(ThoracleError, match="not reached"):
        timestamps.ask(asked.url, ANCHOR, timestamps.authorities(authority.ca_file))


# ---- the command ---------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> Engine:
    """A log of seven rows with signed anchors at rows 4 and 7."""
    opened = database.open_database(database.sqlite_url(tmp_path))
    signer = signing.existing_or_new(tmp_path)
    with opened.begin() as connection:
        signing.announce(connection, signer)
    for _ in range(2):
        fill(opened, 3)
        anchors.drop_anchor(opened, tmp_path / ANCHORS_FILE, signer)
    return opened


def run(folder: Path, ca_file: Path | None, url: str, *arguments: str) -> tuple[int, str]:
    lines = [f'data_folder = "{folder}"', "[audit]", f'timestamp_url = "{url}"']
    lines += [f'timestamp_ca_file = "{ca_file}"'] if ca_file else []
    config = folder / "thoracle.toml"
    config.write_text("\n".join(lines) + "\n")
    result = CliRunner().invoke(app, ["audit", *arguments, "--config", str(config)])
    return result.exit_code, result.stdout if result.exception is None else (
        f"{result.stdout}{result.exception}"
    )


def test_the_log_says_when_it_had_which_length(
    tmp_path: Path, log: Engine, authority: StampingAuthority
) -> None:
    with stamping(authority.answer) as asked:
        code, said = run(tmp_path, authority.ca_file, asked.url, "timestamp")
        assert code == 0, said
        assert "UTC: the log had 7 rows, digest " in said
        assert "certified by CN=stamper" in said
        again = run(tmp_path, authority.ca_file, asked.url, "timestamp")
        assert (again[0], "row 7 is time-stamped already: " in again[1]) == (0, True)
    assert [kind for kind, _ in asked.queries] == ["application/timestamp-query"]
    code, said = run(tmp_path, authority.ca_file, "", "verify")
    assert code == 0, said
    assert "1 time stamp is valid:\n" in said
    assert re.search(r"  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC: 7 rows; certified by CN=stamper", said)
    code, said = run(tmp_path, None, "", "verify")
    assert (code, "1 time stamp was not verified: found no audit.timestamp_ca_file" in said) == (
        0,
        True,
    )


def test_openssl_confirms_what_is_kept(
    tmp_path: Path, log: Engine, authority: StampingAuthority
) -> None:
    with stamping(authority.answer) as asked:
        run(tmp_path, authority.ca_file, asked.url, "timestamp")
    (stamp,) = timestamps.kept(tmp_path / timestamps.STAMPS_FILE)
    (tmp_path / "content").write_bytes(stamp.anchor.content)
    (tmp_path / "stamp.tsr").write_bytes(stamp.answer)
    command = ["openssl", "ts", "-verify", "-in", "stamp.tsr", "-data", "content", "-CAfile"]
    command += [str(authority.ca_file)]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Verification: OK" in said.stdout


def test_a_log_that_was_written_anew_does_not_fit_its_time_stamp(
    tmp_path: Path, log: Engine, authority: StampingAuthority
) -> None:
    with stamping(authority.answer) as asked:
        run(tmp_path, authority.ca_file, asked.url, "timestamp")
    (tmp_path / timestamps.STAMPS_FILE).rename(tmp_path / "kept.jsonl")
    stamped = anchors.last_anchor(tmp_path / ANCHORS_FILE)
    assert stamped is not None
    log.dispose()
    for name in ("thoracle.sqlite", ANCHORS_FILE):
        (tmp_path / name).unlink()
    anew = database.open_database(database.sqlite_url(tmp_path))
    fill(anew, 9, seed=5)
    assert run(tmp_path, authority.ca_file, "", "verify")[0] == 0
    kept = ("--timestamps", str(tmp_path / "kept.jsonl"))
    code, said = run(tmp_path, authority.ca_file, "", "verify", *kept)
    assert code == 1
    assert f"DIFFERS: row 7: the time stamp has digest {stamped.digest}" in said
    assert re.search(r"UTC, the log has digest [0-9a-f]{64}", said)


def test_a_time_stamp_that_was_put_on_another_anchor_is_found(
    tmp_path: Path, log: Engine, authority: StampingAuthority
) -> None:
    with stamping(authority.answer) as asked:
        run(tmp_path, authority.ca_file, asked.url, "timestamp")
    path = tmp_path / timestamps.STAMPS_FILE
    other = anchors.read_anchors(tmp_path / ANCHORS_FILE)[0]
    path.write_text(json.dumps({**json.loads(path.read_text()), **other.as_json()}) + "\n")
    code, said = run(tmp_path, authority.ca_file, "", "verify")
    assert code == 1
    assert "DIFFERS: row 4: its time stamp: found message imprint" in said


def test_a_time_stamp_that_was_taken_away_is_missed(
    tmp_path: Path, log: Engine, authority: StampingAuthority
) -> None:
    with stamping(authority.answer) as asked:
        run(tmp_path, authority.ca_file, asked.url, "timestamp")
    path = tmp_path / timestamps.STAMPS_FILE
    (stamp,) = timestamps.kept(path)
    with log.connect() as connection:
        (event,) = query.events(connection, query.Question(event="audit time-stamped"))
        assert event["detail"]["sha256"] == hashlib.sha256(stamp.answer).hexdigest()
    path.rename(tmp_path / "kept.jsonl")
    code, said = run(tmp_path, authority.ca_file, "", "verify")
    assert code == 1
    assert (
        f"DIFFERS: row 7: found no time stamp with SHA-256 {event['detail']['sha256']}, required: "
        f"the one that row {event['id']} of "
    ) in said
    kept = ("--timestamps", str(tmp_path / "kept.jsonl"))
    assert run(tmp_path, authority.ca_file, "", "verify", *kept)[0] == 0
    answer = authority.answer(query_of(stamp.anchor.content))  # another one of the same anchor
    timestamps.keep(tmp_path, replace(stamp, answer=answer))
    code, said = run(tmp_path, authority.ca_file, "", "verify")
    assert (code, "DIFFERS: row 7: found no time stamp with SHA-256" in said) == (1, True)


def test_an_event_without_a_digest_asks_for_any_time_stamp_of_its_anchor(
    tmp_path: Path, log: Engine
) -> None:
    with log.begin() as connection:
        detail = {"anchor": 7, "digest": ANCHOR.digest}
        trail.record(connection, trail.Event.AUDIT_TIMESTAMPED, {"detail": detail})
        trail.record(connection, trail.Event.AUDIT_TIMESTAMPED, {"detail": {"anchor": ["x\u202e"]}})
    with log.connect() as connection:
        found = list(timestamps.lost(connection, [timestamps.Stamp(ANCHOR, b"")]))
    assert len(found) == 1
    assert found[0].startswith("row ['x\\u202e']: found no time stamp, required: the one that row ")


def test_what_is_missing_to_ask_is_named(
    tmp_path: Path, log: Engine, authority: StampingAuthority
) -> None:
    code, said = run(tmp_path, None, "http://127.0.0.1:1/", "timestamp")
    assert (code, "required: both" in said) == (1, True)
    (tmp_path / ANCHORS_FILE).unlink()
    code, said = run(tmp_path, authority.ca_file, "http://127.0.0.1:1/", "timestamp")
    assert (code, "found no anchor" in said) == (1, True)
