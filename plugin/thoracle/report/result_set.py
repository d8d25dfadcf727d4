"""The objects of one result: the structured report always, and what the settings want beside it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from thoracle.errors import NotAnalysable
from thoracle.image.header import header_of
from thoracle.records import BundleIdentity, Image, Kind, Outcome, Reading, Region, Saliency
from thoracle.report import header, heatmap, keyimage, keyobject, softcopy, sr
from thoracle.report.content import Illustration
from thoracle.report.header import Instance
from thoracle.report.regions import frame, regions
from thoracle.settings import Report as ReportSettings
from thoracle.wording import MAPS


@dataclass(frozen=True, slots=True)
class Made:
    """An object of ours, encoded."""

    kind: Kind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    content: bytes
    """A Part 10 file."""


def encoded(kind: Kind, ds: Dataset) -> Made:
    """Return an object as it is kept and sent; the same bytes each time."""
    return Made(kind, *header.instance(ds), header.encode(ds))


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that is illustrated."""

    image: Image
    saliency: Saliency | None
    """``None`` when it was not asked for (:func:`explained`), or the bundle cannot say it."""


def illustrated(settings: ReportSettings) -> frozenset[Outcome]:
    """Return the outcomes of images that are read again for what is made beside the report."""
    wanted = {Outcome(outcome) for outcome in (*settings.sc, *settings.pr, *settings.ko)}
    return frozenset(wanted - {Outcome.REJECTED})


def explained(settings: ReportSettings) -> frozenset[Outcome]:
    """Return those of :func:`illustrated` that need a saliency: a quiet picture does not."""
    outlined = {Outcome(outcome) for outcome in (*settings.pr, *settings.ko)}
    return illustrated(settings) & (outlined | {Outcome.POSITIVE})


def build(
    sources: Sequence[Dataset],
    readings: Sequence[Reading],
    pictures: Mapping[str, Picture],
    bundle: BundleIdentity,
    *,
    content_datetime: datetime,
    settings: ReportSettings,
    predecessor: Instance | None = None,
) -> list[tuple[Kind, Dataset]]:
    """Return the objects of the result on one study, the structured report first.

    Parameters
    ----------
    sources, readings
        The images without pixel data, and what was said of each, in the same order.
    pictures
        By SOP Instance UID. An analysed image without one gets no object but the report.
    bundle, content_datetime, settings, predecessor
        As for :func:`thoracle.report.sr.build`.

    Raises
    ------
    ReportError
        Sources and readings do not make one report.
    """
    pairs = sorted(zip(sources, readings, strict=True), key=lambda pair: pair[1].sop_instance_uid)
    first = min(sources, key=lambda source: str(source.SOPInstanceUID)) if sources else Dataset()
    maker = _Maker(bundle, content_datetime, settings, first)
    made: list[tuple[Kind, Dataset]] = []
    illustrations: dict[str, Illustration] = {}
    for number, (source, reading) in enumerate(pairs, 1):
        picture = pictures.get(reading.sop_instance_uid)
        objects, illustration = maker.illustrate(source, reading, picture, number)
        made += objects
        illustrations[reading.sop_instance_uid] = illustration
    key_objects = list(maker.key_objects(pairs, illustrations))
    report = sr.build(
        sources,
        readings,
        bundle,
        content_datetime=content_datetime,
        settings=settings,
        predecessor=predecessor,
        illustrations=illustrations,
        key_objects=[header.instance(ds) for _, ds in key_objects],
    )
    return [(Kind.SR, report), *made, *key_objects]


def of_files(
    *,
    paths: Sequence[Path],
    recorded: Sequence[Mapping[str, str]],
    readings: Sequence[Reading],
    headers: bool = True,
    **values: Any,
) -> list[Made]:
    """Return the encoded objects of the result on one study, the structured report first.

    Parameters
    ----------
    paths
        The images.
    recorded
        Attributes of each that were kept when it was received, by keyword, or none at all: they
        stand for a header that cannot be read, so that such an image gets its answer, too.
    readings
        What was said of each, in the same order; where the header could not be read, without UIDs.
    headers
        Whether the headers are read; else what is recorded stands for all of them.
    values
        The rest of the arguments of :func:`build`.

    Raises
    ------
    ReportError
        As :func:`build`.
    """
    known = recorded or [{}] * len(paths)
    sources = [
        _source(path, one) if headers else _recorded(one)
        for path, one in zip(paths, known, strict=True)
    ]
    told = [_of(source, one) for source, one in zip(sources, readings, strict=True)]
    return [encoded(kind, ds) for kind, ds in build(sources, told, **values)]


def _source(path: Path, recorded: Mapping[str, str]) -> Dataset:
    """Return the header of an image, or what is recorded of it."""
    try:
        ds = header_of(path)
        if ds.get("SOPInstanceUID") or not recorded:
            return ds
    except NotAnalysable:
        if not recorded:
            raise
    return _recorded(recorded)


def _recorded(recorded: Mapping[str, str]) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in recorded.items():
        setattr(ds, keyword, value)
    return ds


def _of(source: Dataset, reading: Reading) -> Reading:
    """Return a reading with the UIDs of its image."""
    if reading.sop_instance_uid:
        return reading
    return replace(
        reading,
        sop_class_uid=str(source.get("SOPClassUID", "")),
        sop_instance_uid=str(source.get("SOPInstanceUID", "")),
    )


@dataclass(frozen=True, slots=True)
class _Maker:
    """What all objects of one result have alike."""

    bundle: BundleIdentity
    content_datetime: datetime
    settings: ReportSettings
    context_source: Dataset

    def illustrate(
        self, source: Dataset, reading: Reading, picture: Picture | None, number: int
    ) -> tuple[list[tuple[Kind, Dataset]], Illustration]:
        """Return the objects that show the result of one image and where it comes from."""
        common: dict[str, Any] = {
            "content_datetime": self.content_datetime,
            "settings": self.settings,
            "instance_number": number,
            "context_source": self.context_source,
        }
        outlines = _outlines(picture)
        made: dict[Kind, Dataset] = {}
        if reading.outcome in self.settings.sc:
            shown = self._shown(reading, picture, outlines)
            if shown is not None:
                made[Kind.SC] = keyimage.build(source, shown, reading, self.bundle, **common)
        # A presentation state of this class is for greyscale images; a coloured one has the SC.
        if reading.outcome in self.settings.pr and outlines and softcopy.is_greyscale(source):
            made[Kind.PR] = softcopy.build(source, outlines, reading, self.bundle, **common)
        named = {kind: header.instance(ds) for kind, ds in made.items()}
        return list(made.items()), Illustration(outlines, named.get(Kind.SC), named.get(Kind.PR))

    def _shown(
        self, reading: Reading, picture: Picture | None, outlines: Sequence[Region]
    ) -> NDArray[np.uint8] | None:
        """Return the picture of a result; ``None`` of an analysed image that was not read again."""
        words = heatmap.caption(reading, self.bundle)
        if reading.probability is None:
            return heatmap.card(words)
        if picture is None:
            return None
        looked_at = frame(reading.lung_box, *picture.image.array.shape[1:])
        if reading.outcome is not Outcome.POSITIVE:
            return heatmap.render(picture.image, None, (), words, looked_at)
        kind = self.bundle.finding.saliency
        legend = MAPS[kind].legend if picture.saliency is not None else ""
        return heatmap.render(
            picture.image, picture.saliency, outlines, words, looked_at, legend=legend
        )

    def key_objects(
        self,
        pairs: Sequence[tuple[Dataset, Reading]],
        illustrations: Mapping[str, Illustration],
    ) -> Iterator[tuple[Kind, Dataset]]:
        """Yield the key object selection, when there is an image that it is to name."""
        key = [pair for pair in pairs if pair[1].outcome in self.settings.ko]
        if key:
            shown = [illustrations.get(reading.sop_instance_uid) for _, reading in key]
            yield (
                Kind.KO,
                keyobject.build(
                    [source for source, _ in key],
                    [one.key_image for one in shown if one is not None and one.key_image],
                    [reading for _, reading in key],
                    self.bundle,
                    content_datetime=self.content_datetime,
                    settings=self.settings,
                    context_source=self.context_source,
                ),
            )


def _outlines(picture: Picture | None) -> tuple[Region, ...]:
    if picture is None or picture.saliency is None:
        return ()
    return regions(picture.saliency, *picture.image.array.shape[1:])
