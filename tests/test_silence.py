"""What goes wrong is told: by a coded reason, an alarm, and C-ECHO. Nothing ends in silence."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

import processes
from gateway import AE_TITLE, Gateway
from ledger import concluded, eventually, rows
from pacs import Pacs
from radiographs import chest
from sender import Sender, encoded, send
from thoracle.records import Reason
from thoracle.store import anchors

HELD_BACK = {"name": "dark", "when": "SmallestImagePixelValue > 1", "hold": True}


@pytest.fixture(scope="module")
def archive() -> Pacs:
    """An archive that is not there at first."""
    return Pacs("ARCHIVE")


@pytest.fixture(scope="module")
def gateway(archive: Pacs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(
        tmp_path_factory.mktemp("silence"),
        archive,
        lists={"rule": [HELD_BACK]},
        # So that a test can take a file away before it is read.
        complete={"quiet_after_release_seconds": 3},
        watch={"unreachable_minutes": 0.1},
    ) as running:
        yield running


def alarms(gateway: Gateway) -> dict[str, str]:
    """Return the sentences of the alarms that stand, by subject."""
    found = rows(gateway, "SELECT subject, sentence FROM alarm WHERE level = 'alarm'")
    return {row["subject"]: row["sentence"] for row in found}


def sent(gateway: Gateway, **attributes: object) -> str:
    """Send a study of one image; return its Study Instance UID."""
    study = str(generate_uid())
    assert send(gateway.port, chest(StudyInstanceUID=study, **attributes)).status == 0x0000
    return study


def echo(gateway: Gateway) -> tuple[int, str]:
    """Return status and comment of a C-ECHO."""
    ae = AE(ae_title="ECHO")
    context = [build_context(Verification)]
    assoc = ae.associate("127.0.0.1", gateway.port, context, ae_title=AE_TITLE)
    assert assoc.is_established
    answer: Any = assoc.send_c_echo()
    assoc.release()
    return int(answer.Status), str(answer.get("ErrorComment", ""))


def refused_start(gateway: Gateway) -> str:
    """Return what a start says that is refused."""
    done = processes.run("serve", "--config", str(gateway.config))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def test_a_file_that_is_gone_is_told_as_missing_and_raises_an_alarm(gateway: Gateway) -> None:
    ds = chest()
    study = str(ds.StudyInstanceUID)
    assert send(gateway.port, ds).status == 0x0000
    (row,) = rows(gateway, "SELECT path FROM instance WHERE study_instance_uid = ?", study)
    (gateway.data_folder / row["path"]).unlink()
    statement = "SELECT * FROM audit_event WHERE event = 'analysis failed'"
    (event,) = eventually(lambda: rows(gateway, statement))
    assert event["reason_code"] == Reason.FILE_MISSING.code.value
    assert "the stored file is missing" in event["detail"]
    assert "malformed" not in event["detail"]
    sentence = eventually(lambda: alarms(gateway).get("analysis failed", ""))
    assert study in sentence
    assert "Stored file is missing" in sentence
    assert study in gateway.run("status")
    told = json.loads(gateway.run("status", "--json"))["alarms"]
    assert "analysis failed" in {one["subject"] for one in told}
    # The sender has the only copy now: sent again, it is kept again.
    assert send(gateway.port, ds).status == 0x0000
    gateway.run("reanalyse", study)
    concluded(gateway, study)
    eventually(lambda: "analysis failed" not in alarms(gateway))


def test_a_value_of_wrong_length_holds_the_study_and_stops_nothing_else(
    gateway: Gateway,
) -> None:
    ds = chest(StudyInstanceUID=generate_uid())
    wire = encoded(ds, ExplicitVRLittleEndian)
    place = wire.index(b"\xe0\x7f\x10\x00")
    broken = wire[:place] + b"\x28\x00\x06\x01US\x03\x00abc" + wire[place:]
    with Sender(gateway.port) as sender:
        answer = sender.store_bytes(broken, ds.SOPClassUID, ds.SOPInstanceUID)
    assert answer.status == 0x0000
    concluded(gateway, ds.StudyInstanceUID)
    (row,) = rows(
        gateway, "SELECT * FROM analysis WHERE study_instance_uid = ?", ds.StudyInstanceUID
    )
    assert (row["state"], row["sending"]) == ("done", "held")
    other = sent(gateway, SmallestImagePixelValue=0)
    concluded(gateway, other)


def test_a_destination_out_of_reach_is_an_alarm_that_ends(gateway: Gateway, archive: Pacs) -> None:
    concluded(gateway, sent(gateway, SmallestImagePixelValue=0))
    sentence = eventually(lambda: alarms(gateway).get("destination archive", ""))
    assert "archive has taken nothing since" in sentence
    with archive:
        eventually(lambda: "destination archive" not in alarms(gateway))
    events = rows(gateway, "SELECT event, detail FROM audit_event WHERE event LIKE 'alarm %'")
    told = [row["event"] for row in events if "destination archive" in row["detail"]]
    assert told == ["alarm raised", "alarm ended"]


def test_a_database_that_was_deleted_takes_nothing_more_and_is_not_begun_anew(
    gateway: Gateway,
) -> None:
    """The last of this gateway."""
    assert echo(gateway) == (0x0000, "")
    number = rows(gateway, "SELECT count(*) AS number FROM instance")[0]["number"]
    database = gateway.data_folder / "thoracle.sqlite"
    for path in gateway.data_folder.glob("thoracle.sqlite*"):
        path.unlink()
    for _ in range(2):
        assert send(gateway.port, chest()).status == 0xA700
    eventually(lambda: echo(gateway)[0] == 0x0110, 10)
    assert echo(gateway)[1].startswith("the database: deleted while it was open")
    assert not database.exists()
    rescued = gateway.data_folder / "thoracle-rescued.sqlite"
    eventually(rescued.exists)
    gateway.kill()
    said = refused_start(gateway)
    assert "no database (thoracle.sqlite), but thoracle-rescued.sqlite, a copy of it" in said
    assert "thoracle accept-database --reason TEXT" in said
    assert not database.exists()
    rescued.rename(database)
    gateway.start()
    assert rows(gateway, "SELECT count(*) AS number FROM instance")[0]["number"] == number
    assert list(gateway.data_folder.glob("orphans/*")) == []
    gateway.kill()


def test_a_database_that_is_lost_or_emptied_is_begun_anew_only_by_a_command(
    gateway: Gateway,
) -> None:
    """After the one above, with its data folder."""
    if gateway.process is not None and gateway.process.poll() is None:
        gateway.kill()
    database = gateway.data_folder / "thoracle.sqlite"
    images = len(list(gateway.data_folder.glob("images/*/*")))
    last = anchors.read_anchors(gateway.data_folder / anchors.ANCHORS_FILE)[-1]
    for path in gateway.data_folder.glob("thoracle.sqlite*"):
        path.unlink()
    assert "no database (thoracle.sqlite)" in refused_start(gateway)
    database.touch()
    said = refused_start(gateway)
    assert "an empty file in place of the database" in said
    assert f"{images} files in images" in said
    assert len(list(gateway.data_folder.glob("images/*/*"))) == images
    gateway.run("accept-database", "--reason", "the disk was lost")
    gateway.start()
    (event,) = rows(gateway, "SELECT * FROM audit_event WHERE event = 'database accepted'")
    assert "the disk was lost" in event["detail"]
    assert json.loads(event["detail"])["anchor"] == {"id": last.id, "digest": last.digest}
    assert gateway.terminate() == 0
    assert list(gateway.data_folder.glob("orphans/*"))
