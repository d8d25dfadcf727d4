"""Anchors of the audit are signed: whoever has the public key needs to trust no file here."""

import base64
import json
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from gateway import Gateway
from test_chain import fill, run
from thoracle.audit.verification import verify
from thoracle.errors import ThoracleError
from thoracle.store import anchors, chain, database, signing
from thoracle.store.anchors import ANCHORS_FILE, Anchor


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """A trail with two signed anchors, at rows 4 and 7; the first row names the key."""
    opened = database.open_database(database.sqlite_url(tmp_path))
    signer = signing.existing_or_new(tmp_path)
    with opened.begin() as connection:
        signing.announce(connection, signer)
        signing.announce(connection, signer)  # it is there already
    for _ in range(2):
        fill(opened, 3)
        anchors.drop_anchor(opened, tmp_path / ANCHORS_FILE, signer)
    return opened


def rewritten(folder: Path, number: int, **values: object) -> None:
    """Change an anchor; ``None`` takes a value out."""
    path = folder / ANCHORS_FILE
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[number] |= values
    lines[number] = {name: value for name, value in lines[number].items() if value is not None}
    path.write_text("".join(f"{json.dumps(one)}\n" for one in lines))


def test_the_key_is_for_its_owner_alone_and_is_made_once(tmp_path: Path) -> None:
    assert signing.existing(tmp_path) is None
    made = signing.existing_or_new(tmp_path)
    path = tmp_path / signing.KEY_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert signing.existing_or_new(tmp_path).public_key == made.public_key
    path.chmod(0o640)
    with pytest.raises(ThoracleError, match="found mode 0640, required: 0600"):
        signing.existing(tmp_path)


def test_a_verification_says_which_signatures_are_valid(tmp_path: Path, engine: Engine) -> None:
    code, said = run(tmp_path, "verify")
    signer = signing.existing(tmp_path)
    assert signer is not None
    key = signing.fingerprint(signer.public_key)
    assert code == 0
    assert f"signatures of 2 anchors are valid (key {key})" in said


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"recorded_at": "2020-01-01T00:00:00.000000Z"}, "signature of its anchor is not valid"),
        ({"signature": base64.b64encode(b"x" * 64).decode()}, "is not valid"),
        ({"signature": "no base64"}, "is not valid"),
        ({"key": "0123456789abcdef"}, "the key 0123456789abcdef, which is not known"),
        ({"key": None, "signature": None}, "its anchor is not signed; from row 1 on all are"),
    ],
)
def test_an_anchor_that_is_not_as_it_was_signed_is_named(
    tmp_path: Path, engine: Engine, values: dict[str, object], fault: str
) -> None:
    rewritten(tmp_path, 1, **values)
    with engine.connect() as connection:
        found = verify(connection, anchors.read_anchors(tmp_path / ANCHORS_FILE))
    assert found.broken_id == 7
    assert fault in found.fault


def test_another_key_in_the_log_does_not_help_against_the_public_key(
    tmp_path: Path, engine: Engine
) -> None:
    code, pem = run(tmp_path, "key")
    assert code == 0
    (tmp_path / "kept.pem").write_text(pem)
    assert run(tmp_path, "verify", "--public-key", str(tmp_path / "kept.pem"))[0] == 0
    (tmp_path / signing.KEY_FILE).unlink()  # an attacker begins with a key of their own
    other = signing.existing_or_new(tmp_path)
    with engine.begin() as connection:
        signing.announce(connection, other)
    anchors.drop_anchor(engine, tmp_path / ANCHORS_FILE, other)
    assert run(tmp_path, "verify")[0] == 0
    code, said = run(tmp_path, "verify", "--public-key", str(tmp_path / "kept.pem"))
    assert (code, "which is not known" in said) == (1, True)


def test_anchors_without_any_signature_do_not_pass_with_the_public_key(
    tmp_path: Path, engine: Engine
) -> None:
    (tmp_path / "kept.pem").write_text(run(tmp_path, "key")[1])
    with engine.begin() as connection:  # written anew, without the row that names the key
        connection.execute(text("DROP TRIGGER audit_event_no_update"))
        connection.execute(text("UPDATE audit_event SET detail = '{}' WHERE id = 1"))
        digest = chain.FIRST
        for row in list(chain.rows_after(connection, 0)):
            digest = chain.digest_of(digest, row[:-1])
            values = {"id": row[0], "digest": digest}
            connection.execute(
                text("UPDATE audit_event SET digest = :digest WHERE id = :id"), values
            )
        connection.execute(text("UPDATE audit_head SET digest = :digest"), {"digest": digest})
    for left in (0, 1):
        (tmp_path / ANCHORS_FILE).unlink()
        if left:
            anchors.drop_anchor(engine, tmp_path / ANCHORS_FILE)
        else:
            (tmp_path / ANCHORS_FILE).touch()
        assert run(tmp_path, "verify")[0] == 0
        code, said = run(tmp_path, "verify", "--public-key", str(tmp_path / "kept.pem"))
        assert code == 1
        assert said.startswith("BROKEN at row 7: found no anchor signed with the key ")
        assert f"among {left}, required: at least one" in said


def test_openssl_confirms_a_signature(tmp_path: Path, engine: Engine) -> None:
    anchor: Anchor = anchors.read_anchors(tmp_path / ANCHORS_FILE)[-1]
    (tmp_path / "content").write_bytes(anchor.content)
    (tmp_path / "signature").write_bytes(base64.b64decode(anchor.signature))
    (tmp_path / "key.pem").write_text(run(tmp_path, "key")[1])
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem", "-rawin"]
    command += ["-in", "content", "-sigfile", "signature"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Signature Verified Successfully" in said.stdout


def test_an_export_has_the_public_key(tmp_path: Path, engine: Engine) -> None:
    run(tmp_path, "export", "--csv", str(tmp_path / "out"))
    written = (tmp_path / "out" / signing.PUBLIC_KEY_FILE).read_text()
    assert written == run(tmp_path, "key")[1]


def test_a_gateway_signs_from_its_first_start_on(tmp_path: Path) -> None:
    with Gateway(tmp_path) as gateway:
        assert gateway.terminate() == 0
        (event,) = gateway.events("audit key created")
    kept = anchors.read_anchors(gateway.data_folder / ANCHORS_FILE)
    assert {one.key for one in kept} == {event["detail"]["key"]}
    said = gateway.run("audit", "verify")
    assert f"signatures of {len(kept)} anchors are valid" in said
