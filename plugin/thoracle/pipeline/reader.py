"""What images go through: select -> pixels -> classify for each, and report for a study.

The part of the line that ``pipeline/`` runs as durable steps, and ``thoracle analyse`` runs
without a network.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from pydicom import Dataset

from thoracle import __version__
from thoracle.classify import bundle
from thoracle.errors import NotAnalysable, ReportLimits
from thoracle.image import attributes, image_pixel, pixels, selection
from thoracle.image import header as headers
from thoracle.image.attributes import Fault
from thoracle.image.decoder import Decoder
from thoracle.image.features import features
from thoracle.image.header import header_of
from thoracle.pipeline.recent_images import RecentImages, state_of
from thoracle.records import (
    Box,
    BundleIdentity,
    Image,
    Judgement,
    Outcome,
    Reading,
    Reason,
    Saliency,
)
from thoracle.report import result_set
from thoracle.report.header import Instance
from thoracle.report.result_set import Made, Picture
from thoracle.settings import Settings, digests

logger = logging.getLogger(__name__)

UNDER_WAY = 3
"""Images read at a time: one in the decoder's child, one at its look-up table, one classified."""


UNILLUSTRATED = "Heat map, outlines and key objects could not be made."
FROM_RECORDS = (
    "The header of the image could not be copied into this report: patient and study are as they "
    "were recorded when it was received."
)


class ImageClassifier(Protocol):
    """What classify/ gives, said here because importing it takes seconds."""

    def classify(self, image: Image) -> Judgement:
        """Return the calibrated probability; raise NotAnalysable where the gate refuses."""

    def explain(self, image: Image) -> Saliency | None:
        """Return what the probability rests on; ``None`` when the bundle cannot say it."""


@dataclass(frozen=True)
class Reader:
    """Selection, pixels and classification of one image: what ``thoracle analyse`` runs too."""

    settings: Settings
    bundle: BundleIdentity
    decoder: Decoder
    classifier: Callable[[], ImageClassifier]
    """Gives the classifier once it is loaded."""
    build: Callable[..., list[Made]] = result_set.of_files
    """Builds a result: in this process, or in a child with limits (``report/builder.py``)."""
    recent: RecentImages = field(default_factory=RecentImages)
    """For the pictures of a result, which is made right after its images were read."""

    @cached_property
    def made_with(self) -> dict[str, str]:
        """What reads here, beside the bundle: see :class:`Reading`."""
        return {
            "version": __version__,
            "settings_digest": digests.shaping(self.settings),
            "runtime": bundle.described_runtime(bundle.runtime_of(self.settings.classify)),
            "device": "cpu",
        }

    def read(self, path: Path) -> Reading:
        """Return what is said about the image in a DICOM, PNG or JPEG file.

        Never raises for a fault of the image: that is an answer, with a coded reason. A fault of
        ours is one too, because silence would be read as "negative".
        """
        return replace(self._read(path), made_with=self.made_with)

    def _read(self, path: Path) -> Reading:
        seconds: dict[str, float] = {}
        measured: dict[str, float] = {}
        frames = ""
        header = Dataset()
        state = state_of(path)
        try:
            classifier = self.classifier()
            with _timed(seconds, "select"):
                header, faults = headers.read(path)
                limitations = self._select(header, faults)
            with _timed(seconds, "pixels"):
                image = pixels.read_image(path, self.decoder, header)
                measured = _measured(image)
                frames = image.frames_sha256
            with _timed(seconds, "classify"):
                judgement = classifier.classify(image)
        except NotAnalysable as error:
            rejected = _rejected(header, error.reason, error.detail, seconds)
            return replace(rejected, features=measured, frames_sha256=frames)
        except Exception as error:
            logger.exception("image not read")
            detail = f"{type(error).__name__}, see log"
            return _rejected(header, Reason.SOFTWARE_FAILURE, detail, seconds)
        outcome = self.bundle.decision.outcome(judgement.probability)
        if outcome in result_set.illustrated(self.settings.report):
            self.recent.keep(path, state, image, judgement.saliency)
        return Reading(
            sop_class_uid=_uid(header, "SOPClassUID"),
            sop_instance_uid=_uid(header, "SOPInstanceUID"),
            outcome=outcome,
            probability=judgement.probability,
            limitations=(*limitations, *image.limitations, *judgement.limitations),
            seconds=seconds,
            features={**measured, **judgement.features},
            lung_box=judgement.lung_box or _whole(image),
            frames_sha256=frames,
        )

    def read_all(self, paths: Iterable[Path]) -> Iterator[Reading]:
        """Yield what :meth:`read` says of each file, in their order, several being under way.

        Decoder and classifier serve one image at a time; so each works on another one.
        """
        with ThreadPoolExecutor(UNDER_WAY) as threads:
            readings: deque[Future[Reading]] = deque()
            for path in paths:
                readings.append(threads.submit(self.read, path))
                if len(readings) > UNDER_WAY:
                    yield readings.popleft().result()
            while readings:
                yield readings.popleft().result()

    def report(
        self,
        paths: Sequence[Path],
        readings: Sequence[Reading],
        *,
        content_datetime: datetime,
        predecessor: Instance | None = None,
        recorded: Sequence[Mapping[str, str]] = (),
    ) -> list[Made]:
        """Return the objects of the result of one study, the structured report first.

        Parameters
        ----------
        paths, readings
            The images, and what was said of each, in the same order. Those that the settings want
            illustrated are read once more, unless they were read a moment ago: what was shown
            must be what is explained.
        content_datetime
            As for :func:`thoracle.report.sr.build`.
        predecessor
            The report that this one replaces.
        recorded
            As for :func:`thoracle.report.result_set.of_files`.

        Raises
        ------
        ReportError
            The objects cannot be built.
        """
        common: dict[str, Any] = {
            "paths": paths,
            "recorded": recorded,
            "bundle": self.bundle,
            "content_datetime": content_datetime,
            "predecessor": predecessor,
        }
        settings = self.settings.report
        wanted = result_set.illustrated(settings)
        illustrated = any(reading.outcome in wanted for reading in readings)
        if illustrated:
            try:
                pictures = self._pictures(paths, readings, wanted)
                return self.build(readings=readings, pictures=pictures, settings=settings, **common)
            except Exception as error:  # noqa: BLE001 - without pictures is better than none
                _log_fault("result not illustrated", error)
            readings = [
                _limited(one, UNILLUSTRATED) if one.outcome in wanted else one for one in readings
            ]
            settings = settings.model_copy(update=dict.fromkeys(("sc", "pr", "ko"), ()))
        common |= {"pictures": {}, "settings": settings}
        try:
            return self.build(readings=readings, **common)
        except ReportLimits:
            raise
        except Exception as error:
            if not recorded:
                raise
            _log_fault("result without the headers of its images", error)
        told = [_limited(one, FROM_RECORDS) for one in readings]
        return self.build(readings=told, headers=False, **common)

    def _pictures(
        self, paths: Sequence[Path], readings: Sequence[Reading], wanted: frozenset[Outcome]
    ) -> dict[str, Picture]:
        explained = result_set.explained(self.settings.report)
        return {
            reading.sop_instance_uid: self._picture(path, reading.outcome in explained)
            for path, reading in zip(paths, readings, strict=True)
            if reading.outcome in wanted
        }

    def _picture(self, path: Path, explained: bool) -> Picture:
        kept = self.recent.take(path)
        if kept is None:
            image, saliency = pixels.read_image(path, self.decoder, header_of(path)), None
        else:
            image, saliency = kept
        if not explained:
            return Picture(image, None)
        return Picture(image, saliency or self.classifier().explain(image))

    def _select(self, header: Dataset, faults: tuple[Fault, ...]) -> tuple[str, ...]:
        """Return the header's limitations; raise NotAnalysable when it rules the image out."""
        if not header:
            return ("A picture file: body part, view and patient are not stated.",)
        for fault in faults:
            if fault.keyword in image_pixel.ESSENTIAL and not fault.within:
                raise NotAnalysable(Reason.UNDECODABLE, fault.detail)
        meant, settings = self.bundle.finding.population, self.settings.select
        selection.check(header, settings, meant)
        said = selection.limitations(header, settings, meant)
        return (*said, *attributes.sentences(faults))


def _limited(reading: Reading, limitation: str) -> Reading:
    return replace(reading, limitations=(*reading.limitations, limitation))


def _log_fault(what: str, error: Exception) -> None:
    # Without the text, which may quote what a header says.
    logger.error("%s: %s", what, type(error).__name__)


def _measured(image: Image) -> dict[str, float]:
    """Return the image's features, none when they cannot be had: no result depends on them."""
    try:
        return features(image)
    except Exception:
        logger.exception("image not measured")
        return {}


def _uid(ds: Dataset, keyword: str) -> str:
    """Return a UID of an image; none where it cannot be read."""
    try:
        return str(ds.get(keyword, ""))
    except Exception:  # noqa: BLE001 - pydicom raises all kinds for bytes from outside
        return ""


def _rejected(ds: Dataset, reason: Reason, detail: str, seconds: dict[str, float]) -> Reading:
    return Reading(
        sop_class_uid=_uid(ds, "SOPClassUID"),
        sop_instance_uid=_uid(ds, "SOPInstanceUID"),
        outcome=Outcome.REJECTED,
        reason=reason,
        detail=detail,
        seconds=seconds,
    )


def _whole(image: Image) -> Box:
    rows, columns = image.array.shape[1:]
    return Box(0, 0, columns, rows)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = round(time.perf_counter() - started, 4)
