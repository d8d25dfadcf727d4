"""C-FIND as proof: asked of Orthanc, DCMTK and an archive that errs."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid

from associations import delivered
from dcmqrscp import running_dcmqrscp
from orthanc import Orthanc
from pacs import Pacs, free_port, smallest_report, uids_of
from thoracle.deliver.association import Peer
from thoracle.deliver.query import MOST_MATCHES, found
from thoracle.errors import ArchiveRefused, ArchiveUnavailable


def peer(archive: Any, seconds: float = 10) -> Peer:
    return Peer(archive.ae_title, "127.0.0.1", archive.port, "THORACLE", seconds)


def send(archive: Any, folder: Path, *objects: Dataset) -> None:
    path = folder / "stored.dcm"
    for ds in objects:
        ds.save_as(path, enforce_file_format=True)
        delivered(peer(archive), path)


def series(number: int) -> list[Dataset]:
    """Return objects of one series."""
    study, uid = generate_uid(), generate_uid()
    return [smallest_report(StudyInstanceUID=study, SeriesInstanceUID=uid) for _ in range(number)]


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("orthanc"), {"THORACLE": free_port()}) as running:
        yield running


def assert_finds_what_it_has_and_nothing_else(archive: Any, folder: Path) -> None:
    objects = series(3)
    here, absent = objects[:2], objects[2]
    send(archive, folder, *here, *series(2))
    uids = [str(ds.SOPInstanceUID) for ds in objects]
    study, uid = absent.StudyInstanceUID, absent.SeriesInstanceUID
    assert found(peer(archive), study, uid, uids) == set(uids[:2])
    assert found(peer(archive), study, uid, uids[2:]) == set()
    assert found(peer(archive), study, generate_uid(), uids) == set()
    assert found(peer(archive), generate_uid(), uid, uids) == set()


def test_orthanc_finds_what_it_has_and_nothing_else(orthanc: Orthanc, tmp_path: Path) -> None:
    assert_finds_what_it_has_and_nothing_else(orthanc, tmp_path)


def test_dcmqrscp_finds_what_it_has_and_nothing_else(tmp_path: Path) -> None:
    with running_dcmqrscp(tmp_path) as archive:
        assert_finds_what_it_has_and_nothing_else(archive, tmp_path)


def test_an_archive_that_has_no_query_gives_no_answer() -> None:
    with Pacs() as pacs:
        assert found(peer(pacs), "2.25.1", "2.25.2", ["2.25.3"]) is None


def test_an_archive_that_does_not_answer_us_is_asked_again_later() -> None:
    with Pacs(query=True) as pacs:
        pacs.stop()
        with pytest.raises(ArchiveUnavailable, match="not reached"):
            found(peer(pacs), "2.25.1", "2.25.2", ["2.25.3"])


def test_an_archive_that_falls_silent_is_asked_again_later() -> None:
    def silence(_keys: Dataset) -> list[Dataset]:
        time.sleep(3)
        return []

    with Pacs(query=True) as pacs:
        pacs.matches = silence
        with pytest.raises(ArchiveUnavailable, match="PACS did not answer the C-FIND"):
            found(peer(pacs, seconds=1), "2.25.1", "2.25.2", ["2.25.3"])


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (0xA700, ArchiveUnavailable),  # out of resources
        (0x0110, ArchiveUnavailable),  # processing failure
        (0xFE00, ArchiveUnavailable),  # cancelled
        (0xA900, ArchiveRefused),  # identifier does not match SOP Class
        (0xC001, ArchiveRefused),  # unable to process
        (0x0124, ArchiveUnavailable),  # not authorised: somebody can mend it
    ],
)
def test_the_status_of_the_c_find_says_whether_asking_again_helps(
    status: int, error: type[Exception]
) -> None:
    with Pacs(query=True) as pacs:
        pacs.find_status = status
        with pytest.raises(error, match=f"PACS answered the C-FIND with 0x{status:04X}"):
            found(peer(pacs), "2.25.1", "2.25.2", ["2.25.3"])


def test_an_archive_that_accepts_the_context_without_the_service_has_no_query() -> None:
    with Pacs(query=True) as pacs:
        pacs.find_status = 0x0122  # SOP Class not supported
        assert found(peer(pacs), "2.25.1", "2.25.2", ["2.25.3"]) is None


def test_matches_for_what_was_not_asked_are_no_proof() -> None:
    asked, other = series(2)
    study, uid = asked.StudyInstanceUID, asked.SeriesInstanceUID
    elsewhere = uids_of(asked)
    elsewhere.StudyInstanceUID = generate_uid()
    nameless = uids_of(asked)
    del nameless.SOPInstanceUID
    broken = Dataset()
    broken.add_new(0x00080018, "OW", b"\xff")
    with Pacs(query=True) as pacs:
        pacs.matches = lambda _keys: [uids_of(other), elsewhere, nameless, broken]
        assert found(peer(pacs), study, uid, [asked.SOPInstanceUID]) == set()


def test_an_archive_that_heeds_no_key_proves_what_is_among_its_matches() -> None:
    asked, other = series(2)
    without_upper_levels = Dataset()
    without_upper_levels.SOPInstanceUID = asked.SOPInstanceUID
    with Pacs(query=True) as pacs:
        pacs.matches = lambda _keys: [uids_of(other), without_upper_levels, uids_of(other)]
        here = found(
            peer(pacs), asked.StudyInstanceUID, asked.SeriesInstanceUID, [asked.SOPInstanceUID]
        )
    assert here == {asked.SOPInstanceUID}


def test_an_archive_that_sends_everything_it_has_is_stopped() -> None:
    asked, other = series(2)
    sent = 0

    def everything(_keys: Dataset) -> Iterator[Dataset]:
        nonlocal sent
        while sent < 10 * MOST_MATCHES:
            sent += 1
            yield uids_of(other)

    with Pacs(query=True) as pacs:
        pacs.matches = everything
        with pytest.raises(ArchiveRefused, match=f"more than {MOST_MATCHES} matches"):
            found(peer(pacs), asked.StudyInstanceUID, asked.SeriesInstanceUID, ["2.25.1"])
    assert sent < 10 * MOST_MATCHES


def test_a_port_without_dicom_is_not_reached() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        where = Peer("MUTE", "127.0.0.1", mute.getsockname()[1], "THORACLE", 1)
        with pytest.raises(ArchiveUnavailable, match="not reached"):
            found(where, "2.25.1", "2.25.2", ["2.25.3"])
