"""R3, a full disk: senders are told to keep their objects, and nothing needs a restart."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pydicom import Dataset

import processes
from aging import age
from gateway import Gateway
from ledger import concluded, eventually, residue, rows
from pacs import Pacs
from purged_folder import consistent
from radiographs import chest, gradient, radiograph
from sender import Answer, send, small
from test_proof import OBJECTS

MEGABYTE = 1_000_000
DISK = 64
"""Size of the disk, megabytes."""
ROOM = 12_000
"""Bytes more on the disk at each attempt of a purge."""
LARGE = 3000
"""Rows and columns of an object of 18 MB."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, in memory, where a gateway's data folder will be."""
    folder = tmp_path / "data"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a disk to fill needs the right to mount one: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled(disk: Path, left: int) -> Iterator[None]:
    """Leave so many bytes free inside the block."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while (free := _free(disk)) > left:
            file.write(bytes(min(free - left, MEGABYTE)))
    yield
    filler.unlink()


def _free(disk: Path) -> int:
    state = os.statvfs(disk)
    return state.f_bavail * state.f_frsize


def large() -> Dataset:
    """An object that does not fit where 10 MB are left."""
    return radiograph(gradient(LARGE, LARGE))


def refused(gateway: Gateway, ds: Dataset, comment: str) -> None:
    """Send an object that has to be refused for want of space, and look for what it left."""
    answer: Answer = send(gateway.port, ds)
    assert answer.status == 0xA700
    assert comment in answer.comment
    assert residue(gateway) == []
    assert gateway.answers()


def test_an_object_that_does_not_fit_is_refused_and_fits_once_there_is_space(disk: Path) -> None:
    ds = large()
    with Pacs() as pacs, Gateway(disk.parent, pacs) as gateway:
        with filled(disk, left=10 * MEGABYTE):
            refused(gateway, ds, "No space left on device")
            assert send(gateway.port, small()).status == 0x0000  # a smaller one still fits
        assert send(gateway.port, ds).status == 0x0000
        pacs.wait_for(2, 180)
        assert gateway.terminate() == 0
    (refusal,) = rows(gateway, "SELECT * FROM audit_event WHERE event = 'instance refused'")
    assert (refusal["status"], refusal["sop_instance_uid"]) == ("0xA700", ds.SOPInstanceUID)


def test_below_the_reserve_objects_are_refused_before_the_disk_is_full(disk: Path) -> None:
    ds = small()
    with Pacs() as pacs, Gateway(disk.parent, pacs, receive={"reserve_megabytes": 20}) as gateway:
        with filled(disk, left=15 * MEGABYTE):
            refused(gateway, ds, "MB free, required 20")
        assert send(gateway.port, ds).status == 0x0000
        pacs.wait_for(1, 180)


def test_with_no_byte_left_the_listener_lives_and_goes_on_without_a_restart(disk: Path) -> None:
    with Pacs() as pacs, Gateway(disk.parent, pacs) as gateway:
        before = small()
        assert send(gateway.port, before).status == 0x0000
        concluded(gateway, before.StudyInstanceUID)
        ds = small()
        with filled(disk, left=0):
            for _ in range(3):
                assert send(gateway.port, ds).status == 0xA700
            assert gateway.answers()
        assert send(gateway.port, ds).status == 0x0000
        pacs.wait_for(2, 180)
        assert residue(gateway) == []


def test_studies_whose_analysis_meets_a_full_disk_are_answered_at_the_latest_after_a_restart(
    disk: Path,
) -> None:
    done = "SELECT 1 FROM analysis WHERE state = 'done'"
    with Pacs() as pacs, Gateway(disk.parent, pacs) as gateway:
        for _ in range(10):
            assert send(gateway.port, small()).status == 0x0000
        eventually(lambda: rows(gateway, done))
        with filled(disk, left=0), suppress(TimeoutError):
            eventually(lambda: len(rows(gateway, done)) == 10, 5)
        # A workflow whose checkpoint met the full disk stops where it is; housekeeping takes it up
        # after some minutes, and so does the next start. Others are not kept waiting.
        later = small()
        assert send(gateway.port, later).status == 0x0000
        eventually(lambda: pacs.reports_on(str(later.StudyInstanceUID)), 120)
        assert gateway.terminate() == 0
        gateway.start()
        pacs.wait_for(11, 180)
        assert len(pacs.kept) == 11


def test_a_purge_that_meets_a_full_disk_loses_neither_image_nor_header(disk: Path) -> None:
    images = [chest() for _ in range(3)]
    with Pacs("ARCHIVE", OBJECTS) as pacs, Gateway(disk.parent, pacs) as gateway:
        for image in images:
            assert send(gateway.port, image).status == 0x0000
        proven = "SELECT 1 FROM outbox WHERE state = 'delivered'"
        eventually(lambda: len(rows(gateway, proven)) == 2 * 3, 120)  # report and picture
        assert gateway.terminate() == 0
        for image in images:
            age(disk, str(image.StudyInstanceUID), 8)
        command = ("retention", "run", "-c", str(gateway.config))
        ended = []
        # It meets the end of the disk at its start, and then ever later.
        for left in range(0, 12 * ROOM, ROOM):
            with filled(disk, left=left):
                done = processes.run(*command)
            ended.append(done.returncode)
            assert "Traceback" not in done.stderr, done.stderr
            if done.returncode:
                assert done.stderr.startswith("thoracle: ")  # one line, whatever had no room
            consistent(disk)
        assert ended[0] != 0
        processes.run(*command, check=True)
        consistent(disk)
        statement = "SELECT file_state FROM instance"
        assert [row["file_state"] for row in rows(gateway, statement)] == ["gone"] * 3
        gateway.start()
        study = str(images[0].StudyInstanceUID)
        gateway.run("withdraw", study, "--reason", "wrong side")
        eventually(
            lambda: len(pacs.reports_on(study)) == 2 + 1
        )  # and the report that takes them back
