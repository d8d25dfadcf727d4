"""What stays of an image makes the corrections that the whole image would make, and no more."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, config, dcmread, dcmwrite
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from radiographs import chest
from sources import ARABIC, BUNDLE, COMMON, JAPANESE, KOREAN, NOON, dx, each_source, named
from thoracle.hl7 import oru
from thoracle.hl7.oru import ReportReference
from thoracle.image.header import header_of
from thoracle.report import context, header, keyobject, sr
from thoracle.report.header import Instance
from thoracle.settings import HL7

DATA = Path(os.environ.get("THORACLE_DATA", Path(__file__).parents[2] / "shared" / "data"), "dicom")
REPORT = Instance(Comprehensive3DSRStorage, "2.25.31", "2.25.32")
RIS = HL7(name="ris", host="ris", port=2575, character_set="UNICODE UTF-8")
SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)


def corrections(ds: Dataset) -> list[bytes]:
    """Return all that a withdrawal makes of one image."""
    report = sr.withdrawal([ds], REPORT, "wrong side", BUNDLE, made=NOON, **COMMON)
    note = keyobject.rejection([REPORT], [ds], BUNDLE, **COMMON)
    message = oru.oru(
        ds,
        sr.withdrawn([ds]),
        BUNDLE,
        ReportReference("2.25.33", "2.25.34"),
        RIS,
        sentence="Withdrawn.",
        control_id="1",
        made=NOON,
        status="withdrawn",
    )
    return [header.encode(report), header.encode(note), message]


def saved(ds: Dataset, path: Path, syntax: UID = ExplicitVRLittleEndian) -> Path:
    """Write a data set as it is received, and return its path."""
    ds.file_meta.TransferSyntaxUID = syntax
    encoding = {"implicit_vr": syntax.is_implicit_VR, "little_endian": syntax.is_little_endian}
    dcmwrite(path, ds, enforce_file_format=True, **({} if syntax == JPEG2000Lossless else encoding))
    return path


def kept(path: Path) -> Dataset:
    content = context.extract(path)
    assert content is not None
    assert content == context.extract(path)
    return context.read(content)


@each_source
def test_corrections_have_the_same_bytes(arrive: Callable[[], Dataset], tmp_path: Path) -> None:
    path = saved(arrive(), tmp_path / "image.dcm")
    assert corrections(kept(path)) == corrections(header_of(path))


@pytest.mark.parametrize("language", [JAPANESE, KOREAN, ARABIC], ids=["ja", "ko", "ar"])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_whatever_the_encoding_and_the_character_set(
    syntax: UID, language: Any, tmp_path: Path
) -> None:
    path = saved(named(language), tmp_path / "image.dcm", syntax)
    assert corrections(kept(path)) == corrections(header_of(path))


@pytest.mark.filterwarnings("ignore:.*:UserWarning:pydicom")
def test_of_values_against_the_rules_too(tmp_path: Path) -> None:
    """They are handed on as they came: undeclared letters, a number with blanks, too long texts."""
    ds = named(("ISO_IR 100", "Müller^Jürgen", "Thorax"))
    for keyword, value in {
        "PatientWeight": " 70.50",
        "PatientSize": "1.80 ",
        "PatientComments": "x" * 20000,
        "AccessionNumber": "A" * 64,
        "StudyDate": "2026-01-02",
        "PatientAge": "ninety",
        "TimezoneOffsetFromUTC": "+0200",
        "PlacerOrderNumberImagingServiceRequest": "P-1",
        "IssuerOfAdmissionID": "WARD",
        "AdmissionID": "V-1",
    }.items():
        vr = dictionary_VR(keyword)
        ds[keyword] = DataElement(keyword, vr, value, validation_mode=config.IGNORE)
    path = saved(ds, tmp_path / "image.dcm")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"ISO_IR 100", b"ISO_IR 6  "))
    assert corrections(kept(path)) == corrections(header_of(path))


class Watched(Dataset):
    """A data set that remembers what was asked of it."""

    asked: set[str]

    def get(self, key: Any, default: Any = None) -> Any:
        self.asked.add(str(key))
        return super().get(key, default)

    def __contains__(self, name: Any) -> bool:
        self.asked.add(str(name))
        return super().__contains__(name)

    def __getattr__(self, name: str) -> Any:
        if name[:1].isupper():
            type(self).asked.add(name)
        return super().__getattr__(name)


def test_what_corrections_read_is_what_is_kept() -> None:
    """Who has a correction say more of its images adds it to what is kept."""
    Watched.asked = set()
    for ds in (dx(), dx(RequestAttributesSequence=None, AccessionNumber=None)):
        watched = Watched(ds)
        watched.file_meta = ds.file_meta
        corrections(watched)
    read = {name for name in Watched.asked if name[:1].isupper()}
    assert {"PatientName", "ViewPosition", "FillerOrderNumberImagingServiceRequest"} <= read
    unknown = {"IssuerOfPatientIDSequence", "IssuerOfAdmissionIDQualifiersSequence"}
    assert read - set(context.ATTRIBUTES) <= unknown  # no attributes of DICOM: looked for by rule
    assert len(context.ATTRIBUTES) == len(set(context.ATTRIBUTES))
    assert all(dictionary_VR(name) for name in context.ATTRIBUTES)


def test_nothing_else_is_kept(tmp_path: Path) -> None:
    ds = chest(InstitutionName="St. Elsewhere", OperatorsName="Op", PerformingPhysicianName="Ph")
    block = ds.private_block(0x0011, "ACME", create=True)
    block.add_new(0x01, "OB", bytes(1000))
    ds.add_new(0x60003000, "OW", bytes(1000))
    item = Dataset()
    item.Rows = 1
    ds.IconImageSequence = [item]
    path = saved(ds, tmp_path / "image.dcm")
    content = context.extract(path)
    assert content is not None
    found = context.read(content)
    assert {element.keyword for element in found} <= set(context.ATTRIBUTES)
    assert found.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    for said in (b"St. Elsewhere", b"ACME", b"Op", b"Ph", bytes(1000)):
        assert said not in content.replace(bytes(128), b"", 1)


def test_what_is_no_image_or_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "image.dcm"
    assert context.extract(path) is None
    path.write_bytes(os.urandom(1000))
    assert context.extract(path) is None
    saved(chest(), path)
    path.write_bytes(path.read_bytes()[:160])
    assert context.extract(path) is None


def test_an_image_that_the_disk_does_not_give_is_not_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Is a directory"):
        context.extract(tmp_path)


def real() -> Iterator[Path]:
    yield from (path for path in sorted(DATA.rglob("*")) if path.is_file())


@pytest.mark.filterwarnings("ignore:.*:UserWarning:pydicom")
@pytest.mark.skipif(not DATA.is_dir(), reason="THORACLE_DATA has no folder of DICOM files")
def test_of_real_images_it_is_small_and_says_the_same() -> None:
    sizes = []
    for path in real():
        content = context.extract(path)
        if content is None:
            continue
        ds = dcmread(path, stop_before_pixels=True)
        try:
            wanted = corrections(ds)
        except Exception as error:  # noqa: BLE001 - of such a header there is no result either
            with pytest.raises(type(error)):
                corrections(context.read(content))
            continue
        assert corrections(context.read(content)) == wanted, path.name
        sizes.append(len(content))
    assert len(sizes) > 30
    assert max(sizes) < 4096
