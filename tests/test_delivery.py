"""Results reach their archives, whatever the archives do."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage

from gateway import Gateway
from ledger import eventually, rows
from pacs import Pacs
from sender import send, small

DUPLICATE, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0111, 0xA700, 0xC000


class Archives:
    """A gateway with several archives; each test mistreats one and puts it right again."""

    def __init__(self, gateway: Gateway, **archives: Pacs) -> None:
        self.gateway = gateway
        self.named = archives

    def send(self) -> str:
        """Send a new study; return its Study Instance UID."""
        ds = small()
        assert send(self.gateway.port, ds).status == 0x0000
        return str(ds.StudyInstanceUID)

    def delivery(self, study: str, destination: str, state: str) -> dict[str, Any]:
        """Return the delivery of a study's report to a destination once it is in this state."""
        statement = (
            "SELECT outbox.* FROM outbox JOIN result USING (sop_instance_uid) "
            "WHERE study_instance_uid = ? AND peer = ? AND state = ?"
        )
        return eventually(lambda: rows(self.gateway, statement, study, destination, state))[0]

    def events(self, study: str, destination: str) -> list[dict[str, Any]]:
        """Return the audit of the attempts to deliver a study's report to a destination."""
        statement = (
            "SELECT * FROM audit_event WHERE study_instance_uid = ? AND destination = ? ORDER BY id"
        )
        return rows(self.gateway, statement, study, destination)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archives]:
    """A gateway with three archives, one of which takes no Comprehensive 3D SR."""
    plain, other = Pacs("PLAIN"), Pacs("OTHER")
    old = Pacs("OLD", sop_classes=(ComprehensiveSRStorage,))
    with ExitStack() as stack:
        for pacs in (plain, other, old):
            stack.enter_context(pacs)
        gateway = Gateway(tmp_path_factory.mktemp("delivery"), plain, other, old)
        stack.enter_context(gateway)
        yield Archives(gateway, plain=plain, other=other, old=old)


def test_an_archive_without_commitment_and_query_proves_by_its_status(archives: Archives) -> None:
    study = archives.send()
    for name in ("plain", "other", "old"):
        row = archives.delivery(study, name, "delivered")
        assert (row["attempts"], row["status"], row["proof"]) == (1, "0x0000", "status")
        sent, asked, answered, proven = archives.events(study, name)
        assert (sent["event"], sent["proof"]) == ("delivery sent", None)
        assert (asked["event"], answered["event"]) == ("proof requested", "proof answered")
        assert "not offered" in answered["detail"]
        assert (proven["event"], proven["proof"]) == ("delivery succeeded", "status")
    (report,) = archives.named["plain"].reports_on(study)
    assert report.SOPClassUID == Comprehensive3DSRStorage


def test_an_archive_without_comprehensive_3d_sr_gets_comprehensive_sr(archives: Archives) -> None:
    study = archives.send()
    row = archives.delivery(study, "old", "delivered")
    (report,) = archives.named["old"].reports_on(study)
    assert report.SOPClassUID == ComprehensiveSRStorage
    assert report.SOPInstanceUID == row["delivered_sop_instance_uid"] != row["sop_instance_uid"]
    sent, _, _, proven = archives.events(study, "old")
    assert sent["result_sop_instance_uid"] == report.SOPInstanceUID
    assert proven["result_sop_instance_uid"] == report.SOPInstanceUID


def test_an_archive_that_would_choose_another_transfer_syntax_gets_the_bytes_that_are_kept(
    archives: Archives,
) -> None:
    study = archives.send()
    archives.delivery(study, "plain", "delivered")
    statement = "SELECT path FROM result WHERE study_instance_uid = ? AND kind = 'sr'"
    ((path,),) = (tuple(row.values()) for row in rows(archives.gateway, statement, study))
    stored = (archives.gateway.data_folder / path).read_bytes()
    plain = archives.named["plain"]  # of several in one context it chooses Implicit VR
    (report,) = plain.reports_on(study)
    (received,) = plain.kept[report.SOPInstanceUID]
    data_set = received[144 + int.from_bytes(received[140:144], "little") :]
    assert stored.endswith(data_set)
    assert len(data_set) > 4000


def test_an_archive_that_is_away_gets_everything_later_and_delays_no_other(
    archives: Archives,
) -> None:
    away = archives.named["plain"]
    away.stop()
    started = time.monotonic()
    studies = [archives.send() for _ in range(3)]
    for study in studies:
        archives.delivery(study, "other", "delivered")
    undisturbed = time.monotonic() - started
    waiting = [archives.delivery(study, "plain", "waiting") for study in studies]
    assert all(row["attempts"] <= 1 or row["next_attempt_at"] for row in waiting)
    eventually(lambda: all(len(archives.events(study, "plain")) >= 2 for study in studies))
    away.start()
    for study in studies:
        row = archives.delivery(study, "plain", "delivered")
        assert row["attempts"] >= 3
        verbs = [event["event"] for event in archives.events(study, "plain")]
        assert set(verbs[:-4]) == {"delivery postponed"}
        assert verbs[-4:] == [
            "delivery sent",
            "proof requested",
            "proof answered",
            "delivery succeeded",
        ]
        assert len(away.reports_on(study)) == 1
    print(f"the other archive had all reports after {undisturbed:.1f} s")


def test_an_archive_out_of_resources_is_asked_again(archives: Archives) -> None:
    full = archives.named["plain"]
    full.status = OUT_OF_RESOURCES
    study = archives.send()
    eventually(lambda: archives.events(study, "plain"))
    full.status = 0x0000
    row = archives.delivery(study, "plain", "delivered")
    first = archives.events(study, "plain")[0]
    assert row["attempts"] >= 2
    assert first["event"] == "delivery postponed"
    assert "0xA700" in first["detail"]


def test_a_refusal_is_final_and_in_status_and_audit(archives: Archives) -> None:
    archives.named["plain"].status = CANNOT_UNDERSTAND
    study = archives.send()
    row = archives.delivery(study, "plain", "refused")
    archives.named["plain"].status = 0x0000
    assert "0xC000" in row["detail"]
    (event,) = archives.events(study, "plain")
    assert (event["event"], event["event_outcome"]) == ("delivery failed", 8)
    said = archives.gateway.run("status", study)
    assert "plain sr refused" in said
    assert "0xC000" in said


def test_what_was_refused_is_sent_again_when_somebody_asks_for_it(archives: Archives) -> None:
    archives.named["plain"].status = CANNOT_UNDERSTAND
    study = archives.send()
    archives.delivery(study, "plain", "refused")
    archives.named["plain"].status = 0x0000
    assert "1 queued to be sent again" in archives.gateway.run("retry", study)
    row = archives.delivery(study, "plain", "delivered")
    assert row["attempts"] == 2
    (event,) = rows(
        archives.gateway,
        "SELECT * FROM audit_event WHERE event = 'delivery retried' AND study_instance_uid = ?",
        study,
    )
    assert event["user_id"]
    with pytest.raises(CalledProcessError) as caught:
        archives.gateway.run("retry", study)
    assert "found nothing refused or given up" in caught.value.stderr


def test_an_archive_that_has_the_report_already_counts_as_delivered(archives: Archives) -> None:
    archives.named["plain"].status = DUPLICATE
    study = archives.send()
    row = archives.delivery(study, "plain", "delivered")
    archives.named["plain"].status = 0x0000
    assert row["status"] == "0x0111"


def test_what_the_archive_has_is_what_is_kept(archives: Archives) -> None:
    study = archives.send()
    archives.delivery(study, "plain", "delivered")
    (result,) = rows(archives.gateway, "SELECT * FROM result WHERE study_instance_uid = ?", study)
    kept = dcmread(archives.gateway.data_folder / result["path"])
    assert archives.named["plain"].reports_on(study) == [kept]


def test_a_result_that_nobody_takes_is_given_up_and_a_destination_that_is_gone_is_said_so(
    tmp_path: Path,
) -> None:
    gone, dead = Pacs("GONE"), Pacs("DEAD")  # never started
    before = Gateway(tmp_path, gone, dead)
    with before:
        archives = Archives(before)
        study = archives.send()
        for name in ("gone", "dead"):
            eventually(lambda name=name: archives.events(study, name))  # type: ignore[misc]  # bound
        assert before.terminate() == 0
    after = Gateway(tmp_path, dead, deliver={"give_up_days": 1e-5})
    with after:
        archives = Archives(after)
        assert "not reached" in archives.delivery(study, "dead", "failed")["detail"]
        row = archives.delivery(study, "gone", "failed")
        assert row["detail"] == "gone is no longer in the settings"
        for name in ("gone", "dead"):
            assert archives.events(study, name)[-1]["event"] == "delivery failed"
