"""The objects of one result: the structured report always, and what the settings want beside it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset

from thoracle.records import BundleIdentity, Image, Kind, Outcome, Reading, Saliency
from thoracle.report import header, heatmap, keyimage, keyobject, segmentation, softcopy, sr
from thoracle.report.content import Illustration
from thoracle.report.header import Instance
from thoracle.report.regions import regions
from thoracle.settings import Report as ReportSettings


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that is illustrated."""

    image: Image
    saliency: Saliency | None
    """``None`` when the bundle cannot say it; then only a key object can be made."""


def illustrated(settings: ReportSettings) -> frozenset[Outcome]:
    """Return the outcomes of images for which something beside the report is made."""
    wanted = {*settings.sc, *settings.pr, *settings.ko, *settings.seg}
    return frozenset(Outcome(outcome) for outcome in wanted)


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
        By SOP Instance UID. An image without one gets no object but the report.
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
        if picture is not None and picture.saliency is not None:
            objects, illustration = maker.illustrate(source, reading, picture, number)
            made += objects
            illustrations[reading.sop_instance_uid] = illustration
    made += maker.key_objects(pairs, illustrations)
    report = sr.build(
        sources,
        readings,
        bundle,
        content_datetime=content_datetime,
        settings=settings,
        predecessor=predecessor,
        illustrations=illustrations,
    )
    return [(Kind.SR, report), *made]


@dataclass(frozen=True, slots=True)
class _Maker:
    """What all objects of one result have alike."""

    bundle: BundleIdentity
    content_datetime: datetime
    settings: ReportSettings
    context_source: Dataset

    def illustrate(
        self, source: Dataset, reading: Reading, picture: Picture, number: int
    ) -> tuple[list[tuple[Kind, Dataset]], Illustration]:
        """Return the objects that show where the result of one image comes from."""
        assert picture.saliency is not None
        rows, columns = picture.image.array.shape[1:]
        outlines = regions(picture.saliency, rows, columns)
        common: dict[str, Any] = {
            "content_datetime": self.content_datetime,
            "settings": self.settings,
            "instance_number": number,
            "context_source": self.context_source,
        }
        made: dict[Kind, Dataset] = {}
        if reading.outcome in self.settings.sc:
            words = heatmap.caption(reading, self.bundle)
            shown = heatmap.render(picture.image, picture.saliency, outlines, words)
            made[Kind.SC] = keyimage.build(source, shown, reading, self.bundle, **common)
        # A presentation state of this class is for greyscale images; a coloured one has the SC.
        if reading.outcome in self.settings.pr and outlines and softcopy.is_greyscale(source):
            made[Kind.PR] = softcopy.build(source, outlines, reading, self.bundle, **common)
        if reading.outcome in self.settings.seg and outlines:
            made[Kind.SEG] = segmentation.build(source, picture.saliency, self.bundle, **common)
        named = {kind: header.instance(ds) for kind, ds in made.items()}
        return list(made.items()), Illustration(outlines, named.get(Kind.SC), named.get(Kind.PR))

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
