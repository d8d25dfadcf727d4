"""What a machine can do to a gateway: nothing that was acknowledged is lost, and somebody is told.

A full disk has a file of its own (test_disk_full.py), and so have lost power and killed processes.
"""

import json
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from certificates import Authority
from gateway import Gateway, destination
from ledger import concluded, eventually, residue
from pacs import Pacs
from peers import require
from radiographs import chest
from sender import NotAnswered, send
from test_silence import alarms, echo, sent
from thoracle.monitoring import certificates
from thoracle.settings import Settings


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes a disk fail."""
    built = tmp_path_factory.mktemp("faults") / "faults.so"
    source = Path(__file__).parent / "faults.c"
    command = [require("gcc", "g++"), "-shared", "-fPIC", "-O1", "-o", str(built), str(source)]
    subprocess.run([*command, "-ldl"], check=True)
    return built


class Disk:
    """A gateway whose disk has the faults that it is told to have."""

    def __init__(self, folder: Path, library: Path, pacs: Pacs) -> None:
        self.pacs = pacs
        # The quiet period is the default: a fault is to meet studies within it.
        self.gateway = Gateway(folder, pacs, complete={"quiet_after_release_seconds": 2})
        self._told = folder / "faults"
        self._told.mkdir()
        self._environment = {
            "LD_PRELOAD": str(library),
            "THORACLE_FAULTS": str(self._told),
            "THORACLE_FAULTS_BELOW": str(self.gateway.data_folder),
        }

    def start(self) -> None:
        self.gateway.start(seconds=180, **self._environment)

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """Have a fault inside the block."""
        (self._told / name).touch()
        yield
        (self._told / name).unlink()

    def set_clock(self, seconds: int) -> None:
        """Have the clock of the day so many seconds ahead of the right time."""
        changed = self._told / "changed"
        changed.write_text(str(seconds))
        changed.rename(self._told / "clock")


@pytest.fixture
def disk(tmp_path: Path, faults: Path) -> Iterator[Disk]:
    with Pacs() as pacs:
        made = Disk(tmp_path, faults, pacs)
        with ExitStack() as stack:
            stack.push(made.gateway.__exit__)
            made.start()
            yield made


def test_a_file_system_that_turns_read_only_costs_nothing_that_was_acknowledged(
    disk: Disk,
) -> None:
    gateway, pacs = disk.gateway, disk.pacs
    concluded(gateway, sent(gateway))
    under_way = sent(gateway)
    with disk.fault("read-only"):
        answer = send(gateway.port, chest())
        assert (answer.status, "Read-only file system" in answer.comment) == (0xA700, True)
        eventually(lambda: "Read-only file system" in echo(gateway)[1], 30)
        time.sleep(3)  # in which the study under way would be read
    assert eventually(lambda: echo(gateway)[0] == 0, 30)
    assert "Images were refused" in eventually(lambda: alarms(gateway).get("storage", ""), 60)
    after = sent(gateway)
    concluded(gateway, after)
    # What met the fault goes on after some minutes, and at the latest with the next start.
    assert gateway.terminate() == 0
    disk.start()
    concluded(gateway, under_way)
    eventually(lambda: pacs.reports_on(under_way) and pacs.reports_on(after))
    assert residue(gateway) == []


def test_a_disk_that_takes_its_time_costs_time(disk: Disk) -> None:
    gateway, pacs = disk.gateway, disk.pacs
    with disk.fault("slow"):
        studies = [sent(gateway) for _ in range(3)]
        for study in studies:
            concluded(gateway, study)
        eventually(lambda: all(pacs.reports_on(study) for study in studies))
    assert gateway.terminate() == 0


def test_without_descriptors_senders_are_told_and_so_is_the_administrator(tmp_path: Path) -> None:
    with Pacs() as pacs, Gateway(tmp_path, pacs) as gateway:
        assert gateway.process is not None
        pid = gateway.process.pid
        before = sent(gateway)
        concluded(gateway, before)
        usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        # Enough for a connection, and not for the file behind it.
        answers: dict[str, int | None] = {}
        for spare in range(4):
            number = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()) + spare
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (number, usual[1]))
            answers |= dict(_answer(gateway) for _ in range(4))
            if 0xA700 in answers.values():
                break
        assert 0xA700 in answers.values()
        assert set(answers.values()) <= {0xA700, 0x0000, None}
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
        sentence = eventually(lambda: alarms(gateway).get("storage", ""))
        assert "Too many open files" in sentence
        after = sent(gateway)
        concluded(gateway, after)
        acknowledged = {study for study, status in answers.items() if status == 0x0000}
        for study in acknowledged | {before, after}:
            concluded(gateway, study)
            eventually(lambda: pacs.reports_on(study))  # noqa: B023 - called at once
        assert residue(gateway) == []


def _answer(gateway: Gateway) -> tuple[str, int | None]:
    """Send a study; return its UID and the status, ``None`` where there was no answer."""
    study = str(generate_uid())
    try:
        return study, send(gateway.port, chest(StudyInstanceUID=study)).status
    except (OSError, NotAnswered):
        return study, None


def test_a_clock_that_is_set_by_an_hour_delays_no_study_and_is_an_alarm(disk: Disk) -> None:
    gateway, pacs = disk.gateway, disk.pacs
    concluded(gateway, sent(gateway))
    for seconds, word in ((3600, "forward"), (0, "back")):
        under_way = sent(gateway)  # its quiet period has begun
        disk.set_clock(seconds)
        concluded(gateway, under_way, 60)  # not an hour later
        eventually(lambda: pacs.reports_on(under_way))  # noqa: B023 - called at once
        eventually(lambda: word in alarms(gateway).get("clock", ""), 60)  # noqa: B023 - as above
    assert gateway.run("audit", "verify").startswith("OK: ")


def test_a_certificate_that_ends_is_an_alarm_before_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "EVERY_SECONDS", 0.0)
    ends = datetime.now(UTC) + timedelta(seconds=3)
    authority = Authority(tmp_path)
    soon, later = authority.issue("soon", not_after=ends), authority.issue("later")
    tables = [
        {"name": name, "ae_title": "A", "host": "h", "port": 1, "tls": {"ca_file": one}}
        for name, one in (
            ("soon", soon.certificate_file),
            ("later", later.certificate_file),
            ("gone", tmp_path / "gone.pem"),
        )
    ]
    standing = certificates.CertificateAlarms(Settings.model_validate({"destination": tables}))
    (found,) = standing()
    assert found.subject == "certificate destination soon tls.ca_file"
    assert "CN=soon" in found.sentence
    assert f"ends on {ends:%Y-%m-%d %H:%M} UTC" in found.sentence
    eventually(lambda: "has expired" in standing()[0].sentence, 30)


def test_a_certificate_of_one_destination_is_an_alarm_and_stops_no_other(tmp_path: Path) -> None:
    old = Authority(tmp_path).issue("old", not_after=datetime.now(UTC) - timedelta(days=1))
    with Pacs() as pacs, Pacs("SECURE") as secure:
        gateway = Gateway(tmp_path, pacs, destination(secure))
        table = f"[destination.tls]\nca_file = {json.dumps(str(old.certificate_file))}\n"
        gateway.config.write_text(gateway.config.read_text() + table)  # of the last destination
        with gateway:
            study = sent(gateway)
            eventually(lambda: pacs.reports_on(study))
            subject = "certificate destination secure tls.ca_file"
            eventually(lambda: "has expired" in alarms(gateway).get(subject, ""))
