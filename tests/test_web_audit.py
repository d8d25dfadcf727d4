"""The audit as a page: asked, turned over, exported, verified; and each reading is a row of it."""

import csv
import io
import json
import random
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, insert, update

from browsing import Site
from stamping import StampingAuthority, stamping
from thoracle.audit import timestamps, verification
from thoracle.audit.query import Question
from thoracle.notify import witness
from thoracle.records import Reason
from thoracle.retention import rules
from thoracle.store import anchors, signing, trail
from thoracle.store.chain import COLUMNS
from thoracle.store.tables import analysis, outbox, study
from thoracle.store.trail import Columns, Event
from thoracle.web.pages import asked, audit

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'; DROP TABLE x; --{{191*193}}"
PERSONS = {
    "reader": ["reader"],
    "administrator": ["administrator"],
    "auditor": ["auditor"],
    "chief": ["reader", "auditor"],
}
STUDY = "1.2.840.99.7"
BUNDLE = "Thoracle 0.2.0"


def filled(database: Engine, rows: int = 130) -> None:
    """Add rows of every kind, and one that has something in each column."""
    draw = random.Random(7)
    with database.begin() as connection:
        for number in range(rows):
            columns: Columns = {
                "patient_id": f"P{number % 10}",
                "study_instance_uid": f"1.2.840.98.{number % 20}",
                "seconds": draw.random(),
                "detail": {"number": number},
            }
            trail.record(
                connection, draw.choice([Event.INSTANCE_STORED, Event.IMAGE_READ]), columns
            )
        trail.record(
            connection,
            Event.DELIVERY_FAILED,
            {
                "event_outcome": 8,
                "calling_ae_title": "MODALITY",
                "called_ae_title": "THORACLE",
                "network_address": "10.1.2.3",
                "user_id": HOSTILE[:64],
                "patient_id": HOSTILE[:64],
                "issuer_of_patient_id": "HOSPITAL",
                "study_instance_uid": STUDY,
                "accession_number": "=1+1",
                "sop_instance_uid": "1.2.840.99.8",
                "result_sop_instance_uid": "1.2.840.99.9",
                "bundle_version": BUNDLE,
                "bundle_digest": "5f" * 32,
                "finding": "SCT:840539006",
                "outcome": "rejected",
                "probability": 0.25,
                "reason_code": Reason.NOT_FRONTAL.code.value,
                "destination": "pacs",
                "proof": "query",
                "status": "0xA700",
                "correlation_id": "workflow",
                "seconds": 77.5,
                "detail": {"reason": HOSTILE, "long": "\x00\u202e" + "x" * 6000},
            },
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    running = Site(tmp_path_factory.mktemp("audit"), persons=PERSONS)
    filled(running.database)
    anchors.drop_anchor(running.database, running.settings.data_folder / anchors.ANCHORS_FILE)
    with running:
        yield running


@pytest.fixture
def client(site: Site) -> Iterator[httpx.Client]:
    with site.client("auditor") as found:
        yield found


def numbers(page: str) -> list[int]:
    """Return the rows of a page, in its order."""
    return [int(one) for one in re.findall(r'href="/audit/event/(\d+)">Row \d+ only', page)]


def get(client: httpx.Client, path: str, **parameters: Any) -> str:
    answer = client.get(path, params=parameters or None)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.text


# ---- Asked ----


def test_a_form_has_every_field_of_a_question(client: httpx.Client) -> None:
    page = get(client, "/audit")
    names = {one.name for one in fields(Question)} - {"shown"}
    assert names == set(asked.FIELDS)
    assert names == set(re.findall(r'<(?:input|select)[^>]* name="(\w+)"', page)) - {
        "csrf_token",
        "whole",
    }


def test_the_pages_have_every_event_once_newest_first(site: Site, client: httpx.Client) -> None:
    wanted = {one.id for one in site.events() if one.event == "image read"}
    found: list[int] = []
    path, pages = "/audit?event=image+read", 0
    while path:
        page = get(client, path)
        found += numbers(page)
        pages += 1
        older = re.search(r'rel="next" href="([^"]+)">Older', page)
        path = older[1].replace("&amp;", "&") if older else ""
    assert pages == 2
    assert found == sorted(wanted, reverse=True)


ONE = {
    "event": "delivery failed",
    "action": "R",
    "event_outcome": 8,
    "patient_id": HOSTILE[:64],
    "issuer_of_patient_id": "HOSPITAL",
    "study_instance_uid": STUDY,
    "accession_number": "=1+1",
    "sop_instance_uid": "1.2.840.99.9",
    "ae_title": "MODALITY",
    "network_address": "10.1.2.3",
    "user_id": HOSTILE[:64],
    "bundle": BUNDLE,
    "outcome": "rejected",
    "reason_code": Reason.NOT_FRONTAL.code.value,
    "destination": "pacs",
    "proof": "query",
    "status": "0xA700",
    "at_least_seconds": 60,
}
"""Of the row with something in each column, what no other row has."""


@pytest.mark.parametrize("name", [*ONE, "since", "until"])
def test_each_filter_finds_what_has_it_and_stays_in_the_form(
    site: Site, client: httpx.Client, name: str
) -> None:
    (row,) = [one for one in site.events() if one.study_instance_uid == STUDY and one.proof]
    earlier, later = row.recorded_at[:19] + ".000000Z", "2999-01-01T00:00:00"
    value = {"since": earlier, "until": later}.get(name) or ONE[name]
    page = get(client, "/audit", **{"destination": "pacs", name: value})
    assert numbers(page) == [row.id]
    assert re.search(rf'name="{name}"[^>]*value="[^"]|<select name="{name}">', page)
    other = {"since": later, "until": earlier, "at_least_seconds": 1000, "event_outcome": 4}
    nothing = {"action": "D"}.get(name) or other.get(name) or "x"
    assert row.id not in numbers(get(client, "/audit", **{name: nothing}))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/audit?since=yesterday", "since"),
        ("/audit?patientid=P1", "patientid"),
        ("/audit?action=X", "action"),
        ("/audit?event_outcome=many", "event_outcome"),
        (f"/audit?patient_id={'x' * 65}", "patient_id"),
        ("/audit?before=1", "before"),
        ("/audit/export.csv?nonsense=1", "nonsense"),
        ("/audit/event/-1", "row_id"),
    ],
)
def test_what_is_not_understood_is_refused_by_name_and_reads_nothing(
    site: Site, client: httpx.Client, path: str, words: str
) -> None:
    before = len(site.events("audit read"))
    answer = client.get(path)
    assert (answer.status_code, words in answer.text) == (422, True)
    assert len(site.events("audit read")) == before


def test_what_a_form_leaves_empty_does_not_stay_in_the_address(
    site: Site, client: httpx.Client
) -> None:
    before = len(site.events("audit read"))
    answer = client.get("/audit?since=&event=image+read&at_least_seconds=&action=")
    assert (answer.status_code, answer.headers["location"]) == (303, "/audit?event=image+read")
    assert len(site.events("audit read")) == before


def test_text_of_others_is_inert_and_whole_columns_are_shown(client: httpx.Client) -> None:
    page = get(client, "/audit", study_instance_uid=STUDY)
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "{{191*193}}" in page
    assert "\u202e" not in page
    assert "\\u0000\\u202e" in page
    assert "the export has them all" in page
    for text in (
        "10.1.2.3",
        "MODALITY",
        "0xA700",
        "77.5",
        "5f" * 32,
        "workflow",
        "8 (serious failure)",
    ):
        assert text in page, text


def test_every_column_has_a_name_on_the_page() -> None:
    assert set(audit.NAMES) == {*COLUMNS, "digest"} - {"detail"}


def test_only_readers_get_a_link_to_the_study(site: Site, client: httpx.Client) -> None:
    assert f'href="/study/{STUDY}"' not in get(client, "/audit", study_instance_uid=STUDY)
    with site.client("chief") as chief:
        assert f'href="/study/{STUDY}"' in get(chief, "/audit", study_instance_uid=STUDY)


# ---- Who may, and that it is a row ----


def test_the_audit_is_for_auditors_alone(site: Site) -> None:
    paths = ("/audit", "/audit/event/1", "/audit/export.csv")
    for name in ("reader", "administrator"):
        with site.client(name) as client:
            assert [client.get(path).status_code for path in paths] == [403] * len(paths)
            assert "/audit" not in client.get("/account").text
    with site.client("reader") as client:  # an administrator may: no event is shown
        assert client.get("/audit/verification").status_code == 403
        assert client.post("/audit/verification").status_code == 403
    with site.visitor() as client:
        assert client.get("/audit").headers["location"] == "/login?next=/audit"
        assert client.get("/audit/export.jsonl").status_code == 303


def test_an_auditor_starts_at_the_audit(client: httpx.Client) -> None:
    assert client.get("/login").headers["location"] == "/audit"
    assert client.get("/").headers["location"] == "/audit"
    assert 'href="/audit" aria-current="page"' in get(client, "/audit")


def test_each_reading_is_one_row_with_person_question_and_means(
    site: Site, client: httpx.Client
) -> None:
    before = len(site.events())
    get(client, "/audit", study_instance_uid=STUDY, since="2020-01-01")
    get(client, "/audit/export.csv", patient_id="P1")
    get(client, "/audit/export.jsonl", event="image read")
    get(client, "/audit/event/131")
    assert client.get("/audit/event/999999999").status_code == 404
    get(client, "/audit/verification")
    rows = site.events()[before:]
    assert [one.event for one in rows] == ["audit read"] * 5
    assert {one.user_id for one in rows} == {"auditor"}
    assert {one.network_address for one in rows} == {"127.0.0.1"}
    assert [one.detail["means"] for one in rows] == [
        "GET /audit",
        "GET /audit/export.csv",
        "GET /audit/export.jsonl",
        "GET /audit/event/{row_id}",
        "GET /audit/event/{row_id}",
    ]
    page, listed, _, single, missed = rows
    assert page.study_instance_uid == single.study_instance_uid == STUDY
    assert page.detail["question"] == {
        "study_instance_uid": STUDY,
        "since": "2020-01-01T00:00:00.000000Z",
    }
    assert (listed.patient_id, single.issuer_of_patient_id) == ("P1", "HOSPITAL")
    assert (single.event_outcome, missed.event_outcome) == (0, 4)


# ---- Exports ----


def test_an_export_has_all_rows_that_answer_and_no_formula(
    site: Site, client: httpx.Client
) -> None:
    rows = list(csv.DictReader(io.StringIO(get(client, "/audit/export.csv"))))
    known = site.events()
    assert [int(one["id"]) for one in rows] == [one.id for one in known]
    (row,) = [one for one in rows if one["study_instance_uid"] == STUDY and one["proof"]]
    assert row["accession_number"] == "'=1+1"
    assert len(json.loads(row["detail"])["long"]) == 6002
    lines = get(client, "/audit/export.jsonl", study_instance_uid=STUDY).splitlines()
    found = [json.loads(line) for line in lines]
    about = [one.get("study_instance_uid") or one["detail"]["studies"] for one in found]
    assert all(STUDY in one for one in about)  # of it, or a list that showed it
    assert found[0]["detail"]["reason"] == HOSTILE
    assert found[0]["digest"] == next(one.digest for one in known if one.id == found[0]["id"])


# ---- Verification ----


def verified(client: httpx.Client, **form: str) -> str:
    answer = client.post("/audit/verification", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/audit/verification")
    return " ".join(get(client, "/audit/verification").split())


def test_a_verification_goes_on_where_the_last_one_ended(site: Site, client: httpx.Client) -> None:
    whole = verified(client, whole="true")
    assert "rows after row 0 up to row" in whole
    assert "are unchanged, verified on" in whole
    remembered = verification.last_verified(site.settings.data_folder)
    assert remembered is not None
    assert f"up to row {remembered.id}" in whole
    assert f" after row {remembered.id} up to row" in verified(client)
    assert "1; the last" in whole  # the anchor, and its age
    asked_for = site.events("audit read")[-1]
    assert asked_for.detail["means"] == "POST /audit/verification"
    assert asked_for.detail["question"] == {"verify": "since the last verification"}


def test_a_broken_row_is_named(tmp_path: Path) -> None:
    with Site(tmp_path, persons=PERSONS) as site:
        filled(site.database, 60)
        with closing(sqlite3.connect(site.settings.data_folder / "thoracle.sqlite")) as database:
            for (name,) in database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit_event'"
            ).fetchall():
                database.execute(f"DROP TRIGGER {name}")
            database.execute("UPDATE audit_event SET patient_id = 'Q' WHERE id = 33")
            database.commit()
        with site.client("auditor") as client:
            page = verified(client)
            assert "<strong>Broken at row 33</strong>" in page
            assert "32 rows before it are unchanged" in page
            assert verification.last_verified(site.settings.data_folder) is None
            assert "Broken at row 33" in get(client, "/audit")
            assert "row 33" in site.log.read_text()
            (site.settings.data_folder / anchors.ANCHORS_FILE).write_text("nonsense\nnonsense\n")
            assert "found no anchor" in get(client, "/audit")
            assert "Verification failed" in verified(client)


def vouched(site: Site, authority: StampingAuthority) -> tuple[anchors.Anchor, anchors.Anchor]:
    """Have the newest anchor witnessed and time-stamped, and a newer one refused; return both."""
    folder = site.settings.data_folder
    first = anchors.last_anchor(folder / anchors.ANCHORS_FILE)
    assert first is not None
    witness.offer(site.database, site.settings)
    with site.database.begin() as connection:
        connection.execute(update(outbox).values(state="delivered"))
    with stamping(authority.answer) as asked:
        roots = timestamps.authorities(authority.ca_file)
        stamp = timestamps.ask(asked.url, first, roots)
    timestamps.keep(folder, stamp)
    with site.database.begin() as connection:
        detail = {"anchor": first.id, "digest": first.digest, "sha256": stamp.sha256}
        trail.record(connection, Event.AUDIT_TIMESTAMPED, {"detail": detail})
    with site.database.begin() as connection:
        trail.record(connection, Event.STUDY_COMPLETE, {})
    signer = signing.existing(folder)
    second = anchors.drop_anchor(site.database, folder / anchors.ANCHORS_FILE, signer)
    assert second is not None
    witness.offer(site.database, site.settings)
    with site.database.begin() as connection:
        waits = update(outbox).where(outbox.c.state == "waiting")
        connection.execute(waits.values(detail="<b>answered 503"))
    return first, second


def assert_told_to_programs(site: Site, taken: anchors.Anchor, waiting: anchors.Anchor) -> None:
    """Hold what the interface for programs says of witness and time stamps against what is so."""
    folder = site.settings.data_folder
    with site.client("auditor") as auditor:
        told = auditor.get("/api/audit/verification").json()
        assert told["witness"]["where"] == "audit witness http://127.0.0.1:1"
        assert told["witness"]["last_id"] == taken.id
        assert told["witness"]["waiting"] == [waiting.id]
        assert told["witness"]["detail"] == "<b>answered 503"
        (stamp,) = timestamps.kept(folder / timestamps.STAMPS_FILE)
        assert told["timestamps"] == 1
        assert told["timestamp"] == {
            "id": taken.id,
            "digest": taken.digest,
            "time": f"{stamp.time:%Y-%m-%dT%H:%M:%S.%fZ}",
            "authority": "CN=stamper",
        }
        assert (told["timestamp_fault"], told["timestamps_lost"]) == (None, [])
        (folder / timestamps.STAMPS_FILE).rename(folder / "taken")
        told = auditor.get("/api/audit/verification").json()
        assert (told["timestamps"], told["timestamp"]) == (0, None)
        assert told["timestamps_lost"][0].startswith(f"row {taken.id}: found no time stamp")
        (folder / "taken").rename(folder / timestamps.STAMPS_FILE)


def test_the_state_of_the_log_has_purges_anchors_signatures_and_what_was_changed(
    tmp_path: Path,
) -> None:
    authority = StampingAuthority(tmp_path / "tsa")
    text = f'[audit]\ntimestamp_ca_file = "{authority.ca_file}"\n'
    text += '[audit.witness]\nurl = "http://127.0.0.1:1/"\n'
    with Site(tmp_path, text, persons=PERSONS) as site:
        folder = site.settings.data_folder
        signer = signing.existing_or_new(folder)
        with site.database.begin() as connection:
            signing.announce(connection, signer)
        filled(site.database, 30)
        later = datetime.now(UTC) + timedelta(days=20)
        with site.database.begin() as connection:
            rules.cut(connection, 10, [], later)
        with site.database.begin() as connection:
            signing.announce(connection, signer)  # the purge took its row
        anchors.drop_anchor(site.database, folder / anchors.ANCHORS_FILE, signer)
        with site.database.begin() as connection:
            connection.execute(insert(study).values(
                study_instance_uid="1.2.3", generation=1, first_received_at="3", changed_at="3"
            ))  # fmt: skip
            connection.execute(insert(analysis).values(
                study_instance_uid="1.2.3", generation=1, bundle_digest="f" * 64, finding="SCT:1",
                state="done", priority=1, content_datetime="3", outcome="negative", finished_at="3",
            ))  # fmt: skip
        with site.client("administrator") as client:
            page = " ".join(get(client, "/audit/verification").split())
            assert "audit witness http://127.0.0.1:1" in page
            assert "<dt>Last anchor taken</dt><dd>none yet" in page
            assert page.count("None yet.") == 1  # no time stamp
            anchor, newer = vouched(site, authority)
            page = " ".join(get(client, "/audit/verification").split())
            assert f"<dt>Last anchor taken</dt><dd>row {anchor.id}, " in page
            assert f"<dt>Waiting</dt><dd>row {newer.id}: " in page
            assert "&lt;b&gt;answered 503" in page
            assert f"UTC: the log had {anchor.id} rows; certified by <bdi>CN=stamper</bdi>" in page
            assert_told_to_programs(site, anchor, newer)
            (folder / timestamps.STAMPS_FILE).rename(folder / "taken")
            lost = get(client, "/audit/verification")
            assert f"row {anchor.id}: found no time stamp with SHA-256" in lost
            (folder / "taken").rename(folder / timestamps.STAMPS_FILE)
            assert "rows up to row" in page
            assert "older than 10 days: <a" in page
            assert page.count("valid</span>") == 3
            assert signing.fingerprint(signer.public_key) in page
            assert client.get("/audit").status_code == 403
            told = verified(client, whole="true")
            assert "1 difference from the log" in told
            assert "study 1.2.3, analysis 1 of bundle" in told
            assert "which the log does not have" in told
