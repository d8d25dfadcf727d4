"""Audit messages: valid, and equal in meaning to the rows of the trail."""

import json
import random
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from lxml import etree  # type: ignore[import-untyped]  # ships no types

from audit_messages import SCHEMA, faults, parse
from certificates import Authority
from documents import DOCS
from peers import require
from thoracle.audit import message
from thoracle.audit.message import EVENTS, TYPES, EventSource
from thoracle.settings import parse as parse_settings
from thoracle.store.tables import audit_event
from thoracle.store.trail import Event

SOURCE = EventSource("THORACLE@site", "HOSPITAL", "THORACLE", "gateway")
TEXTS = (
    "A1",
    "Müller",
    "a<b>&\"'",
    "x^y\\z",
    "\x00\x1b[31m\r\n\t",
    "\ufffe\uffff",
    "日本",
    "=1+1",
    "  ",
)
ROWS = 60


def row_of(event: Event, seed: int) -> dict[str, Any]:
    """Return a row of an event in which each further column is empty or anything."""
    chance = random.Random(f"{event.name} {seed}")
    row: dict[str, Any] = {
        "id": chance.randrange(1, 2**40),
        "recorded_at": f"2026-11-24T18:45:29.{chance.randrange(10**6):06}Z",
        "event": event.verb,
        "event_id": event.event_id,
        "event_type_code": event.event_type_code,
        "action": event.action,
        "event_outcome": chance.choice((0, 4, 8, 12)),
        "detail": chance.choice(({}, {"reason": "\x00\ud800 ü"}, {"a": [1, None, "x" * 99]})),
    }
    for column in audit_event.columns:
        if column.name in row or chance.random() < 0.4:
            continue
        if column.name in ("probability", "seconds"):
            row[column.name] = chance.random()
        else:
            row[column.name] = chance.choice(TEXTS) + str(chance.randrange(1000))
    return row


def filled(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value not in (None, "")}


@pytest.mark.parametrize("event", Event, ids=lambda one: one.name)
def test_every_column_of_a_row_is_found_again_in_its_message(event: Event) -> None:
    for seed in range(ROWS):
        row = row_of(event, seed)
        assert parse(message.build(row, SOURCE)) == filled(row), seed


@pytest.mark.parametrize("event", Event, ids=lambda one: one.name)
def test_the_message_of_every_event_is_valid_and_one_line(event: Event) -> None:
    for seed in range(ROWS):
        made = message.build(row_of(event, seed), SOURCE)
        assert not faults(made), seed
        assert b"\n" not in made


@pytest.mark.parametrize("event", Event, ids=lambda one: one.name)
def test_every_event_has_a_name_of_the_standard(event: Event) -> None:
    assert event.event_id in EVENTS
    code = event.event_type_code
    assert code is None or code in TYPES or not code.isdigit()


def test_an_event_has_an_action_that_its_table_allows() -> None:
    """PS3.15 A.5.3; of transfers the source says R, the receiver C or U."""
    allowed = {"110100": "E", "110101": "R", "110102": "E", "110103": "CRUD", "110104": "CRU"}
    allowed |= {"110105": "D", "110106": "R", "110111": "CRUD", "110112": "E"}
    allowed |= {"110113": "E", "110114": "E"}
    wrong = [one.name for one in Event if one.action not in allowed[one.event_id]]
    assert wrong == []


def test_detail_may_be_the_text_that_the_database_keeps() -> None:
    row = row_of(Event.IMAGE_READ, 1) | {"detail": {"reason": "é"}}
    kept = row | {"detail": json.dumps(row["detail"])}
    assert message.build(kept, SOURCE) == message.build(row, SOURCE)


def test_a_column_that_a_later_version_adds_is_told_too() -> None:
    row = row_of(Event.LOGGED_IN, 1) | {"something_new": "\x01"}
    assert parse(message.build(row, SOURCE))["something_new"] == "\x01"


@pytest.mark.parametrize("seed", range(ROWS))
def test_one_participant_alone_began_it(seed: int) -> None:
    root = etree.fromstring(message.build(row_of(Event.STUDY_VIEWED, seed), SOURCE))
    flags = [one.get("UserIsRequestor") for one in root.findall("ActiveParticipant")]
    assert flags.count("true") == 1


def test_a_caller_that_gave_no_name_is_known_by_its_address() -> None:
    row = {
        **row_of(Event.ASSOCIATION_REFUSED, 0),
        "calling_ae_title": None,
        "user_id": None,
        "network_address": "2001:db8::1",
    }
    caller = etree.fromstring(message.build(row, SOURCE)).find("ActiveParticipant")
    assert (caller.get("UserID"), caller.get("NetworkAccessPointTypeCode")) == ("2001:db8::1", "2")


def test_sop_classes_that_are_known_are_named() -> None:
    row = row_of(Event.IMAGE_READ, 0) | {"study_instance_uid": "1.2", "sop_instance_uid": "1.3"}
    root = etree.fromstring(message.build(row, SOURCE, {"1.3": "1.2.840.10008.5.1.4.1.1.1.1"}))
    assert root.find(".//SOPClass").get("UID") == "1.2.840.10008.5.1.4.1.1.1.1"


@pytest.mark.parametrize("seed", range(ROWS))
def test_a_message_that_is_too_long_says_what_it_leaves_out(seed: int) -> None:
    row = row_of(Event.STUDY_VIEWED, seed)
    row |= {"user_id": "U" * 40_000, "detail": {"studies": ["1.2.3"] * 9000}}
    made = message.fitted(row, SOURCE, 32768)
    assert len(made) <= 32768
    assert not faults(made)
    told = parse(made)
    assert told["user_id"].startswith("left out: 40000 bytes, SHA-256 ")
    assert told["detail"].startswith("left out: 81013 bytes, SHA-256 ")
    rest = {name: told[name] for name in told if name not in ("user_id", "detail")}
    assert rest == {name: filled(row)[name] for name in rest}


@pytest.mark.parametrize("seed", range(ROWS))
def test_a_message_that_fits_is_left_as_it_is(seed: int) -> None:
    row = row_of(Event.RESULT_CREATED, seed)
    assert message.fitted(row, SOURCE, 32768) == message.build(row, SOURCE)


def test_whatever_strangers_sent_a_message_can_be_made_small() -> None:
    row = dict.fromkeys((column.name for column in audit_event.columns), "\x1b" * 60_000)
    row |= row_of(Event.ASSOCIATION_REFUSED, 0) | {"calling_ae_title": "<" * 60_000}
    made = message.fitted(row, SOURCE, 8192)
    assert len(made) <= 8192
    assert not faults(made)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('EventActionCode="R"', 'EventActionCode="X"'),
        ('EventOutcomeIndicator="0"', 'EventOutcomeIndicator="1"'),
        ("csd-code=", "code="),
        ('Z"', '"'),  # a time without its zone
        ('UserIsRequestor="true"', 'UserIsRequestor="perhaps"'),
        ("<ParticipantObjectName />", ""),
        ('value="e', 'value="*'),
        ('AuditSourceID="THORACLE@site"', ""),
        ('ParticipantObjectTypeCode="2"', 'ParticipantObjectTypeCode="9"'),
    ],
)
def test_the_schema_finds_what_is_wrong(right: str, wrong: str) -> None:
    row = row_of(Event.IMAGE_READ, 3) | {"event_outcome": 0, "detail": {}, "patient_id": "P"}
    text = message.build(row, SOURCE).decode()
    assert right in text
    assert SCHEMA.validate(etree.fromstring(text.encode()))
    assert not SCHEMA.validate(etree.fromstring(text.replace(right, wrong, 1).encode()))


# ---- The page ----------------------------------------------------------------------------------

PAGE = (DOCS / "audit-forwarding.md").read_text(encoding="utf-8")
TOLD = {
    "id": 4711,
    "recorded_at": "2026-11-24T18:45:29.123456Z",
    **{"event": "image read", "event_id": "110103", "event_type_code": "IMAGE-READ"},
    **{"action": "R", "event_outcome": 0, "patient_id": "P1", "issuer_of_patient_id": "HOSPITAL"},
    **{"study_instance_uid": "2.25.1001", "accession_number": "ACC1"},
    **{"sop_instance_uid": "2.25.3001", "result_sop_instance_uid": "2.25.2002"},
    **{"bundle_version": "covid_cxr 0.2.0", "outcome": "positive", "probability": 0.91},
    **{"seconds": 0.55, "correlation_id": "analyse:2.25.1001:1", "detail": {}, "digest": "5f" * 32},
}


def block(language: str) -> str:
    return PAGE.split(f"```{language}\n")[1].split("```")[0]


def test_the_message_of_the_page_is_what_is_made() -> None:
    classes = {
        "2.25.3001": "1.2.840.10008.5.1.4.1.1.1.1",
        "2.25.2002": "1.2.840.10008.5.1.4.1.1.88.34",
    }
    source = EventSource("THORACLE", "HOSPITAL", "THORACLE", "gateway")
    made = etree.fromstring(message.build(TOLD, source, classes))
    etree.indent(made)
    assert etree.tostring(made, encoding="unicode") == block("xml").strip()


def test_the_configuration_for_rsyslog_of_the_page_is_one(tmp_path: Path) -> None:
    program = require("rsyslogd", "rsyslog")
    own = Authority(tmp_path).issue("repository")
    text = block("rsyslog").replace("/etc/ssl/ca.pem", str(tmp_path / "ca.pem"))
    text = text.replace("/etc/ssl/repository.crt", str(own.certificate_file))
    text = text.replace("/etc/ssl/repository.key", str(own.key_file))
    (tmp_path / "rsyslog.conf").write_text(text, encoding="utf-8")
    command = [program, "-N1", "-f", str(tmp_path / "rsyslog.conf")]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert "error" not in said.stderr.lower()


def test_the_settings_of_the_page_are_valid() -> None:
    (one,) = parse_settings(tomllib.loads(block("toml"))).audit_repository
    assert one.tls is not None
