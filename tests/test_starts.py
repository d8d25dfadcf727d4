"""A start records which settings are not those of the start before: names, never values."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from gateway import Gateway
from thoracle import __version__
from thoracle.audit import query, starts
from thoracle.classify import bundle
from thoracle.settings import Classify, Settings, digests, parse
from thoracle.store import database

PACS = {"name": "pacs", "ae_title": "PACS", "host": "192.0.2.1", "port": 104}
WEB = {"name": "web", "url": "https://192.0.2.2/dicom", "token": "file:/run/secrets/hush"}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    engine = database.open_database(database.sqlite_url(tmp_path))
    with engine.begin() as open_connection:
        yield open_connection


def changes(connection: Connection) -> list[dict[str, Any]]:
    question = query.Question(event="configuration changed")
    return [event["detail"] for event in query.events(connection, question)]


def test_a_change_names_the_settings_and_no_value(connection: Connection) -> None:
    before = parse({"destination": [PACS]})
    after = parse(
        {
            "destination": [{**PACS, "port": 11112}, WEB],
            "report": {"institution_name": "Confidential Clinic"},
        }
    )
    for settings in (before, before, after):
        starts.record(connection, settings, {"bundle_digest": "d" * 64})
    first, second = changes(connection)
    assert (first["first"], first["changed"]) == (True, [])
    assert second["first"] is False
    assert {"destination.pacs.port", "report.institution_name", "destination.web.token"} <= set(
        second["changed"]
    )
    assert "receive.port" not in second["changed"]
    text = json.dumps(changes(connection))
    for value in ("Confidential", "hush", "192.0.2", "11112"):
        assert value not in text


def test_a_start_says_version_and_digest_of_the_settings(connection: Connection) -> None:
    starts.record(connection, Settings(), {"detail": {"files_cleared": 0}})
    (event,) = query.events(connection, query.Question(event="application started"))
    assert event["detail"] == {
        "files_cleared": 0,
        "version": __version__,
        "settings_digest": digests.whole(Settings()),
    }


def test_a_bundle_that_was_changed_ends_the_start_and_stands_in_the_audit(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle.bundle_folder(Classify()), folder)
    required = bundle.digest(folder)
    (folder / "configs" / "inference.json").write_text("{}")
    classify = {"bundle": str(folder), "digest": required}
    gateway = Gateway(tmp_path, classify=classify)
    with pytest.raises(RuntimeError, match="found digest"):
        gateway.start()
    (event,) = gateway.events("bundle refused")
    assert (event["event_outcome"], event["bundle_digest"]) == (8, required)
    assert bundle.digest(folder) in event["detail"]["reason"]
    assert gateway.events("application started") == []


def test_only_settings_that_shape_a_result_are_in_their_digest() -> None:
    plain = Settings()
    assert digests.shaping(parse({"receive": {"port": 7}})) == digests.shaping(plain)
    assert digests.whole(parse({"receive": {"port": 7}})) != digests.whole(plain)
    for values in ({"report": {"series_number": 7}}, {"decode": {"timeout_seconds": 7}}):
        assert digests.shaping(parse(values)) != digests.shaping(plain)


def test_tables_of_a_list_are_told_apart_by_their_names_not_their_places() -> None:
    other = {**PACS, "name": "vna", "ae_title": "VNA"}
    one = digests.named(parse({"destination": [PACS, other]}))
    two = digests.named(parse({"destination": [other, PACS]}))
    assert digests.changed(one, two) == []
    assert "destination.vna.host" in digests.changed(one, digests.named(Settings()))
