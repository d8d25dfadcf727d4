"""Whatever is acknowledged gets an answer: generated and damaged objects, each through the line.

A short run is part of `make test`; the long one takes `THORACLE_OBJECTS` (100,000) objects. Of each
that the check of the receiver lets through a report must name it, or a limit must be told.
"""

import logging
import os
import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.datadict import keyword_dict
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom.dsutils import create_file_meta

from radiographs import lungs, radiograph
from sender import encoded
from thoracle.classify.classifier import Classifier
from thoracle.errors import NotAnalysable, ReceiveError
from thoracle.image.decoder import Decoder
from thoracle.image.header import header_of
from thoracle.pipeline.reader import Reader
from thoracle.receive import completeness
from thoracle.receive.completeness import Command, Walked
from thoracle.records import Image, Judgement, Kind, Outcome, Saliency
from thoracle.report import header
from thoracle.routing import rank, rules
from thoracle.routing.rules import StudyResult
from thoracle.settings import Classify, Rank, Receive, Report, Rule, Select, Settings

SHORT = 300
LONG = int(os.environ.get("THORACLE_OBJECTS", "100000"))
STUDY = 25
"""Images of a study in the long run."""
NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
PLAIN = Report(sc=(), pr=(), ko=())
SOP_INSTANCE_UID = 0x00080018
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
VRS = "AE AS AT CS DA DS DT FD FL IS LO LT OB OW PN SH SL SQ SS ST TM UI UL UN US UT".split()  # noqa: SIM905 - as a list it would take a line for each
LONG_LENGTH = ("OB", "OW", "SQ", "UN", "UT")
READ = """
SpecificCharacterSet ImageType StudyDate StudyTime AccessionNumber Modality Manufacturer
StudyDescription ProcedureCodeSequence AnatomicRegionSequence ViewCodeSequence PatientName PatientID
IssuerOfPatientID PatientBirthDate PatientSex PatientAge PatientSize PatientWeight BodyPartExamined
ViewPosition ImagerPixelSpacing PixelSpacing PatientOrientation Laterality ImageLaterality
SamplesPerPixel PhotometricInterpretation NumberOfFrames Rows Columns BitsAllocated BitsStored
HighBit PixelRepresentation SmallestImagePixelValue PixelPaddingValue WindowCenter WindowWidth
RescaleIntercept RescaleSlope VOILUTFunction VOILUTSequence ModalityLUTSequence
LossyImageCompression RequestAttributesSequence ContributingEquipmentSequence
TimezoneOffsetFromUTC OtherPatientIDsSequence IssuerOfAccessionNumberSequence PixelAspectRatio
PresentationIntentType PresentationLUTShape InstanceNumber BurnedInAnnotation
""".split()  # noqa: SIM905 - as a list it would take a line for each name
"""Keywords that some stage reads: they are broken most often."""
RULES = (
    Rule(name="number", when="Rows > 9000", hold=True),
    Rule(name="smallest", when="SmallestImagePixelValue > 1", hold=True),
    Rule(name="text", when='PatientName.startsWith("VIP")', hold=True),
    Rule(name="result", when='result.outcome == "positive"', priority="stat"),
)
RANKS = (Rank(name="age", when="PatientAge < 16", head_start_minutes=10),)

Element = tuple[int, str, bytes]
"""Tag, VR, value."""


class Remembering:
    """The bundle's classifier, asked once for each picture."""

    def __init__(self) -> None:
        self._classifier = Classifier.load(Classify(threads=1))
        self._known: dict[int, Judgement | Exception] = {}

    def classify(self, image: Image) -> Judgement:
        key = hash((image.array.shape, image.array.tobytes()))
        if key not in self._known:
            try:
                self._known[key] = self._classifier.classify(image)
            except Exception as error:  # noqa: BLE001 - it is raised again each time
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, Exception):
            raise found
        return found

    def explain(self, image: Image) -> Saliency | None:
        return self._classifier.explain(image)


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """What reads, with one classifier for all."""
    from thoracle.classify import bundle

    classifier = Remembering()
    settings = Settings(select=Select(minimum_rows_columns=64))
    with Decoder(2048, 60) as decoder:
        yield Reader(settings, bundle.identify(Classify()), decoder, lambda: classifier)


# ---- objects ---------------------------------------------------------------------------------


def elements() -> list[Element]:
    """Return a radiograph of 128 x 128 pixels that is analysed, element by element."""
    wire = BytesIO(encoded(radiograph(lungs()[::4, ::4]), ExplicitVRLittleEndian))
    found = []
    while head := wire.read(8):
        group, element, vr = *struct.unpack("<HH", head[:4]), head[4:6].decode()
        length = struct.unpack("<H", head[6:])[0]
        if vr in LONG_LENGTH:
            length = struct.unpack("<I", wire.read(4))[0]
        found.append((group << 16 | element, vr, wire.read(length)))
    return found


BASE = elements()


def written(all_elements: list[Element], syntax: UID) -> bytes:
    """Return a data set as it goes over the wire; lengths may be odd, and values anything."""
    parts = []
    for tag, vr, value in all_elements:
        parts.append(struct.pack("<HH", tag >> 16, tag & 0xFFFF))
        if syntax == ImplicitVRLittleEndian:
            parts.append(struct.pack("<I", len(value)))
        elif vr in LONG_LENGTH:
            parts.append(vr.encode() + b"\0\0" + struct.pack("<I", len(value)))
        else:
            value = value[:65535]
            parts.append(vr.encode() + struct.pack("<H", len(value)))
        parts.append(value)
    content = b"".join(parts)
    if syntax == DeflatedExplicitVRLittleEndian:
        deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
        content = deflater.compress(content) + deflater.flush()
        content += b"\0" * (len(content) % 2)
    return content


def nested(chance: random.Random, syntax: UID) -> bytes:
    """Return the value of a sequence, some levels deep, of defined lengths."""
    value = b""
    for _ in range(chance.choice((1, 2, 5, 20, 60, 90))):
        inner = [(0x0040A730, "SQ", value), (0x00080100, "SH", b"X" * chance.randrange(20))]
        if syntax == DeflatedExplicitVRLittleEndian:
            inner_syntax = ExplicitVRLittleEndian
        else:
            inner_syntax = syntax
        item = written(chance.sample(inner, 2), inner_syntax)
        value = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(item)) + item
    return value


TEXTS = (
    b"", b"\0", b" ", b"abc", b"1,5", b"-", b"nan", b"1e400", b"99999999999999999999", b"\\",
    b"\\\\\\", b"CHEST\\HAND", b"R-10214", b"\xff\xfe\xfd", b"\x1b$B\x1b(B", b"\x1b$)C\xb1\xe8",
    b"ISO 2022 IR 58", b"ISO_IR 999", b"\\ISO 2022 IR 149", b"20209999", b"000Y", b"999Y", b"AP",
    b"\xc3\x28", b"=" * 40, b"^" * 70, b"A" * 300, b"\r\n", b"<b>", b"2.25.1", b"..", b"VIP^X",
)  # fmt: skip


def value_of(chance: random.Random, vr: str, syntax: UID) -> bytes:
    """Return some value: of the right kind, of another, or of no kind."""
    if vr == "SQ" and chance.random() < 0.7:
        return nested(chance, syntax)
    kind = chance.randrange(4)
    if kind == 0:
        return chance.randbytes(chance.choice((0, 1, 2, 3, 4, 6, 7, 8, 9, 16, 40)))
    if kind == 1:
        return struct.pack("<H", chance.choice((0, 1, 2, 8, 12, 16, 32, 64, 512, 65535)))
    return chance.choice(TEXTS)


def mutated(chance: random.Random, uid: str) -> tuple[bytes, UID]:
    """Return a damaged object of this SOP Instance UID, and its transfer syntax."""
    syntax = chance.choice(SYNTAXES)
    value = uid.encode() + b"\0" * (len(uid) % 2)
    found = [(tag, vr, value if tag == SOP_INSTANCE_UID else old) for tag, vr, old in BASE]
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        step = chance.choice((replaced, replaced, replaced, inserted, removed, doubled, swapped))
        found = step(chance, found, syntax)
    if chance.random() < 0.8:
        found.sort(key=lambda one: one[0])
    content = written(found, syntax)
    if chance.random() < 0.15:
        content = flipped(chance, content)
    return content, syntax


def tag_of(chance: random.Random) -> int:
    """Return a tag: mostly one that is read, else one of the dictionary, else a private one."""
    kind = chance.random()
    if kind < 0.8:
        return keyword_dict[chance.choice(READ)]
    if kind < 0.95:
        return chance.choice(list(keyword_dict.values()))
    return chance.choice((0x00090010, 0x00091001, 0x00290010, 0x00291010, 0x00080000))


def replaced(chance: random.Random, found: list[Element], syntax: UID) -> list[Element]:
    tag = tag_of(chance)
    before = [one for one in found if one[0] == tag]
    vr = before[0][1] if before and chance.random() < 0.6 else chance.choice(VRS)
    others = [one for one in found if one[0] != tag]
    return sorted([*others, (tag, vr, value_of(chance, vr, syntax))], key=lambda one: one[0])


def inserted(chance: random.Random, found: list[Element], syntax: UID) -> list[Element]:
    vr = chance.choice(VRS)
    one = (tag_of(chance), vr, value_of(chance, vr, syntax))
    place = chance.randrange(len(found))
    return [*found[:place], one, *found[place:]]


def removed(chance: random.Random, found: list[Element], _syntax: UID) -> list[Element]:
    place = chance.randrange(len(found))
    return found[:place] + found[place + 1 :]


def doubled(chance: random.Random, found: list[Element], _syntax: UID) -> list[Element]:
    place = chance.randrange(len(found) - 1)
    return found[: place + 1] + found[place:]


def swapped(chance: random.Random, found: list[Element], _syntax: UID) -> list[Element]:
    place = chance.randrange(len(found) - 1)
    vr, other = found[place][1], chance.choice(VRS)
    del vr
    tag, _, value = found[place]
    return [*found[:place], (tag, other, value), *found[place + 1 :]]


def flipped(chance: random.Random, content: bytes) -> bytes:
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 2, 8))):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    return bytes(damaged[: chance.choice((len(damaged), len(damaged), chance.randrange(1, 9000)))])


# ---- the line --------------------------------------------------------------------------------


def received(path: Path, content: bytes, syntax: UID, uid: str) -> Walked | None:
    """Write what a sender sent, as the receiver does; return its header, ``None`` if refused."""
    sop_class = ComputedRadiographyImageStorage
    with path.open("wb") as file:
        file.write(b"\0" * 128 + b"DICM")
        meta = create_file_meta(
            sop_class_uid=sop_class, sop_instance_uid=UID(uid), transfer_syntax=syntax
        )
        write_file_meta_info(file, meta)  # type: ignore[arg-type]  # a file will do, as elsewhere
        file.write(content)
    try:
        return completeness.check(path, Command(sop_class, uid, str(syntax)), Receive().budget)
    except ReceiveError:
        return None


def answered(reader: Reader, kept: dict[Path, Walked], ends: Counter[str], *, whole: bool) -> None:
    """Have a study of one patient read, and count its answers; the report names each image.

    Unless the report is wanted as a whole, all but its content is made: the content says nothing
    of what a header may have wrong, but in sentences.
    """
    names = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID")
    recorded = [{name: one.text(name) for name in names} for one in kept.values()]
    readings = [reader.read(path) for path in kept]
    for number, (reading, row) in enumerate(zip(readings, recorded, strict=True)):
        assert (reading.outcome is Outcome.REJECTED) is (reading.reason is not None)
        assert reading.sop_instance_uid in ("", row["SOPInstanceUID"])
        readings[number] = replace(
            reading, sop_class_uid=row["SOPClassUID"], sop_instance_uid=row["SOPInstanceUID"]
        )
        ends[reading.reason.code.value if reading.reason else reading.outcome.value] += 1
    if whole:
        made = reader.report(list(kept), readings, content_datetime=NOON, recorded=recorded)
        assert made[0].kind is Kind.SR
        assert named(made[0].content) >= {row["SOPInstanceUID"] for row in recorded}
    for path, reading, row in zip(kept, readings, recorded, strict=True):
        ds = header_or_none(path)
        if ds is not None and not whole:
            report = header.base(Kind.SR, ds, reader.bundle, NOON, PLAIN)
            header.add_document(report, [ds], None, [])
            finished = header.identified(report, ds, Comprehensive3DSRStorage)
            assert row["SOPInstanceUID"] in named(header.encode(finished))
        routed([] if ds is None else [ds], StudyResult.of([reading], reader.bundle))


def named(content: bytes) -> set[str]:
    """Return the images of which a report is."""
    report = dcmread(BytesIO(content))
    return {
        str(image.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    }


def header_or_none(path: Path) -> Dataset | None:
    """Return the header of an image that has one."""
    with suppress(NotAnalysable):
        return header_of(path)
    return None


def routed(headers: list[Dataset], result: StudyResult) -> None:
    """Decide the rules and ranks: an exception here would fail the test."""
    decision = rules.decide(RULES, (), headers, "SENDER", result)
    undecided = {one.rule for one in decision.failed}
    assert undecided <= {*decision.held_by, "result"}
    rank.head_start(RANKS, headers, result.values())


def sent(
    reader: Reader, folder: Path, chance: random.Random, images: int, *, whole: bool
) -> Counter[str]:
    """Send a study of so many images through; return how many came to which end."""
    ends: Counter[str] = Counter()
    patients: dict[tuple[str, str], dict[Path, Walked]] = {}
    for number in range(images):
        path = folder / f"{number}.dcm"
        content, syntax = mutated(chance, f"1.2.3.{number}")
        walked = received(path, content, syntax, f"1.2.3.{number}")
        if walked is None:
            ends["refused"] += 1
        else:
            # As the pipeline has it: a report for each patient, a study by its UID.
            whose = (walked.text("StudyInstanceUID"), walked.text("PatientID"))
            patients.setdefault(whose, {})[path] = walked
    for kept in patients.values():
        answered(reader, kept, ends, whole=whole)
    return ends


def run(
    reader: Reader, folder: Path, studies: int, images: int, *, whole: float, pictures: float
) -> Counter[str]:
    """Send so many studies through; return how many objects came to which end.

    ``whole`` and ``pictures`` are the shares of studies of which the whole report is made, and of
    these of which the pictures are made, too: they are most of the work.
    """
    ends: Counter[str] = Counter()
    plain = replace(reader, settings=reader.settings.model_copy(update={"report": PLAIN}))

    @hypothesis.settings(
        max_examples=studies,
        deadline=None,
        database=None,
        derandomize=studies * images <= SHORT,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(chance=st.randoms(use_true_random=True))
    def each(chance: random.Random) -> None:
        used = reader if chance.random() < pictures else plain
        ends.update(sent(used, folder, chance, images, whole=chance.random() < whole))

    check: Callable[[], None] = each
    check()
    return ends


# What pydicom finds odd it warns of; the gateway ignores that (log.py).
pytestmark = pytest.mark.filterwarnings("ignore")


def test_each_of_some_hundred_objects_is_refused_or_answered(
    reader: Reader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ends = run(reader, tmp_path, SHORT // 5, 5, whole=1, pictures=0.2)
    print(ends)
    assert ends.total() >= SHORT
    assert ends["refused"] < ends.total() * 0.8, "too few objects are let through to say anything"
    analysed = {outcome.value for outcome in Outcome} - {Outcome.REJECTED.value}
    assert sum(ends[outcome] for outcome in analysed) > ends.total() * 0.2
    assert len(ends) > 4
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
def test_each_of_very_many_objects_is_refused_or_answered(
    reader: Reader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ends = run(reader, tmp_path, LONG // STUDY, STUDY, whole=0.1, pictures=0.2)
    print(ends)
    assert ends.total() >= LONG
    # What could be answered only without its header, or without its pictures.
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []
