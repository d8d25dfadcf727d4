"""What each object of a result adds to a study, in bytes and milliseconds.

A part of bench.py; alone, `python tests/bench_objects.py` prints its section.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from bench_images import make_images
from thoracle.classify import bundle
from thoracle.classify.classifier import Classifier
from thoracle.image import pixels
from thoracle.image.decoder import Decoder
from thoracle.pipeline.reader import Reader
from thoracle.records import Kind, Outcome
from thoracle.report import header, result_set
from thoracle.report.result_set import Picture
from thoracle.settings import Report, Settings

REPEATS = 5
EVERY: Any = ("positive", "negative")
SETTINGS = {
    Kind.SR: Report(sc=(), pr=(), ko=()),
    Kind.SC: Report(sc=EVERY, pr=(), ko=()),
    Kind.PR: Report(sc=(), pr=EVERY, ko=()),
    Kind.KO: Report(sc=(), pr=(), ko=EVERY),
}
T = TypeVar("T")


def timed(function: Callable[[], T]) -> tuple[T, float]:
    """Return what a function returns, and its median milliseconds."""
    seconds, answer = [], None
    for _ in range(REPEATS):
        started = time.perf_counter()
        answer = function()
        seconds.append(time.perf_counter() - started)
    assert answer is not None
    return answer, statistics.median(seconds) * 1e3


def section(folder: Path) -> list[str]:
    """Return the lines of docs/benchmarks.md about the objects."""
    path = make_images(folder, 1, 1)[0][0]
    source = dcmread(path, stop_before_pixels=True)
    settings = Settings()
    identity = bundle.identify(settings.classify)
    classifier = Classifier.load(settings.classify)
    with Decoder(settings.decode.memory_megabytes, settings.decode.timeout_seconds) as decoder:
        reading = Reader(settings, identity, decoder, lambda: classifier).read(path)
        # So that each object is made, whatever the model says of this chest.
        reading = replace(reading, outcome=Outcome.POSITIVE)
        image, decode = timed(lambda: pixels.read_image(path, decoder))
    saliency, explain = timed(lambda: classifier.explain(image))
    pictures = {reading.sop_instance_uid: Picture(image, saliency)}

    def made(kind: Kind, outcome: Outcome = Outcome.POSITIVE) -> tuple[Dataset, float]:
        objects, milliseconds = timed(
            lambda: dict(
                result_set.build(
                    [source],
                    [replace(reading, outcome=outcome)],
                    pictures if kind is not Kind.SR else {},
                    identity,
                    content_datetime=datetime.now(UTC),
                    settings=SETTINGS[kind],
                )
            )
        )
        return objects[kind], milliseconds

    report, alone = made(Kind.SR)
    lines = [
        f"| image read again | | {decode:.0f} |",
        f"| saliency | | {explain:.0f} |",
        f"| sr | {len(header.encode(report)):,} | {alone:.0f} |",
    ]
    picture = Dataset()
    for kind in (Kind.SC, Kind.PR, Kind.KO):
        ds, milliseconds = made(kind)
        picture = ds if kind is Kind.SC else picture
        lines.append(f"| {kind} | {len(header.encode(ds)):,} | {milliseconds - alone:.0f} |")
    ds, milliseconds = made(Kind.SC, Outcome.NEGATIVE)
    lines.append(f"| sc, negative | {len(header.encode(ds)):,} | {milliseconds - alone:.0f} |")
    return [
        "## Objects of a result",
        "",
        f"One image of {source.Rows} x {source.Columns} pixels. The image is read and explained "
        "once for all objects; a report alone needs neither, the picture of a negative one no "
        "saliency. Writing to the disk is not counted.",
        "",
        "| step or object | bytes | ms |",
        "|---|---|---|",
        *lines,
        "",
        "The Secondary Capture in other transfer syntaxes:",
        "",
        "| transfer syntax | bytes | ms to encode |",
        "|---|---|---|",
        *syntaxes(picture),
        "",
    ]


def syntaxes(picture: Dataset) -> list[str]:
    """Return a row for each transfer syntax without loss."""
    used = picture.file_meta.TransferSyntaxUID
    if used.is_compressed:
        picture.decompress(generate_instance_uid=False)
    native = header.encode(picture)
    rows = [f"| {ExplicitVRLittleEndian.name} | {len(native):,} | |"]
    for syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
        ds, milliseconds = timed(partial(compressed, picture, syntax))
        mark = " (used)" if syntax == used else ""
        rows.append(f"| {syntax.name}{mark} | {len(header.encode(ds)):,} | {milliseconds:.0f} |")
    return rows


def compressed(native: Dataset, syntax: UID) -> Dataset:
    """Return a copy in another transfer syntax; copying takes a few milliseconds of the time."""
    ds = deepcopy(native)
    # GDCM, which pydicom would choose, ends the process on some images.
    plugin = "pylibjpeg" if syntax == RLELossless else ""
    ds.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
    return ds


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="thoracle-bench-") as name:
        print("\n".join(section(Path(name))))
