"""Work that waits in a database of the last release is sent by this one."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from gateway import Gateway
from ledger import eventually, rows
from pacs import Pacs, free_port, smallest_report
from test_migrations import at_revision
from test_mllp import CONTROL_ID, MESSAGE, serving
from thoracle.settings import Deliver
from thoracle.store import engine
from thoracle.store.tables import timestamp

STUDY = "1.2.840.99"
LAST = "0012"
"""The schema of the last release."""
NOW = datetime.now(UTC)
SOON, LATER = timestamp(NOW), timestamp(NOW + timedelta(hours=1))
OBJECTS: dict[str, dict[str, Any]] = {
    "new": {"state": "waiting"},  # its workflow was never enqueued, for a crash
    "queued": {"state": "waiting"},
    "running": {"state": "waiting"},  # killed when it was sent, and nothing of it recorded
    "delayed": {"state": "waiting", "attempts": 3, "detail": "away", "next_attempt_at": SOON},
    "later": {"state": "waiting", "attempts": 9, "detail": "away", "next_attempt_at": LATER},
    "held": {"state": "held"},
    "sent": {"state": "sent", "attempts": 1, "transaction_uid": "2.25.1"},
    "delivered": {"state": "delivered", "attempts": 1, "proof": "commitment"},
    "refused": {"state": "refused", "attempts": 1, "detail": "answered 0xA900 ''"},
    "failed": {"state": "failed", "attempts": 99, "detail": "away"},
    "withdrawn": {"state": "withdrawn"},
}
MESSAGES = {"waiting": 0, "postponed": 2, "held": 0, "told": 1, "refused": 1, "failed": 5}
EVENTS = {"told": 1, "waiting": 0, "refused": 1}
WORKITEM = "2.25.77"
WORKFLOWS = {"queued": "ENQUEUED", "running": "PENDING", "delayed": "DELAYED", "later": "DELAYED"}


def uid(name: str) -> str:
    """Return the SOP Instance UID of an object of the old database."""
    return f"{STUDY}.{list(OBJECTS).index(name) + 1}"


def report_of(name: str) -> str:
    """Return the SOP Instance UID of the report that a message is about."""
    return f"{STUDY}.9{list(MESSAGES).index(name)}"


def insert(connection: Any, table: str, **values: object) -> None:
    """Insert a row with the columns that an old table had."""
    columns, places = ", ".join(values), ", ".join(f":{name}" for name in values)
    connection.execute(text(f"INSERT INTO {table} ({columns}) VALUES ({places})"), values)


def result(connection: Any, data: Path, sop_instance_uid: str) -> None:
    """Write an object, and its row."""
    below = f"results/{sop_instance_uid}.dcm"
    (data / below).parent.mkdir(exist_ok=True)
    ds = smallest_report(StudyInstanceUID=STUDY, SOPInstanceUID=sop_instance_uid)
    ds.save_as(data / below, enforce_file_format=True)
    insert(
        connection,
        "result",
        sop_instance_uid=sop_instance_uid,
        sop_class_uid=ds.SOPClassUID,
        series_instance_uid=ds.SeriesInstanceUID,
        study_instance_uid=STUDY,
        generation=1,
        bundle_digest="d",
        kind="sr",
        path=below,
        sha256="0",
        created_at=SOON,
    )


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return the folder of a gateway whose data folder the last release wrote."""
    data = tmp_path / "data"
    data.mkdir()
    database = at_revision(data, LAST)
    moments = {"created_at": SOON, "changed_at": SOON}
    with database.begin() as connection:
        insert(
            connection,
            "study",
            study_instance_uid=STUDY,
            generation=1,
            first_received_at=SOON,
            changed_at=SOON,
        )
        insert(
            connection,
            "analysis",
            study_instance_uid=STUDY,
            generation=1,
            bundle_digest="d",
            state="done",
            priority=1,
            content_datetime=SOON,
            outcome="positive",
            finished_at=SOON,
            sending="held",
        )
        for name, columns in OBJECTS.items():
            result(connection, data, uid(name))
            arrived = columns["state"] in ("sent", "delivered")
            insert(
                connection,
                "delivery",
                **{
                    "sop_instance_uid": uid(name),
                    "destination": "pacs",
                    "attempts": 0,
                    "delivered_sop_instance_uid": uid(name) if arrived else None,
                    **moments,
                    **columns,
                },
            )
        insert(
            connection,
            "commitment",
            transaction_uid="2.25.1",
            destination="pacs",
            study_instance_uid=STUDY,
            request=1,
            state="planned",  # and nobody asked the archive, for a crash
            **moments,
        )
        (data / "messages").mkdir()
        for name, attempts in MESSAGES.items():
            result(connection, data, report_of(name))
            path = f"messages/{name}.hl7"
            (data / path).write_bytes(MESSAGE)
            insert(
                connection,
                "notification",
                sop_instance_uid=report_of(name),
                receiver="ris",
                state="waiting" if name == "postponed" else name,
                attempts=attempts,
                path=path,
                **moments,
            )
        for number, (state, attempts) in enumerate(EVENTS.items(), 1):
            insert(
                connection,
                "workitem_event",
                sop_instance_uid=WORKITEM,
                ae_title="STATION",
                event_type_id=1,
                information=json.dumps({"00741000": {"vr": "CS", "Value": [f"STEP {number}"]}}),
                state=state,
                attempts=attempts,
                **moments,
            )
    engine.start(database, Deliver())
    engine.stop(5)
    with database.begin() as connection:
        for name, status in WORKFLOWS.items():
            work(connection, f"deliver:pacs:{uid(name)}:1", "deliver", "pacs", status)
        work(connection, "tell:2:1", "tell", "STATION", "ENQUEUED")
        work(connection, f"notify:ris:{report_of('waiting')}:1", "notify", "ris", "ENQUEUED")
    database.dispose()
    return tmp_path


def work(connection: Any, workflow_id: str, name: str, peer: str, status: str) -> None:
    """Insert a workflow as the last release had it in the engine."""
    insert(
        connection,
        "workflow_status",
        workflow_uuid=workflow_id,
        status=status,
        name=name,
        executor_id="local",
        application_version=engine.APPLICATION_VERSION,
        queue_name="deliver",
        queue_partition_key=peer,
        priority=100,
        serialization="portable_json",
        inputs=json.dumps({"positionalArgs": [peer, workflow_id, 1, 100], "namedArgs": {}}),
        delay_until_epoch_ms=int((NOW + timedelta(hours=1)).timestamp() * 1000),
    )
    if status == "PENDING":  # it had got as far as sending
        insert(
            connection,
            "operation_outputs",
            workflow_uuid=workflow_id,
            function_id=1,
            function_name="send",
            output=json.dumps({"state": "delivered", "detail": None}),
            serialization="portable_json",
        )


@pytest.fixture
def there(old: Path) -> Iterator[tuple[Gateway, Pacs, list[str]]]:
    """Return this release at work in it, with archive and information system."""
    with Pacs("PACS", commitment=True) as pacs, serving() as (port, messages):
        ris = {"name": "ris", "host": "127.0.0.1", "port": port}
        station = {"ae_title": "STATION", "host": "127.0.0.1", "port": free_port()}
        with Gateway(old, pacs, lists={"hl7": [ris], "subscriber": [station]}) as gateway:
            yield gateway, pacs, messages


def states(gateway: Gateway, kind: str) -> dict[str, str]:
    """Return the state of each item of a kind."""
    found = rows(gateway, "SELECT item, state FROM outbox WHERE kind = ?", kind)
    return {row["item"]: row["state"] for row in found}


def test_what_waits_is_sent_and_all_else_stays_as_it_was(
    there: tuple[Gateway, Pacs, list[str]],
) -> None:
    gateway, pacs, messages = there
    due = ("new", "queued", "running", "delayed")
    pacs.wait_for(len(due), 60)
    eventually(
        lambda: {states(gateway, "dicom")[uid(one)] for one in (*due, "sent")} == {"delivered"}
    )
    # The archive was asked about what had been sent, did not know it, and got it.
    assert set(pacs.kept) == {uid(one) for one in (*due, "sent")}
    for name in ("held", "refused", "failed", "withdrawn", "delivered"):
        assert states(gateway, "dicom")[uid(name)] == name
    (later,) = rows(gateway, "SELECT * FROM outbox WHERE item = ?", uid("later"))
    assert (later["state"], later["attempts"], later["priority"]) == ("waiting", 9, 1)
    assert "2.25.1" in {str(one.TransactionUID) for one in pacs.requests}

    eventually(lambda: len(messages) == 2)
    told = states(gateway, "hl7")
    assert [told[report_of(name)] for name in ("waiting", "postponed", "told")] == ["delivered"] * 3
    assert [told[report_of(name)] for name in ("held", "refused", "failed")] == [
        "held",
        "refused",
        "failed",
    ]
    assert CONTROL_ID in messages[0]
    old = "SELECT 1 FROM workflow_status WHERE name IN ('deliver', 'notify', 'tell')"
    assert rows(gateway, old) == []
    errors = "SELECT name FROM workflow_status WHERE status = 'ERROR'"
    assert rows(gateway, errors) == []


def test_what_was_held_or_dead_goes_on_as_ever(there: tuple[Gateway, Pacs, list[str]]) -> None:
    gateway, pacs, messages = there
    gateway.run("release", STUDY)
    eventually(lambda: states(gateway, "dicom")[uid("held")] == "delivered")
    gateway.run("retry", STUDY)
    eventually(
        lambda: (
            {states(gateway, "dicom")[uid(one)] for one in ("refused", "failed")} == {"delivered"}
        )
    )
    eventually(lambda: len(messages) == 5)
    assert uid("withdrawn") not in pacs.kept


def test_the_old_tables_are_gone(old: Path, there: tuple[Gateway, Pacs, list[str]]) -> None:
    with closing(sqlite3.connect(old / "data" / "thoracle.sqlite")) as database:
        names = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
    assert not names & {"delivery", "notification", "workitem_event"}


def test_an_event_report_that_waits_is_tried_again(
    there: tuple[Gateway, Pacs, list[str]],
) -> None:
    gateway, _, _ = there
    statement = "SELECT state, content FROM outbox WHERE kind = 'ups' ORDER BY id"
    tried = "SELECT 1 FROM outbox WHERE kind = 'ups' AND state = 'waiting' AND attempts > 0"
    eventually(lambda: rows(gateway, tried))  # nobody listens there
    found = rows(gateway, statement)
    assert [row["state"] for row in found] == ["delivered", "waiting", "refused"]
    content = json.loads(found[1]["content"])
    assert (content["workitem"], content["event_type_id"]) == (WORKITEM, 1)
    assert content["information"]["00741000"]["Value"] == ["STEP 2"]
