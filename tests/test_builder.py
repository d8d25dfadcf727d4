"""Results are built in a child with limits: what breaks them costs one study, and says why."""

import os
import signal
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from radiographs import chest, saved
from sources import BUNDLE, NOON
from thoracle.errors import ReportError, ReportLimits
from thoracle.image.header import header_of
from thoracle.records import Kind, Outcome, Reading, Reason
from thoracle.report import result_set
from thoracle.report.builder import Builder
from thoracle.settings import Report


@pytest.fixture(scope="module")
def builder() -> Iterator[Builder]:
    with Builder(memory_megabytes=1024, timeout_seconds=60) as builder:
        yield builder


def values(path: Path, **changes: Any) -> dict[str, Any]:
    """Return what is asked for a study of one image that was refused."""
    ds = header_of(path)
    reading = Reading(
        str(ds.SOPClassUID), str(ds.SOPInstanceUID), Outcome.REJECTED, Reason.NOT_CHEST, "a hand"
    )
    return {
        "paths": [path],
        "recorded": (),
        "readings": [reading],
        "pictures": {},
        "bundle": BUNDLE,
        "content_datetime": NOON,
        "settings": Report(),
        "predecessor": None,
        **changes,
    }


def nested(path: Path, levels: int) -> Path:
    """Add sequences of defined length inside each other, which pydicom opens when it copies."""
    value = b""
    for _ in range(levels):
        item = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(value)) + value
        value = struct.pack("<HH", 0x0040, 0x0275) + b"SQ\0\0" + struct.pack("<I", len(item)) + item
    content = path.read_bytes()
    place = content.index(struct.pack("<HH", 0x7FE0, 0x0010))
    path.write_bytes(content[:place] + value + content[place:])
    return path


def test_the_child_makes_the_bytes_that_this_process_makes(
    builder: Builder, tmp_path: Path
) -> None:
    asked = values(saved(chest(), tmp_path / "a.dcm"))
    assert builder.build(**asked) == result_set.of_files(**asked)


def test_a_fault_of_a_report_is_told_and_the_child_goes_on(
    builder: Builder, tmp_path: Path
) -> None:
    asked = values(saved(chest(), tmp_path / "a.dcm"))
    other = Reading("1.2", "1.2.3", Outcome.REJECTED, Reason.NOT_CHEST, "a hand")
    with pytest.raises(ReportError, match="required: one for each source"):
        builder.build(**{**asked, "readings": [other]})
    pid = builder.pid
    assert builder.build(**asked)
    assert builder.pid == pid


def test_a_result_that_takes_too_much_costs_only_itself(tmp_path: Path) -> None:
    good = values(saved(chest(), tmp_path / "good.dcm"))
    deep = nested(saved(chest(), tmp_path / "deep.dcm"), 400)
    with Builder(memory_megabytes=1024, timeout_seconds=10) as builder:
        builder.build(**good)
        try:
            made = builder.build(**values(deep))
        except ReportLimits as error:
            assert "allowed" in str(error)  # noqa: PT017 - either end is right, silence is none
        else:
            assert made[0].kind is Kind.SR
        assert builder.build(**good)


def test_a_result_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    good = saved(chest(), tmp_path / "good.dcm")
    os.mkfifo(tmp_path / "endless")  # nobody writes, so opening it takes forever
    with Builder(memory_megabytes=1024, timeout_seconds=5) as builder:
        builder.start()
        with pytest.raises(ReportLimits, match="took longer than the 5 seconds allowed"):
            builder.build(**values(good, paths=[tmp_path / "endless"]))
        assert builder.build(**values(good))


def test_a_child_that_was_killed_is_replaced(tmp_path: Path) -> None:
    asked = values(saved(chest(), tmp_path / "a.dcm"))
    with Builder(memory_megabytes=1024, timeout_seconds=60) as builder:
        builder.build(**asked)
        pid = builder.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert builder.build(**asked)
        assert builder.pid != pid


def test_an_image_whose_header_cannot_be_read_gets_its_answer_from_what_was_recorded(
    builder: Builder, tmp_path: Path
) -> None:
    ds = chest()
    path = saved(ds, tmp_path / "a.dcm")
    keywords = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    recorded = {name: str(ds[name].value) for name in (*keywords, "PatientID")}
    recorded["PatientName"] = "山田^太郎"
    path.write_bytes(path.read_bytes()[:200])  # as a disk may leave it
    nothing = Reading("", "", Outcome.REJECTED, Reason.UNDECODABLE, "the header cannot be parsed")
    asked = {**values(saved(chest(), tmp_path / "b.dcm")), "paths": [path]}
    asked |= {"readings": [nothing], "recorded": [recorded]}
    (made,) = builder.build(**asked)
    report = dcmread(BytesIO(made.content))
    assert report.StudyInstanceUID == ds.StudyInstanceUID
    assert report.PatientID == ds.PatientID
    assert str(report.PatientName) == "山田^太郎"
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == ds.SOPInstanceUID
