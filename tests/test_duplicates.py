"""What a SOP Instance UID that has been here before is: a repetition, a correction or an error."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.datadict import keyword_dict
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    generate_uid,
)
from sqlalchemy import text

from gateway import Gateway
from ledger import concluded, events, eventually, residue, rows
from radiographs import chest, gradient, radiograph, saved, silent
from sender import Answer, Sender, send, small
from sources import FINDING
from thoracle.image import image_pixel, pixels, selection
from thoracle.image.decoder import Decoder
from thoracle.receive import duplicates
from thoracle.receive.duplicates import Frames
from thoracle.receive.inbox import Inbox
from thoracle.settings import Budget, Receive, Select
from thoracle.store import trail
from thoracle.store.database import open_database, sqlite_url
from thoracle.store.object_files import Objects
from thoracle.study.instances import Received

SUCCESS, CANNOT_UNDERSTAND = 0x0000, 0xC000


def versions(gateway: Gateway, sop_instance_uid: str) -> list[dict[str, Any]]:
    """The rows of an instance, by version."""
    statement = "SELECT * FROM instance WHERE sop_instance_uid = ? ORDER BY version"
    return rows(gateway, statement, sop_instance_uid)


def test_the_same_bytes_again_are_the_same_object(gateway: Gateway) -> None:
    ds = small()
    assert [send(gateway.port, ds).status for _ in range(3)] == [SUCCESS] * 3
    assert len(versions(gateway, ds.SOPInstanceUID)) == 1
    assert len(events(gateway, "instance stored", ds.SOPInstanceUID)) == 1
    assert len(events(gateway, "instance duplicate", ds.SOPInstanceUID)) == 2
    assert residue(gateway) == []


def test_a_corrected_header_is_a_second_version_and_no_second_analysis(gateway: Gateway) -> None:
    ds = small()
    assert send(gateway.port, ds).status == SUCCESS
    concluded(gateway, ds.StudyInstanceUID)
    ds.PatientName = "Doe^Janet"
    assert send(gateway.port, ds).status == SUCCESS
    first, second = versions(gateway, ds.SOPInstanceUID)
    assert (first["version"], second["version"]) == (1, 2)
    assert first["generation"] == second["generation"] == 1
    assert len(events(gateway, "instance corrected", ds.SOPInstanceUID)) == 1
    later = small()  # when its study is complete, the other one's quiet period is over too
    assert send(gateway.port, later).status == SUCCESS
    concluded(gateway, later.StudyInstanceUID)
    statement = "SELECT * FROM analysis WHERE study_instance_uid = ?"
    assert len(rows(gateway, statement, ds.StudyInstanceUID)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"BodyPartExamined": "HAND"},
        {"PixelRepresentation": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_correction_by_which_the_image_is_read_otherwise_is_analysed(
    gateway: Gateway, change: dict[str, Any]
) -> None:
    ds = small()
    assert send(gateway.port, ds).status == SUCCESS
    assert concluded(gateway, ds.StudyInstanceUID)["generation"] == 1
    for keyword, value in change.items():
        setattr(ds, keyword, value)
    assert send(gateway.port, ds).status == SUCCESS
    statement = "SELECT generation FROM analysis WHERE study_instance_uid = ? AND state = 'done'"
    eventually(lambda: len(rows(gateway, statement, ds.StudyInstanceUID)) == 2)
    last = concluded(gateway, ds.StudyInstanceUID)
    assert last["generation"] == 2
    assert (last["reason_code"] == "NOT-CHEST") == ("BodyPartExamined" in change)


def test_what_an_image_is_judged_and_shown_by_is_what_is_compared() -> None:
    asked: set[str] = set()

    class Asked(Dataset):
        """Notes what is asked of it."""

        def __getattr__(self, name: str) -> Any:
            asked.add(name)
            return super().__getattr__(name)

        def __contains__(self, name: Any) -> bool:
            asked.add(str(name))
            return super().__contains__(name)

    for ds in (chest(), silent(PatientAge=None), silent(WindowCenter=2048, WindowWidth=4096)):
        spy = Asked(ds)
        spy.file_meta = ds.file_meta
        image_pixel.complete(spy)
        selection.check(spy, Select(), FINDING.population)
        pixels.radiograph(spy, ds.pixel_array)
    asked = {name for name in asked if name in keyword_dict}
    described = {"Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "BitsAllocated"}
    told = {"LossyImageCompression", "BurnedInAnnotation"}  # in the report; they change no answer
    same = {"SOPClassUID"}
    compared = {*duplicates.READ, *duplicates.DESCRIPTIONS, *duplicates.DATES}
    assert asked - compared == described | told | same


@pytest.mark.parametrize(
    ("before", "after", "alike"),
    [
        ({}, {"PatientName": "Doe^Janet", "StudyDescription": "Hand"}, True),
        ({"BodyPartExamined": None}, {"StudyDescription": "Hand"}, False),
        ({"PatientOrientation": ["P", "F"]}, {"PatientOrientation": ["L", "F"]}, False),
        ({"PatientBirthDate": "20190101"}, {"PatientBirthDate": "19190101"}, False),
        ({"PatientAge": "050Y"}, {"PatientBirthDate": "19190101"}, True),
        ({}, {"Modality": "MG"}, False),
        ({}, {"BitsStored": 12, "HighBit": 11}, False),
    ],
)
def test_corrections_that_change_how_an_image_is_read_are_known(
    before: dict[str, Any], after: dict[str, Any], alike: bool, tmp_path: Path
) -> None:
    ds = small(**before)
    (tmp_path / "images").mkdir()
    saved(ds, tmp_path / "images" / "before.dcm")
    for keyword, value in after.items():
        setattr(ds, keyword, value)
    saved(ds, tmp_path / "images" / "after.dcm")
    frames = Frames(Objects(tmp_path), Decoder(2048, 60), Budget())
    uids = ("1.2.840.1", "1.2.840.2", "1.2.840.3", "1.2.840.4", "1.2.840.10008.1.2.1")
    previous, received = (
        Received(*uids, "P", "", "A", 100, f"images/{name}.dcm", 8, name, "PACS", "127.0.0.1")
        for name in ("before", "after")
    )
    assert frames.read_alike(previous, received) is alike


def test_a_correction_before_the_analysis_is_what_gets_analysed(gateway: Gateway) -> None:
    ds = small()
    with Sender(gateway.port) as sender:
        assert sender.store(ds).status == SUCCESS
        ds.BodyPartExamined = "HAND"
        assert sender.store(ds).status == SUCCESS
    assert concluded(gateway, ds.StudyInstanceUID)["reason_code"] == "NOT-CHEST"


@pytest.mark.parametrize(
    "change",
    [
        {"StudyInstanceUID": generate_uid()},
        {"PixelData": bytes(32 * 32 * 2)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_known_uid_with_another_study_or_picture_is_refused(
    gateway: Gateway, change: dict[str, Any]
) -> None:
    ds = small()
    assert send(gateway.port, ds).status == SUCCESS
    for keyword, value in change.items():
        setattr(ds, keyword, value)
    answer = send(gateway.port, ds)
    assert answer.status == CANNOT_UNDERSTAND
    assert answer.comment.startswith("SOP Instance UID is known with ")
    assert len(versions(gateway, ds.SOPInstanceUID)) == 1
    assert residue(gateway) == []


def test_the_same_object_in_another_transfer_syntax_is_another_version(gateway: Gateway) -> None:
    ds = small()
    assert send(gateway.port, ds).status == SUCCESS
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    assert send(gateway.port, ds).status == SUCCESS
    syntaxes = [row["transfer_syntax_uid"] for row in versions(gateway, ds.SOPInstanceUID)]
    assert syntaxes == [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


def test_other_pixels_in_another_transfer_syntax_are_refused(gateway: Gateway) -> None:
    ds = small()
    assert send(gateway.port, ds).status == SUCCESS
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.PixelData = ds.PixelData[::-1]
    assert send(gateway.port, ds) == Answer(
        CANNOT_UNDERSTAND, "SOP Instance UID is known with other pixels"
    )
    assert len(versions(gateway, ds.SOPInstanceUID)) == 1


def _with_table(frame: bytes) -> bytes:
    return encapsulate([frame], has_bot=True)


def _without_table(frame: bytes) -> bytes:
    return encapsulate([frame], has_bot=False)


def _in_fragments(frame: bytes) -> bytes:
    return encapsulate([frame], fragments_per_frame=2, has_bot=False)


@pytest.mark.parametrize("another", [_without_table, _in_fragments])
def test_the_same_frames_encapsulated_another_way_are_a_correction(
    gateway: Gateway, another: Callable[[bytes], bytes]
) -> None:
    ds = small()
    ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    frame = next(generate_frames(ds.PixelData, number_of_frames=1))
    ds.PixelData = _with_table(frame)
    assert send(gateway.port, ds).status == SUCCESS
    ds.PixelData, ds.PatientName = another(frame), "Test^Corrected"
    assert send(gateway.port, ds).status == SUCCESS
    assert len(versions(gateway, ds.SOPInstanceUID)) == 2


def test_native_frames_with_padding_behind_them_are_a_correction(gateway: Gateway) -> None:
    ds = small()
    assert send(gateway.port, ds).status == SUCCESS
    ds.PixelData += bytes(2)
    assert send(gateway.port, ds).status == SUCCESS


def test_unused_bits_of_the_pixel_cells_are_no_pixels(gateway: Gateway) -> None:
    """An archive takes out the overlay that was kept in them."""
    used = {"BitsStored": 12, "HighBit": 11}
    ds = small(**used)
    values = np.frombuffer(ds.PixelData, "<u2")
    ds.PixelData = (values | 0x8000).tobytes()
    assert send(gateway.port, ds).status == SUCCESS
    ds.PixelData = values.tobytes()
    assert send(gateway.port, ds).status == SUCCESS
    ds.PixelData = (values | 0x0FFF).tobytes()
    assert send(gateway.port, ds).status == CANNOT_UNDERSTAND


def test_the_same_frames_decompressed_are_a_correction(gateway: Gateway) -> None:
    ds = small()
    native = bytes(ds.PixelData)
    ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    assert send(gateway.port, ds).status == SUCCESS
    ds.decompress(generate_instance_uid=False)
    ds.PixelData = native
    assert send(gateway.port, ds).status == SUCCESS
    assert len(versions(gateway, ds.SOPInstanceUID)) == 2


def test_the_same_bytes_under_other_rows_and_columns_are_another_picture(gateway: Gateway) -> None:
    ds = radiograph(gradient(32, 64))
    assert send(gateway.port, ds).status == SUCCESS
    ds.Rows, ds.Columns = ds.Columns, ds.Rows
    assert send(gateway.port, ds).status == CANNOT_UNDERSTAND


def test_frames_are_compared_while_others_can_write(tmp_path: Path) -> None:
    database = open_database(sqlite_url(tmp_path))
    inbox = Inbox(tmp_path, Receive())
    compared: list[str] = []

    class Writing(Frames):
        """Compares as long as it takes another one to write."""

        def same(self, previous: Any, received: Received) -> str | None:
            with database.begin() as other:
                other.execute(text("UPDATE study SET changed_at = changed_at"))
            compared.append(received.sop_instance_uid)
            return None

    frames = Writing(Objects(tmp_path), Decoder(2048, 60), Budget())
    uids = ("1.2.840.1", "1.2.840.2", "1.2.840.3", "1.2.840.4", "1.2.840.10008.1.2.1")
    found = []
    for name in ("First", "Second"):
        content = saved(small(PatientName=name), tmp_path / "sent.dcm").read_bytes()
        with closing(inbox.open()) as file:
            file.append(memoryview(content))
            path = inbox.keep(file)
        image = Received(*uids, "P", "", "A", 100, path, 8, file.sha256, "PACS", "127.0.0.1")
        found.append(duplicates.record(database, inbox, frames, image, time.perf_counter()))
    assert found == [trail.Event.INSTANCE_STORED, trail.Event.INSTANCE_CORRECTED]
    assert compared == [uids[1]]
    database.dispose()


@pytest.mark.parametrize(
    ("attributes", "priority"),
    [({"RequestedProcedurePriority": "STAT"}, 1), ({"StudyPriorityID": "HIGH"}, 1), ({}, 100)],
    ids=["STAT", "HIGH", "none"],
)
def test_a_study_marked_urgent_goes_first(
    gateway: Gateway, attributes: dict[str, str], priority: int
) -> None:
    ds = small(**attributes)
    assert send(gateway.port, ds).status == SUCCESS
    assert concluded(gateway, ds.StudyInstanceUID)["priority"] == priority
