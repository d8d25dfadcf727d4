"""`thoracle audit why`: every event has its sentence, and a study its story."""

import json
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from gateway import Gateway
from ledger import eventually, rows
from pacs import Pacs, free_port
from radiographs import chest
from sender import send
from test_audit_message import row_of
from thoracle.audit import query, story
from thoracle.audit.sentences import SENTENCES, sentence
from thoracle.audit.story import Known
from thoracle.cli import app
from thoracle.errors import ThoracleError
from thoracle.store import database, trail
from thoracle.store.trail import Columns, Event

HOSTILE = "\x1b[31mred\x00\r\n[bold]x[/bold]\u202e<b>" + "y" * 60_000
STUDY = "1.2.3"


@pytest.mark.parametrize("event", Event, ids=lambda one: one.name)
def test_every_event_has_a_sentence_whatever_stands_in_its_row(event: Event) -> None:
    assert event in SENTENCES
    for seed in range(40):
        row = row_of(event, seed)
        for one in (row, {**row, "detail": {}}, {**row, "detail": {"detail": HOSTILE}}):
            assert_inert(sentence([one]))
        assert_inert(sentence([row, row_of(event, seed + 1)]))


@pytest.mark.parametrize("event", Event, ids=lambda one: one.name)
def test_hostile_text_comes_out_inert(event: Event) -> None:
    hostile = dict.fromkeys(("calling_ae_title", "user_id", "destination", "status"), HOSTILE)
    names = ("comment", "detail", "reason", "why", "means", "sentence", "person", "from", "what")
    row = {"event": event.verb, **hostile, "detail": dict.fromkeys((*names, "version"), HOSTILE)}
    assert_inert(sentence([row]))


def assert_inert(text: str) -> None:
    assert text.endswith(".")
    assert len(text) < 4000
    assert not [one for one in text if unicodedata.category(one)[0] == "C"]


def test_an_event_of_a_later_version_is_told_by_its_verb() -> None:
    assert sentence([{"event": "moon rises"}]) == "Moon rises."


SAID: list[tuple[Event, Columns, str]] = [
    (
        Event.INSTANCE_STORED,
        {"calling_ae_title": "ROOM_1", "network_address": "10.0.0.1"},
        "ROOM_1 (10.0.0.1) sent 1 image, stored and acknowledged.",
    ),
    (
        Event.INSTANCE_REFUSED,
        {
            "calling_ae_title": "ROOM_1",
            "status": "0xA900",
            "detail": {"comment": "SOP Class differs"},
        },
        "ROOM_1 sent 1 object, refused with 0xA900: SOP Class differs.",
    ),
    (
        Event.IMAGE_READ,
        {
            "sop_instance_uid": "1.1",
            "outcome": "rejected",
            "reason_code": "NOT-CHEST",
            "detail": {"detail": "BodyPartExamined is HAND"},
        },
        "Image 1.1 was rejected: Body part is not the chest (NOT-CHEST): BodyPartExamined is HAND.",
    ),
    (
        Event.IMAGE_READ,
        {
            "sop_instance_uid": "1.1",
            "outcome": "positive",
            "probability": 0.93,
            "bundle_version": "covid 0.2.0",
            "bundle_digest": "d" * 64,
            "seconds": 0.5,
            "detail": {"threshold": 0.5, "made_with": {"version": "0.3", "runtime": "torch 2"}},
        },
        "Image 1.1 was selected, and read by covid 0.2.0 (digest dddddddddddd) as positive: "
        "probability 0.93, threshold 0.5 (0.50 s, Thoracle 0.3, torch 2).",
    ),
    (
        Event.RULES_DECIDED,
        {
            "detail": {
                "fired": [{"rule": "trial", "when": 'sender == "ROOM_1"', "values": {}}],
                "sending": "shadow",
                "shadowed_by": ["trial"],
                "kinds": {"pacs": ["sr", "sc"]},
            }
        },
        'Rules: trial fired: sender == "ROOM_1", in shadow mode by trial: nothing is sent, '
        "otherwise to pacs: structured report and result picture (Secondary Capture).",
    ),
    (
        Event.DELIVERY_POSTPONED,
        {"destination": "pacs", "detail": {"kind": "sr", "detail": "connection refused"}},
        "pacs did not receive the structured report; will be retried: connection refused.",
    ),
    (
        Event.DELIVERY_SUCCEEDED,
        {"destination": "pacs", "proof": "commitment", "detail": {"kind": "sr", "attempt": 2}},
        "pacs has the structured report, proven by Storage Commitment, attempt 2.",
    ),
    (
        Event.RESULT_WITHDRAWN,
        {"user_id": "anna", "detail": {"reason": "wrong patient"}},
        "anna withdrew the result: wrong patient.",
    ),
    (
        Event.VERDICT_GIVEN,
        {"user_id": "anna", "outcome": "positive", "detail": {"opinion": "disagree"}},
        "anna disagreed with the result positive.",
    ),
    (
        Event.CONFIGURATION_CHANGED,
        {"detail": {"changed": ["report.sc", "select.minimum_age"]}},
        "Settings changed since the last start: report.sc and select.minimum_age.",
    ),
]


@pytest.mark.parametrize(("event", "columns", "expected"), SAID)
def test_a_sentence_says_what_stands_there(event: Event, columns: Columns, expected: str) -> None:
    assert sentence([{"event": event.verb, **columns}]) == expected


def numbered(*found: tuple[Event, Columns]) -> list[dict[str, Any]]:
    return [
        {"id": number, "event": event.verb, "recorded_at": f"2026-11-24T10:00:{number:02}Z"}
        | dict(columns)
        for number, (event, columns) in enumerate(found, 1)
    ]


def test_events_alike_are_told_together() -> None:
    room, other = {"calling_ae_title": "ROOM_1"}, {"calling_ae_title": "ROOM_2"}
    events = numbered(
        (Event.INSTANCE_STORED, Columns(**room)),  # type: ignore[typeddict-item]  # one key
        (Event.INSTANCE_STORED, Columns(**room)),  # type: ignore[typeddict-item]  # one key
        (Event.INSTANCE_STORED, Columns(**other)),  # type: ignore[typeddict-item]  # one key
    )
    first, second = story.facts(events)
    assert first.sentence == "ROOM_1 sent 2 images, stored and acknowledged."
    assert (first.events, first.at, first.until) == (
        (1, 2),
        "2026-11-24T10:00:01Z",
        "2026-11-24T10:00:02Z",
    )
    assert second.sentence.startswith("ROOM_2 sent 1 image")


# ---- how it stands ---------------------------------------------------------------------------

DONE = {"state": "done", "outcome": "positive", "probability": 0.93, "sending": None}
SENT = {
    "kind": "dicom",
    "peer": "pacs",
    "object": "sr",
    "state": "delivered",
    "attempts": 1,
    "detail": None,
    "next_attempt_at": None,
}
KNOWN = Known(
    STUDY,
    {"changed_at": "2026-11-24T10:00:00Z"},
    1,
    0,
    "positive",
    DONE,
    (),
    (SENT,),
    (),
    (),
    (),
)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (KNOWN, "Study 1.2.3 was read as positive (0.93), and proven in pacs."),
        (
            replace(KNOWN, study=None),
            "Study 1.2.3 was never received: no image of it was stored here.",
        ),
        (
            replace(
                KNOWN,
                study=None,
                events=numbered(
                    (Event.INSTANCE_STORED, {}), (Event.IMAGE_READ, {"outcome": "negative"})
                ),
            ),
            "Study 1.2.3 was received, and its rows are no longer kept: by the audit, its last "
            "image was read as negative.",
        ),
        (
            replace(KNOWN, analysis=None),
            "Study 1.2.3 has no result yet: 1 image received, and it is not complete yet.",
        ),
        (
            replace(KNOWN, analysis={"state": "planned"}, state="running"),
            "Study 1.2.3 has no result yet: it is complete, and is being read now.",
        ),
        (
            replace(
                KNOWN,
                analysis={"state": "failed"},
                events=numbered((Event.ANALYSIS_FAILED, {"detail": {"detail": "no memory"}})),
            ),
            "Study 1.2.3 has no result: the analysis failed: no memory.",
        ),
        (
            replace(
                KNOWN,
                analysis={**DONE, "outcome": "rejected", "probability": None},
                readings=({"reason_code": "NOT-CHEST"},),
                sent=({**SENT, "state": "sent"}, {**SENT, "peer": "vna"}),
            ),
            "Study 1.2.3 was rejected, none of its images could be analysed: Body part is not the "
            "chest (NOT-CHEST), and proven in vna; sent to pacs, not proven yet.",
        ),
        (
            replace(KNOWN, analysis={**DONE, "sending": "shadow"}),
            "Study 1.2.3 was read as positive (0.93), and not sent: a rule puts it in shadow mode.",
        ),
        (
            replace(
                KNOWN,
                analysis={**DONE, "state": "withdrawn"},
                events=numbered(
                    (Event.RESULT_WITHDRAWN, {"user_id": "anna", "detail": {"reason": "wrong"}})
                ),
            ),
            "Study 1.2.3 was read as positive (0.93); that result was withdrawn by anna at "
            "2026-11-24T10:00:01Z: wrong.",
        ),
        (
            replace(KNOWN, sent=()),
            "Study 1.2.3 was read as positive (0.93), and sent nowhere: no destination is "
            "configured, or no rule sends it.",
        ),
    ],
)
def test_the_first_line_answers(known: Known, expected: str) -> None:
    assert story.answer(known) == expected


def test_what_is_waited_for_names_since_when_why_and_until_when() -> None:
    away = {"destination": "pacs", "detail": {"kind": "sr", "detail": "refused"}}
    taken = {"destination": "pacs", "detail": {"kind": "sr"}}
    events = numbered(
        (Event.DELIVERY_POSTPONED, Columns(**away)),  # type: ignore[typeddict-item]  # two keys
        (Event.DELIVERY_SENT, Columns(**taken)),  # type: ignore[typeddict-item]  # two keys
        (Event.DELIVERY_POSTPONED, Columns(**away)),  # type: ignore[typeddict-item]  # two keys
        (Event.DELIVERY_POSTPONED, Columns(**away)),  # type: ignore[typeddict-item]  # two keys
    )
    due = "2026-11-24T11:00:00Z"
    row = {**SENT, "state": "waiting", "attempts": 3, "detail": "refused", "next_attempt_at": due}
    known = replace(KNOWN, sent=(row,), events=events)
    assert story.waiting(known) == [
        "The archive pacs has not accepted the structured report since 2026-11-24T10:00:03Z "
        f"(refused); the next attempt is at {due}."
    ]
    assert story.answer(known).endswith("and waiting to be sent to pacs.")


# ---- the command -----------------------------------------------------------------------------


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return database.open_database(database.sqlite_url(tmp_path))


def ask(folder: Path, *arguments: str) -> str:
    config = folder / "thoracle.toml"
    config.write_text(f'data_folder = "{folder}"\n')
    result = CliRunner().invoke(app, ["audit", "why", "--config", str(config), *arguments])
    if isinstance(result.exception, ThoracleError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_study_that_never_came_is_said_so_with_what_was_refused(
    tmp_path: Path, engine: Engine
) -> None:
    refused: Columns = {
        "event_outcome": 8,
        "calling_ae_title": "ROOM_1",
        "status": "0xC000",
        "detail": {"comment": HOSTILE},
    }
    with engine.begin() as connection:
        trail.record(connection, Event.INSTANCE_REFUSED, refused)
    said = ask(tmp_path, STUDY)
    assert said.startswith(f"Study {STUDY} was never received")
    assert "refused with 0xC000: \\x1b[31mred\\x00" in said
    assert "[bold]x[/bold]" in said
    assert "\x1b" not in said
    again = json.loads(ask(tmp_path, STUDY, "--json"))
    assert (again["came"], len(again["around"])) == (False, 1)
    with engine.connect() as connection:
        read = list(query.events(connection, query.Question(event="audit read")))
    assert [row["study_instance_uid"] for row in read] == [STUDY, STUDY]


def test_an_accession_number_nobody_knows_is_a_fault_and_audited(
    tmp_path: Path, engine: Engine
) -> None:
    with pytest.raises(ThoracleError, match="accession number 'A9'"):
        ask(tmp_path, "--accession", "A9")
    with engine.connect() as connection:
        (read,) = query.events(connection, query.Question(accession_number="A9"))
    assert read["event"] == "audit read"


def test_the_story_of_a_real_study_from_its_coming_to_its_proof(tmp_path: Path) -> None:
    with Pacs() as pacs, Gateway(tmp_path, pacs) as gateway:
        image = chest()
        assert send(gateway.port, image).status == 0x0000
        assert send(gateway.port, image).status == 0x0000
        study = str(image.StudyInstanceUID)
        impostor = chest(SOPInstanceUID=image.SOPInstanceUID, PatientID="P2")
        assert send(gateway.port, impostor).status == 0xC000
        proven = "SELECT 1 FROM outbox WHERE state = 'delivered'"
        eventually(lambda: rows(gateway, proven))
        told = json.loads(gateway.run("audit", "why", study, "--json"))
        said = gateway.run("audit", "why", "--accession", str(image.AccessionNumber))
        refused = gateway.run("audit", "why", str(impostor.StudyInstanceUID))
        visits = rows(gateway, "SELECT * FROM audit_event WHERE event = 'association accepted'")
    assert "was read as " in told["answer"] or "was rejected" in told["answer"]
    assert "proven in pacs" in told["answer"]
    text = " ".join(fact["sentence"] for fact in told["facts"])
    for part in (
        "sent 1 image, stored and acknowledged",
        "the same bytes were here already",
        "The study was complete with 1 image",
        f"Image {image.SOPInstanceUID} was",
        "Made: ",
        "pacs accepted the structured report",
        "pacs has the structured report",
    ):
        assert part in text
    assert told["waiting"] == []
    assert told["answer"] in said
    assert "Research use only" in said
    assert " was never received" in refused
    assert (
        "refused with 0xC000: SOP Instance UID is known with another study_instance_uid" in refused
    )
    counted = [json.loads(row["detail"]) for row in visits]
    names = ("stored", "duplicates", "corrected", "refused")
    # C-ECHOs, of which there were several, are no rows.
    assert [[one[name] for name in names] for one in counted] == [
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 1],
    ]
    assert [row["event_outcome"] for row in visits] == [0, 0, 4]


def test_a_study_whose_archive_is_away_says_since_when_and_what_is_next(tmp_path: Path) -> None:
    away = {"name": "vna", "ae_title": "VNA", "host": "127.0.0.1", "port": free_port()}
    with Gateway(tmp_path, away) as gateway:
        image = chest()
        assert send(gateway.port, image).status == 0x0000
        study = str(image.StudyInstanceUID)
        gateway.wait_for_event("delivery postponed", study)
        told = json.loads(gateway.run("audit", "why", study, "--json"))
    assert "waiting to be sent to vna" in told["answer"]
    (sentence,) = [one for one in told["waiting"] if "vna" in one][:1]
    assert "has not accepted the structured report since " in sentence
    assert "the next attempt is at " in sentence


def test_of_an_accession_number_every_study_is_told(tmp_path: Path, engine: Engine) -> None:
    with engine.begin() as connection:
        for study in ("1.1", "1.2"):
            columns: Columns = {"study_instance_uid": study, "accession_number": "A1"}
            trail.record(connection, Event.INSTANCE_STORED, columns)
        assert story.of_accession(connection, "A1") == ["1.1", "1.2"]
    assert ask(tmp_path, "--accession", "A1").count("Research use only") == 2
