"""A second host witnesses the anchors of the audit, and the log is held against what it has."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import Engine, select, update

from certificates import Authority
from documents import DOCS
from gateway import Gateway
from ledger import eventually, rows
from pacs import free_port
from sender import send as send_image
from sender import small
from test_chain import fill, run
from test_webhook import receiving
from thoracle.cli import machine
from thoracle.errors import ArchiveUnavailable
from thoracle.notify import witness
from thoracle.outbox.senders import OutboxItem
from thoracle.settings import Settings, Witness, parse
from thoracle.store import anchors, database, signing
from thoracle.store.anchors import ANCHORS_FILE, Anchor
from thoracle.store.tables import outbox

NAME, PATIENT = "Kowalski^Jan", "P-4711"
TOKEN = "correct-horse-battery"


def peer(port: int, **values: Any) -> Witness:
    return Witness.model_validate({"url": f"http://127.0.0.1:{port}/", **values})


# ---- sending -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 204, 400, 401, 404, 410, 500, 503])
def test_all_but_success_is_tried_again(status: int) -> None:
    with receiving() as receiver:
        receiver.status = status
        item = OutboxItem(1, "1-a", content={"id": 1})
        (answer,) = witness.SENDER.send(peer(receiver.port), [item])
    assert answer.state == ("delivered" if status < 300 else "waiting")
    assert status < 300 or f"answered {status}, required: 200 to 299" in str(answer.detail)
    assert receiver.documents == [{"id": 1}]


def test_no_redirection_is_followed_and_reach_posts_nothing() -> None:
    with receiving() as receiver:
        assert "nothing was posted" in witness.reach(peer(receiver.port), Settings(), 5)
        assert receiver.came == []
        receiver.status = 302
        with pytest.raises(ArchiveUnavailable, match="redirects"):
            list(witness.SENDER.send(peer(receiver.port), [OutboxItem(1, "1-a", content={})]))


def test_a_check_asks_the_witness() -> None:
    with receiving() as receiver:
        url = f"http://127.0.0.1:{receiver.port}/"
        (found,) = machine._receivers(parse({"audit": {"witness": {"url": url}}}))
    assert (found.subject, found.well) == ("audit witness", True)
    assert found.text == "answers OPTIONS with 200; nothing was posted"


@pytest.mark.parametrize(
    "values",
    [
        {"url": "http://192.0.2.1/"},
        {"url": "http://127.0.0.1/", "token": "env:TOKEN"},
        {"url": "http://127.0.0.1/", "tls": {}},
    ],
)
def test_another_machine_and_a_token_need_https(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="required: an https url"):
        Witness.model_validate(values)


# ---- what waits ----------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> Engine:
    """A log whose first row names the key of its anchors."""
    opened = database.open_database(database.sqlite_url(tmp_path))
    with opened.begin() as connection:
        signing.announce(connection, signing.existing_or_new(tmp_path))
    return opened


def grown(log: Engine, folder: Path) -> Anchor:
    """Add three rows, and an anchor."""
    fill(log, 3)
    path = folder / ANCHORS_FILE
    dropped = anchors.drop_anchor(log, path, signing.existing_or_new(folder))
    assert dropped is not None
    return dropped


def test_an_outage_leaves_one_row_and_the_newest_anchor_follows(
    tmp_path: Path, log: Engine
) -> None:
    table = {"witness": {"url": "http://127.0.0.1:1/"}}
    settings = parse({"data_folder": str(tmp_path), "audit": table})
    with log.connect() as connection:
        assert witness.state(connection, Settings()) is None
    dropped = []
    for _ in range(3):
        dropped.append(grown(log, tmp_path))
        witness.offer(log, settings)
    first, last = dropped[0], dropped[-1]
    with log.begin() as connection:
        found = witness.state(connection, settings)
        assert found is not None
        assert (found.waiting, found.last_id) == ((first.id,), None)
    for taken in (first, last):
        with log.begin() as connection:
            connection.execute(update(outbox).values(state="delivered"))
        witness.offer(log, settings)
        with log.connect() as connection:
            found = witness.state(connection, settings)
            kept = connection.execute(select(outbox.c.content)).scalars().all()
        assert found is not None
        assert found.last_id == taken.id
    assert kept == [last.as_json()], "of what was taken the last one stays"


# ---- held against the log ------------------------------------------------------------------------


def test_what_the_witness_has_and_the_log_has_not_is_named_with_both_values(
    tmp_path: Path, log: Engine
) -> None:
    kept = [grown(log, tmp_path) for _ in range(2)]
    signer = signing.existing_or_new(tmp_path)
    path = tmp_path / "kept.jsonl"

    def said(*held: Anchor) -> tuple[int, str]:
        path.write_text("".join(f"{json.dumps(one.as_json())}\n" for one in held))
        return run(tmp_path, "verify", "--witnessed", str(path))

    code, text = said(*kept, *kept)
    assert (code, "4 anchors of the witness are as in the log" in text) == (0, True)
    other = replace(kept[0], digest="ab" * 32).signed(signer)
    code, text = said(other, kept[1])
    assert code == 1
    assert f"DIFFERS: row {other.id}: the witness has digest {other.digest}" in text
    assert f"the log has digest {kept[0].digest}" in text
    beyond = replace(kept[1], id=900).signed(signer)
    code, text = said(*kept, beyond)
    assert code == 1
    assert f"DIFFERS: row 900: the witness has digest {beyond.digest}" in text
    assert "the log has no such row; its last is 7" in text


# ---- the documented receiver ---------------------------------------------------------------------


def test_the_documented_receiver_keeps_what_the_gateway_sends_again_until_it_is_there(
    tmp_path: Path,
) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", (DOCS / "audit-witness.md").read_text(), re.S)
    (tmp_path / "witness.py").write_text(script)
    (tmp_path / "witness.token").write_text(f"{TOKEN}\n")
    authority = Authority(tmp_path)
    server, port, kept = authority.issue("server"), free_port(), tmp_path / "kept.jsonl"
    settings = {
        "witness.url": f"https://127.0.0.1:{port}/",
        "witness.token": f"file:{tmp_path / 'witness.token'}",
        "witness.tls.ca_file": str(authority.ca_file),
    }
    with Gateway(tmp_path, audit=settings) as gateway:
        image = small(PatientName=NAME, PatientID=PATIENT)
        assert send_image(gateway.port, image).status == 0x0000
        tried = "SELECT detail FROM outbox WHERE kind = 'witness' AND attempts > 1"
        eventually(lambda: rows(gateway, tried))
        assert "not reached" in rows(gateway, tried)[0]["detail"]
        command = [sys.executable, "witness.py", str(server.certificate_file)]
        command += [str(server.key_file), "witness.token", str(kept), str(port)]
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as receiver:
            try:
                taken = "SELECT 1 FROM outbox WHERE kind = 'witness' AND state = 'delivered'"
                eventually(lambda: rows(gateway, taken))
            finally:
                receiver.terminate()
        assert gateway.terminate() == 0
        failures = rows(gateway, "SELECT event FROM audit_event WHERE destination = 'witness'")
    assert {one["event"] for one in failures} == {"notification postponed"}
    (held,) = anchors.read_anchors(kept)
    assert held in anchors.read_anchors(gateway.data_folder / ANCHORS_FILE)
    assert not any(one in kept.read_text() for one in (NAME, PATIENT, str(image.StudyInstanceUID)))
    assert "1 anchor of the witness is as in" in gateway.run(
        "audit", "verify", "--witnessed", str(kept)
    )
