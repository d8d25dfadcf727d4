"""Work that waits in a database of the last release is sent by this one."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOS
from sqlalchemy import text

from gateway import Gateway
from ledger import eventually, rows
from pacs import Pacs, free_port, smallest_report
from radiographs import chest
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
    "segmentation": {"state": "waiting"},  # a kind that is made no more
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
READ = ("planned", "reanalysed", "begun", "routed")
"""Studies of which the image was received, and a kill interrupted what came then."""
DIGEST = "d"
WORKFLOWS = {"queued": "ENQUEUED", "running": "PENDING", "delayed": "DELAYED", "later": "DELAYED"}
ROUTING: dict[str, Any] = {
    "fired": [],
    "failed": [],
    "waiting": [],
    "kinds": {"pacs": ["sr", "sc", "pr", "ko", "seg"]},
    "originals": [],
    "notify": ["ris", "ups"],
    "images": [],
    "sender": [],
    "priority": None,
    "held_by": [],
    "shadowed_by": [],
    "head_start": [0, ""],
}
"""What the rules said of a study, as the last release wrote it down."""


def uid(name: str) -> str:
    """Return the SOP Instance UID of an object of the old database."""
    return f"{STUDY}.{list(OBJECTS).index(name) + 1}"


def report_of(name: str) -> str:
    """Return the SOP Instance UID of the report that a message is about."""
    return f"{STUDY}.9{list(MESSAGES).index(name)}"


def study_of(name: str) -> str:
    """Return the Study Instance UID of what a kill interrupted."""
    return f"{STUDY}.8{READ.index(name)}"


def insert(connection: Any, table: str, **values: object) -> None:
    """Insert a row with the columns that an old table had."""
    columns, places = ", ".join(values), ", ".join(f":{name}" for name in values)
    connection.execute(text(f"INSERT INTO {table} ({columns}) VALUES ({places})"), values)


def report(data: Path, sop_instance_uid: str, study: str = STUDY) -> dict[str, str]:
    """Write an object, and return what the database says of it."""
    below = f"results/{sop_instance_uid}.dcm"
    (data / below).parent.mkdir(exist_ok=True)
    ds = smallest_report(StudyInstanceUID=study, SOPInstanceUID=sop_instance_uid)
    ds.save_as(data / below, enforce_file_format=True)
    return {
        "sop_instance_uid": sop_instance_uid,
        "sop_class_uid": ds.SOPClassUID,
        "series_instance_uid": ds.SeriesInstanceUID,
        "kind": "sr",
        "path": below,
        "sha256": "0",
    }


def result(connection: Any, data: Path, sop_instance_uid: str, kind: str = "sr") -> None:
    """Write an object, and its row."""
    insert(
        connection,
        "result",
        **{**report(data, sop_instance_uid), "kind": kind},
        study_instance_uid=STUDY,
        generation=1,
        bundle_digest=DIGEST,
        created_at=SOON,
    )


def received(connection: Any, data: Path, study: str) -> str:
    """Write an image that is planned to be read, with its rows; return its path."""
    ds = chest(StudyInstanceUID=study, SOPInstanceUID=f"{study}.1")
    below = f"images/{study[-2:]}/{study}.dcm"
    (data / below).parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(data / below, enforce_file_format=True)
    moments = {"changed_at": SOON, "first_received_at": SOON}
    insert(connection, "study", study_instance_uid=study, generation=1, **moments)
    insert(
        connection,
        "instance",
        sop_instance_uid=ds.SOPInstanceUID,
        version=1,
        sop_class_uid=ds.SOPClassUID,
        study_instance_uid=study,
        series_instance_uid=ds.SeriesInstanceUID,
        transfer_syntax_uid=ds.file_meta.TransferSyntaxUID,
        patient_id=ds.PatientID,
        priority=100,
        path=below,
        size=(data / below).stat().st_size,
        sha256="0",
        received_at=SOON,
        generation=1,
    )
    insert(
        connection,
        "analysis",
        study_instance_uid=study,
        generation=1,
        bundle_digest=DIGEST,
        state="planned",
        priority=100,
        content_datetime=SOON,
    )
    insert(
        connection,
        "worklist",
        study_instance_uid=study,
        search="",
        received_at=SOON,
        ai_state="queued",
        urgency=1,
        head_start_minutes=0,
        sort_key=SOON,
        changed_at=SOON,
    )
    return below


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a gateway whose data folder the last release wrote."""
    folder = tmp_path_factory.mktemp("old")
    data = folder / "data"
    data.mkdir()
    before_the_chain = at_revision(data, "0007")  # rows of the trail are chained by what follows
    with before_the_chain.begin() as connection:
        insert(
            connection,
            "audit_event",
            recorded_at=SOON,
            event="application started",
            event_id="110100",
            action="E",
            event_outcome=0,
            detail="{}",
        )
    before_the_chain.dispose()
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
            bundle_digest=DIGEST,
            state="done",
            priority=1,
            content_datetime=SOON,
            outcome="positive",
            finished_at=SOON,
            sending="held",
            routing=json.dumps({**ROUTING, "held_by": ["all"]}),
        )
        for name, columns in OBJECTS.items():
            result(connection, data, uid(name), "seg" if name == "segmentation" else "sr")
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
        paths = {name: received(connection, data, study_of(name)) for name in READ}
    engine.start(database, Deliver())
    engine.stop(5)
    DBOS.destroy()
    with database.begin() as connection:
        interrupted(connection, data, paths)
        for name, status in WORKFLOWS.items():
            work(connection, f"deliver:pacs:{uid(name)}:1", "deliver", "pacs", status)
        work(connection, "tell:2:1", "tell", "STATION", "ENQUEUED")
        work(connection, f"notify:ris:{report_of('waiting')}:1", "notify", "ris", "ENQUEUED")
    database.dispose()
    return folder


def interrupted(connection: Any, data: Path, paths: dict[str, str]) -> None:
    """Insert workflows that a kill interrupted, each with the steps that it had done."""
    plans = {name: {"generation": 1, "priority": 100, "sources": [paths[name]]} for name in READ}
    again = {"deliveries": [["pacs", uid("new"), 1]], "notifications": []}
    sent = {"deliveries": [["pacs", uid("new")]], "notifications": [], "told": [["STATION", 2]]}
    begun = {
        name: {
            "digest": DIGEST,
            "sources": [paths[name]],
            "predecessor": None,
            "content_datetime": SOON,
        }
        for name in READ
    }
    reading: dict[str, Any] = {
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1",
        "sop_instance_uid": f"{study_of('routed')}.1",
        "outcome": "positive",
        "reason": None,
        "detail": None,
        "probability": 0.9,
        "limitations": [],
        "seconds": {"select": 0.1, "pixels": 0.1, "classify": 0.1},
        "features": {},
        "made_with": {},
    }
    made = report(data, f"{study_of('routed')}.2", study_of("routed"))
    until = {"_begin": begun["routed"], "read": reading, "report": [made], "route": ROUTING}
    planned, reanalysed = study_of("planned"), study_of("reanalysed")
    pending(connection, "study_complete", [planned], {"plan": plans["planned"]})
    pending(connection, "study_complete", [STUDY], {"plan": None})
    pending(connection, "reanalyse", [reanalysed, "somebody"], {"plan": plans["reanalysed"]})
    for name, steps in (("begun", {"_begin": begun["begun"]}), ("routed", until)):
        pending(connection, "analyse", [study_of(name), DIGEST, 1, 100], steps)
    pending(connection, "retry", [STUDY, "somebody"], {"retried": again})
    pending(connection, "release", [STUDY, "somebody"], {"_release": sent})


def pending(connection: Any, name: str, arguments: list[Any], steps: dict[str, Any]) -> None:
    """Insert a workflow that was under way, with what its first steps had returned."""
    workflow_id = ":".join(map(str, [name, *arguments[:3], "before"][:4]))
    insert(
        connection,
        "workflow_status",
        workflow_uuid=workflow_id,
        status="PENDING",
        name=name,
        executor_id="local",
        application_version=engine.APPLICATION_VERSION,
        queue_name="analyse" if name == "analyse" else "intake",
        serialization="portable_json",
        inputs=json.dumps({"positionalArgs": arguments, "namedArgs": {}}),
    )
    for number, (step, output) in enumerate(steps.items(), 1):
        said = {"output": json.dumps(output), "serialization": "portable_json"}
        insert(
            connection,
            "operation_outputs",
            workflow_uuid=workflow_id,
            function_id=number,
            function_name=step,
            **said,
        )
        if step.lstrip("_") in ("plan", "begin", "retried", "release"):
            insert(
                connection, "datasource_outputs", workflow_id=workflow_id, step_id=number, **said
            )


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


@pytest.fixture(scope="module")
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
    due = ("new", "queued", "running", "delayed", "segmentation")
    eventually(lambda: set(pacs.kept) >= {uid(one) for one in due})
    eventually(
        lambda: {states(gateway, "dicom")[uid(one)] for one in (*due, "sent")} == {"delivered"}
    )
    # The archive was asked about what had been sent, did not know it, and got it.
    of_study = {one for one in pacs.kept if one in set(map(uid, OBJECTS))}
    assert of_study == {uid(one) for one in (*due, "sent")}
    for name in ("held", "refused", "failed", "withdrawn", "delivered"):
        assert states(gateway, "dicom")[uid(name)] == name
    (later,) = rows(gateway, "SELECT * FROM outbox WHERE item = ?", uid("later"))
    assert (later["state"], later["attempts"], later["priority"]) == ("waiting", 9, 1)
    assert "2.25.1" in {str(one.TransactionUID) for one in pacs.requests}

    about = [report_of(name) for name in MESSAGES]
    eventually(lambda: [states(gateway, "hl7")[one] for one in about].count("delivered") == 3)
    told = states(gateway, "hl7")
    assert [told[report_of(name)] for name in ("waiting", "postponed", "told")] == ["delivered"] * 3
    assert [told[report_of(name)] for name in ("held", "refused", "failed")] == [
        "held",
        "refused",
        "failed",
    ]
    assert any(CONTROL_ID in one for one in messages)
    old = "SELECT 1 FROM workflow_status WHERE name IN ('deliver', 'notify', 'tell')"
    assert rows(gateway, old) == []
    errors = "SELECT name FROM workflow_status WHERE status = 'ERROR'"
    assert rows(gateway, errors) == []


def test_what_a_kill_interrupted_goes_on_where_it_was(
    there: tuple[Gateway, Pacs, list[str]],
) -> None:
    gateway, pacs, _ = there
    statement = "SELECT study_instance_uid, ai_state FROM worklist WHERE study_instance_uid != ?"
    answers = ("positive", "negative", "indeterminate")
    eventually(
        lambda: (
            [row["ai_state"] in answers for row in rows(gateway, statement, STUDY)]
            == [True] * len(READ)
        )
    )
    reports = "SELECT * FROM result WHERE kind = 'sr' AND study_instance_uid != ?"
    found = rows(gateway, reports, STUDY)
    assert sorted(one["study_instance_uid"] for one in found) == sorted(map(study_of, READ))
    eventually(lambda: all(len(pacs.kept.get(one["sop_instance_uid"], ())) == 1 for one in found))
    under_way = "SELECT name, status FROM workflow_status WHERE status IN ('ERROR', 'PENDING')"
    eventually(lambda: rows(gateway, under_way) == [])


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


def test_what_was_held_or_dead_goes_on_as_ever(there: tuple[Gateway, Pacs, list[str]]) -> None:
    """Last, because it changes what the others look at."""
    gateway, pacs, _ = there
    gateway.run("release", STUDY)
    eventually(lambda: states(gateway, "dicom")[uid("held")] == "delivered")
    gateway.run("retry", STUDY)
    eventually(
        lambda: (
            {states(gateway, "dicom")[uid(one)] for one in ("refused", "failed")} == {"delivered"}
        )
    )
    about = [report_of(name) for name in ("held", "refused", "failed")]
    eventually(lambda: {states(gateway, "hl7")[one] for one in about} == {"delivered"})
    assert uid("withdrawn") not in pacs.kept
