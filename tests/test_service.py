"""The process: how it starts, how it stops, and what it writes down meanwhile."""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from gateway import Gateway
from ledger import concluded, eventually, rows
from pacs import Pacs
from radiographs import gradient, radiograph
from sender import NotAnswered, Sender, encoded, send, small

DRAIN_SECONDS = 60
"""The aim is 10 (R11); a loaded machine may need more, and one that never ends is the fault."""
NAME, PATIENT_ID = "SECRETNAME^X", "SECRETID"


def secret(**attributes: object) -> Dataset:
    """A small radiograph of a patient whose name must not get around."""
    return small(PatientName=NAME, PatientID=PATIENT_ID, OtherPatientIDs=PATIENT_ID, **attributes)


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway after studies, errors, a dead archive and SIGTERM; its process has ended."""
    dead = Pacs("DEAD")  # never started
    with Pacs() as pacs:
        gateway = Gateway(tmp_path_factory.mktemp("service"), pacs, dead)
        gateway.config.write_text('log_level = "DEBUG"\n' + gateway.config.read_text())
        with gateway:
            well = radiograph(gradient(), PatientName=NAME, PatientID=PATIENT_ID)
            assert send(gateway.port, well).status == 0x0000
            provoke_errors(gateway)
            concluded(gateway, well.StudyInstanceUID)
            pacs.wait_for(2, 180)
            postponed = "SELECT 1 FROM audit_event WHERE event = 'delivery postponed'"
            eventually(lambda: rows(gateway, postponed))
            yield gateway


def provoke_errors(gateway: Gateway) -> None:
    """Have each kind of error happen to a patient with a telling name."""
    ds = secret(BodyPartExamined=f"CHEST {PATIENT_ID}"[:16])
    assert send(gateway.port, ds).status == 0x0000
    ds.PatientID = "ANOTHER-" + PATIENT_ID
    assert send(gateway.port, ds).status == 0x0000  # kept, and a person is asked whose it is
    ds.PixelData = bytes(len(ds.PixelData))
    assert send(gateway.port, ds).status == 0xC000
    whole = encoded(secret(), ExplicitVRLittleEndian)
    bad_vr = whole.replace(b"\x10\x00\x20\x00LO", b"\x10\x00\x20\x00FD")
    bad_set = whole.replace(b"\x08\x00\x08\x00CS", b"\x08\x00\x05\x00CS")
    for hostile in (whole[:-10], bad_vr, bad_set, whole[:300]):
        with Sender(gateway.port) as sender:
            assert sender.store_bytes(hostile, sop_instance="2.25.77").status >= 0xA700
    with pytest.raises(NotAnswered), Sender(gateway.port) as sender:
        sender.store_bytes(whole, sop_instance="")


def test_sigterm_drains_and_ends_with_exit_code_0(busy: Gateway) -> None:
    assert busy.process is not None
    with Sender(busy.port) as idle:
        assert idle.store(secret()).status == 0x0000
        started = time.monotonic()
        assert busy.terminate() == 0
        seconds = time.monotonic() - started
    print(f"ended after {seconds:.1f} s")
    assert seconds <= DRAIN_SECONDS
    (row,) = rows(busy, "SELECT * FROM audit_event WHERE event = 'application stopped'")
    assert row["event_outcome"] == 0


def test_nothing_in_the_log_is_a_traceback(busy: Gateway) -> None:
    lines = [json.loads(line) for line in busy.log.read_text().splitlines()]
    assert [line for line in lines if "exception" in line] == []


def test_every_line_of_the_log_is_json(busy: Gateway) -> None:
    for line in busy.log.read_text().splitlines():
        assert {"time", "level", "logger", "message"} <= set(json.loads(line))


def test_the_log_names_no_patient_not_even_for_errors(busy: Gateway) -> None:
    log = busy.log.read_text().upper()
    assert "REFUSED WITH" in log
    assert "SECRET" not in log


def test_no_table_of_the_engine_holds_a_pickle(busy: Gateway) -> None:
    ours = {"study", "instance", "analysis", "reading", "result", "delivery", "audit_event"}
    checked = 0
    with closing(sqlite3.connect(busy.data_folder / "thoracle.sqlite")) as database:
        tables = [
            name
            for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if name not in ours
        ]
        for table in tables:
            for row in database.execute(f'SELECT * FROM "{table}"'):  # names from the schema
                for value in row:
                    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
                    # Protocol 2 and later begin with \x80; in Base64 that is gA.
                    assert not text.startswith(("\x80", "gASV", "gAJ", "gAN", "gAR")), table
                    checked += 1
    assert checked > 100


def test_a_second_process_on_the_same_data_folder_is_refused(gateway: Gateway) -> None:
    command = [sys.executable, "-m", "thoracle", "serve", "--config", str(gateway.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "found another Thoracle process at work" in done.stderr
    assert "Traceback" not in done.stderr
    assert gateway.answers()


def test_a_data_folder_that_others_can_read_is_closed_to_them_with_a_word(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    gateway.data_folder.mkdir()
    gateway.data_folder.chmod(0o755)
    with gateway:
        assert gateway.data_folder.stat().st_mode & 0o777 == 0o700
    said = f"data_folder: found permissions 0755 on {gateway.data_folder}"
    assert f"{said}: others could read patient data; they are now 0700" in gateway.log.read_text()


AS_NOBODY = """
import logging, os, sys
from pathlib import Path
from thoracle.store import files
logging.basicConfig(level="WARNING", format="%(message)s")
os.setuid(65534)
files.keep_private(Path(sys.argv[1]))
"""


def as_nobody(folder: Path) -> subprocess.CompletedProcess[str]:
    """Have a user who does not own a folder look after it."""
    command = [sys.executable, "-c", AS_NOBODY, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_data_folder_of_another_user_is_refused_when_everybody_can_enter_it() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        refused = as_nobody(folder)
        assert refused.returncode == 1
        assert f"found permissions 0755 on {folder}, required: 0700, or 0770" in refused.stderr
        folder.chmod(0o770)
        taken = as_nobody(folder)
        assert taken.returncode == 0
        assert f"found permissions 0770 on {folder}: its group can read" in taken.stderr


def test_a_port_in_use_ends_in_one_line_and_exit_code_1(tmp_path: Path) -> None:
    with Pacs() as other:
        gateway = Gateway(tmp_path, receive={"port": other.port})
        done = subprocess.run(
            [sys.executable, "-m", "thoracle", "serve", "--config", str(gateway.config)],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert f"127.0.0.1:{other.port}: Address already in use, required: a free" in done.stderr
    assert "Traceback" not in done.stderr
