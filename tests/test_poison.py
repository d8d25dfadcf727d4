"""R8 and R4 with real files: malformed and foreign objects never stop the gateway or neighbours."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    generate_uid,
)

from gateway import Gateway
from ledger import concluded, eventually, residue, rows
from pacs import Pacs
from radiographs import gradient, lungs, radiograph
from sender import CR_EXPLICIT, Sender, encoded, send
from thoracle.receive.storescp import STATUSES

DATA = Path(os.environ.get("THORACLE_DATA", Path(__file__).parents[2] / "shared" / "data"), "dicom")
ANSWERS = {status.code for status in STATUSES}
PIXEL_DESCRIPTION = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
)
# What the gateway ignores (log.py): these files are full of values that pydicom warns of.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def pacs() -> Iterator[Pacs]:
    """The archive that the gateway delivers to."""
    with Pacs() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, pacs: Pacs) -> Iterator[Gateway]:
    """A gateway that takes as much as it can: Secondary Capture too, and small images."""
    folder = tmp_path_factory.mktemp("poison")
    receive = {"secondary_capture": True}
    with Gateway(folder, pacs, receive=receive, select={"minimum_rows_columns": 64}) as running:
        yield running


@dataclass(frozen=True)
class Foreign:
    """A file of the collection, as a sender that checks nothing would send it."""

    sop_class: str
    sop_instance: str
    syntax: str
    data_set: bytes


@pytest.fixture(scope="module")
def collection() -> list[Path]:
    """The files of the collection."""
    paths = sorted(DATA.rglob("*.dcm"))
    if not paths:
        pytest.skip(f"no DICOM files in {DATA}: set THORACLE_DATA to a folder of them")
    return paths


def read(path: Path) -> Dataset:
    """Return what pydicom makes of a file; an empty data set when it makes nothing of it."""
    try:
        ds: Dataset = dcmread(path, force=True)
    except (OSError, ValueError, AttributeError, NotImplementedError):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
    return ds


def foreign(path: Path) -> Foreign:
    """Return what a file says of itself, with defaults for what it does not say."""
    content = path.read_bytes()
    ds = read(path)
    start = 0
    if content[128:132] == b"DICM":
        start = 144 + int(ds.file_meta.get("FileMetaInformationGroupLength", 0))
    return Foreign(
        str(ds.get("SOPClassUID") or ComputedRadiographyImageStorage),
        str(ds.get("SOPInstanceUID") or generate_uid()),
        str(ds.file_meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian),
        content[start:],
    )


def sent(gateway: Gateway, one: Foreign) -> str:
    """Send an object over an association of its own; return what came of it."""
    with Sender(gateway.port, [*CR_EXPLICIT, (one.sop_class, one.syntax)]) as sender:
        if (one.sop_class, one.syntax) not in sender.accepted:
            return "declined"
        answer = sender.store_bytes(one.data_set, one.sop_class, one.sop_instance, one.syntax)
    assert answer.status in ANSWERS, answer
    return "stored" if answer.status == 0x0000 else f"refused: {answer.comment}"


def radiograph_of(path: Path) -> Foreign | None:
    """Return the pixels of a file as those of a chest radiograph; ``None`` if it has none."""
    ds = read(path)
    syntax = ds.file_meta.get("TransferSyntaxUID")
    if syntax is None or "PixelData" not in ds:
        return None
    chest = radiograph(gradient(64, 64))
    for keyword in PIXEL_DESCRIPTION:
        chest.pop(keyword, None)
        if keyword in ds:
            chest[keyword] = ds[keyword]
    chest.file_meta.TransferSyntaxUID = syntax
    try:
        wire = encoded(chest, UID(syntax))
    except AssertionError:
        return None  # pydicom itself can not write it
    return Foreign(str(chest.SOPClassUID), str(chest.SOPInstanceUID), str(syntax), wire)


def assert_each_stored_study_is_answered(gateway: Gateway, pacs: Pacs) -> None:
    """Wait until every study that is in the store has its report in the archive."""
    studies = {row["study_instance_uid"] for row in rows(gateway, "SELECT * FROM study")}
    try:
        eventually(lambda: studies <= {str(ds.StudyInstanceUID) for ds in pacs.datasets()})
    except TimeoutError:
        missing = studies - {str(ds.StudyInstanceUID) for ds in pacs.datasets()}
        raise AssertionError(f"no report on {missing}") from None
    assert rows(gateway, "SELECT * FROM reading WHERE reason_code = '111218'") == []
    assert gateway.answers()
    assert residue(gateway) == []


def test_a_file_that_kills_the_decoder_is_rejected_and_its_neighbours_are_read(
    gateway: Gateway, pacs: Pacs
) -> None:
    poison, beside, after = (radiograph(lungs()) for _ in range(3))
    beside.StudyInstanceUID = poison.StudyInstanceUID
    poison.compress(JPEGLSLossless, generate_instance_uid=False)
    content = bytearray(poison.PixelData)
    # 84 bits of precision in the JPEG-LS frame header: a codec of 2026 calls abort() for it.
    content[content.index(b"\xff\xd8\xff\xf7") + 6] = 84
    poison.PixelData = bytes(content)
    for ds in (poison, beside, after):
        assert send(gateway.port, ds).status == 0x0000
    assert concluded(gateway, after.StudyInstanceUID)["probability"] is not None
    concluded(gateway, poison.StudyInstanceUID)
    said = {
        row["sop_instance_uid"]: row["reason_code"]
        for row in rows(gateway, "SELECT * FROM reading")
    }
    assert said[poison.SOPInstanceUID] == "UNDECODABLE"
    assert said[beside.SOPInstanceUID] is None
    assert_each_stored_study_is_answered(gateway, pacs)


def test_every_file_is_stored_refused_or_declined_and_every_stored_one_is_answered(
    gateway: Gateway, pacs: Pacs, collection: list[Path]
) -> None:
    outcomes = {path: sent(gateway, foreign(path)) for path in collection}
    print(Counter(text.partition(":")[0] for text in outcomes.values()))
    for path, text in outcomes.items():
        if text.startswith("refused"):
            print(path.name, text)
    assert gateway.answers()
    assert_each_stored_study_is_answered(gateway, pacs)


@pytest.mark.slow
def test_the_pixels_of_every_file_sent_as_a_chest_radiograph_are_read_or_rejected(
    gateway: Gateway, pacs: Pacs, collection: list[Path]
) -> None:
    made = [one for path in collection if (one := radiograph_of(path)) is not None]
    outcomes = Counter(sent(gateway, one).partition(":")[0] for one in made)
    assert outcomes["stored"] > len(made) / 2
    assert_each_stored_study_is_answered(gateway, pacs)
    found = rows(gateway, "SELECT reason_code, count(*) AS number FROM reading GROUP BY 1")
    print(outcomes, {row["reason_code"]: row["number"] for row in found})
