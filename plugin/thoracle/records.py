"""The values handed from stage to stage: frozen, with shapes, units and ranges.

Nothing here imports a library of DICOM or of tensors, so every stage can use it at no cost. Limits
in types are checked where values come from outside (classify/finding.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Annotated, Any, NamedTuple

import numpy as np
from annotated_types import Interval, Len
from numpy.typing import NDArray

SCHEME = "99THORACLE"
"""Coding Scheme Designator of our own codes; "99" marks a private scheme (PS3.3 Section 8.2)."""


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept (PS3.3 Section 8.8)."""

    value: Annotated[str, Len(1, 16)]
    """Code Value, at most 16 characters."""
    scheme: Annotated[str, Len(1, 16)]
    """Coding Scheme Designator."""
    meaning: Annotated[str, Len(1, 64)]
    """Code Meaning, at most 64 characters."""


class Outcome(StrEnum):
    """What is said about an image, and about a study."""

    POSITIVE = "positive"
    """The calibrated probability is at or above the upper end of the indeterminate band."""
    NEGATIVE = "negative"
    """The calibrated probability is below the lower end of the indeterminate band."""
    INDETERMINATE = "indeterminate"
    """Between the two: the model is not confident, and says so."""
    REJECTED = "rejected"
    """Not analysed, for a coded reason. Never to be read as negative."""


class Reason(Enum):
    """Why an image was rejected: the closed set of coded reasons.

    DCM codes are from CID 6041 and CID 6135 (PS3.16); the rest are ours because no standard
    code says "this is a lateral".
    """

    NOT_A_RADIOGRAPH = Code("NOT-RADIOGRAPH", SCHEME, "Not a digital radiograph")
    NOT_CHEST = Code("NOT-CHEST", SCHEME, "Body part is not the chest")
    NOT_FRONTAL = Code("NOT-FRONTAL", SCHEME, "View is not frontal")
    OTHER_VIEW = Code("OTHER-VIEW", SCHEME, "Frontal view that the model is not meant for")
    NOT_UPRIGHT = Code("NOT-UPRIGHT", SCHEME, "Image is turned or upside down")
    INVERTED = Code("INVERTED", SCHEME, "Grey scale is inverted")
    INCOMPLETE = Code("INCOMPLETE", SCHEME, "Lungs are not wholly in the image")
    NOT_LIKE_KNOWN = Code("NOT-LIKE-KNOWN", SCHEME, "Not recognised as a frontal chest radiograph")
    FOR_PROCESSING = Code("FOR-PROCESSING", SCHEME, "Raw data, not for presentation")
    DERIVED = Code("DERIVED", SCHEME, "Derived image, not a plain radiograph")
    OWN_OUTPUT = Code("OWN-OUTPUT", SCHEME, "Made by Thoracle itself")
    TOO_YOUNG = Code("TOO-YOUNG", SCHEME, "Patient younger than the model's limit")
    GEOMETRY = Code("GEOMETRY", SCHEME, "Image size or shape not suitable")
    FLAT = Code("FLAT", SCHEME, "Image without contrast")
    NO_IMAGE = Code("111213", "DCM", "No image")
    UNDECODABLE = Code("UNDECODABLE", SCHEME, "Pixel data cannot be decoded")
    SOFTWARE_FAILURE = Code("111218", "DCM", "Software failure")
    FILE_MISSING = Code("FILE-MISSING", SCHEME, "Stored file is missing")
    RESULT_LIMITS = Code("RESULT-LIMITS", SCHEME, "Building the result exceeded its limits")
    WITHDRAWN = Code("WITHDRAWN", SCHEME, "Result withdrawn")

    @property
    def code(self) -> Code:
        """The coded concept."""
        return self.value

    @classmethod
    def from_code_value(cls, value: str) -> "Reason":
        """Return the reason with this Code Value; ``KeyError`` when there is none."""
        return {reason.code.value: reason for reason in cls}[value]


@dataclass(frozen=True, slots=True)
class Image:
    """A radiograph as the bundle's transforms take it (PS3.4 Section N.2 applied)."""

    array: NDArray[np.float32]
    """``(1, rows, columns)``, 0 to 1; bright is dense, whatever the photometric interpretation."""
    limitations: tuple[str, ...] = ()
    """Sentences about the image that belong into the report, e.g. lossy compression."""
    frames_sha256: str = ""
    """Of its decoded frames (image/decoder.py); empty when it was not decoded from a file."""


class Box(NamedTuple):
    """A rectangle in an image, in pixels of it; its top left corner is (0, 0), as in a region."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Saliency:
    """Where the network sees opacities on a radiograph.

    It learned that from boxes that radiologists drew. A network of another maker may give
    something else, or none.
    """

    contributions: NDArray[np.float32]
    """``(rows, columns)`` on a grid of its own, stretched over the whole radiograph: the share of
    each place that is inside a box around an opacity, as the network sees it, 0 to 1; zero outside
    the box of the lungs."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the model says about an image that the input gate let through."""

    probability: float
    """Calibrated probability of the bundle's finding, 0 to 1, four decimals."""
    limitations: tuple[str, ...] = ()
    """Sentences about the image that belong into the report."""
    features: dict[str, float] = field(default_factory=dict)
    """What was measured on the way, for the watch: ``lungs``, their share of the image, 0 to 1."""
    lung_box: Box | None = None
    """The lungs with a margin; ``None``: the bundle does not look for them."""
    saliency: Saliency | None = field(default=None, compare=False)
    """Map of the same pass; ``None`` where the network gives none."""


@dataclass(frozen=True, slots=True)
class Region:
    """An outlined part of an image, in pixels of that image."""

    outline: tuple[tuple[float, float], ...]
    """``(column, row)`` of each corner; the last is the first. The top left corner of the top
    left pixel is (0, 0) (PS3.3 Sections C.10.5.1.2 and C.18.6.1.2)."""
    saliency: float
    """Mean of the map inside; unit as in :class:`Saliency`."""


class Kind(StrEnum):
    """The objects that carry a result; the value is the name in settings, status and audit."""

    SR = "sr"
    """Structured report: the result."""
    SC = "sc"
    """Secondary Capture: the result as a picture, which every viewer shows."""
    PR = "pr"
    """Grayscale Softcopy Presentation State: outlines on the original."""
    KO = "ko"
    """Key Object Selection "Of Interest"."""
    SEG = "seg"
    """Segmentation: made by earlier versions alone, and still sent, shown and withdrawn."""
    REJECTION = "rejection"
    """Key Object Selection that rejects withdrawn objects (IHE IOCM)."""
    ORIGINAL = "original"
    """A received image, passed on as it came because a rule says so."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How a probability becomes an outcome."""

    threshold: float
    """Operating point stated in every report, 0 to 1."""
    lower: float
    """Below it the outcome is negative, 0 to 1."""
    upper: float
    """At or above it the outcome is positive, 0 to 1."""

    def outcome(self, probability: float) -> Outcome:
        """Return the outcome for a calibrated probability in 0 to 1."""
        if probability >= self.upper:
            return Outcome.POSITIVE
        if probability < self.lower:
            return Outcome.NEGATIVE
        return Outcome.INDETERMINATE


@dataclass(frozen=True, slots=True)
class OutcomeStatement:
    """What is said of the finding for one outcome."""

    code: Code
    """Value of the coded finding: present, absent or undetermined."""
    sentence: Annotated[str, Len(1, 200)]
    """Without a full stop: probability and threshold, or the reason, follow or precede it."""
    caution: Annotated[str, Len(0, 200)] = ""
    """A whole sentence about what the outcome does not mean; may be empty."""

    def with_numbers(self, numbers: str) -> str:
        """Return the whole statement with the numbers that it rests on."""
        return f"{self.sentence}: {numbers}. {self.caution}".rstrip()


@dataclass(frozen=True, slots=True)
class OutcomeStatements:
    """What is said of the finding for each outcome."""

    positive: OutcomeStatement
    negative: OutcomeStatement
    indeterminate: OutcomeStatement
    rejected: OutcomeStatement
    """Its sentence says that nothing is said of the finding; of a withdrawn result, too."""

    def of(self, outcome: Outcome) -> OutcomeStatement:
        """Return the statement for an outcome."""
        found: OutcomeStatement = getattr(self, outcome.value)
        return found


@dataclass(frozen=True, slots=True)
class Population:
    """The images that a bundle is meant for."""

    modalities: Annotated[tuple[str, ...], Len(1)]
    """Modality (0008,0060), one or more."""
    views: Annotated[tuple[str, ...], Len(1)]
    """View Position (0018,5101), one or more."""
    body_part: str
    """Body Part Examined (0018,0015)."""
    least_age_years: Annotated[int, Interval(ge=0, le=120)]
    """Younger patients are not meant; 0 for all ages."""


class SaliencyKind(StrEnum):
    """What a bundle can say about where its probability comes from."""

    CLASS_ACTIVATION = "class activation"
    """What each place adds to the score: in results of bundles before 0.3.0 alone."""
    OPACITIES = "opacities"
    """A map that the network gives beside its answer, taught by boxes around opacities: the share
    of each place that is inside one."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a bundle finds, as its metadata says (docs/your-own-bundle.md).

    Whatever names the finding, in reports, messages, pages and rows, takes it from here.
    """

    code: Code
    name: Annotated[str, Len(1, 48)]
    """As people read it, at most 48 characters."""
    short_name: Annotated[str, Len(1, 16)]
    """In lists and on images, at most 16 characters."""
    channel: int
    """Place of the finding in ``network_data_format.outputs.pred.channel_def``."""
    outcomes: OutcomeStatements
    population: Population
    saliency: SaliencyKind

    @property
    def key(self) -> str:
        """The finding's identity in rows: scheme and code, e.g. ``SCT:363746003``."""
        return f"{self.code.scheme}:{self.code.value}"


@dataclass(frozen=True, slots=True)
class BundleIdentity:
    """Which model read an image."""

    name: str
    version: str
    digest: str
    """SHA-256 (hexadecimal) over configs/ and models/: code, weights and calibration."""
    decision: Decision
    calibration: str
    """E.g. ``offset(+0.50) temperature(1.30)``."""
    finding: Finding


@dataclass(frozen=True, slots=True)
class Reading:
    """What is said about one image."""

    sop_class_uid: str
    sop_instance_uid: str
    outcome: Outcome
    reason: Reason | None = None
    """Given exactly when the outcome is rejected."""
    detail: str | None = None
    """For rejected images: what was found and what is required. No patient data."""
    probability: float | None = None
    """Calibrated, 0 to 1, four decimals; ``None`` when rejected."""
    limitations: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each stage in seconds."""
    features: dict[str, float] = field(default_factory=dict)
    """Of the image as the model saw it (features.py), for the watch; empty when it was not read."""
    made_with: dict[str, str] = field(default_factory=dict)
    """What read it, beside the bundle: ``version`` of Thoracle, ``settings_digest`` (of those that
    shape a result), ``runtime`` with its version, ``device``. Empty in rows of old versions."""
    lung_box: Box | None = None
    """The part of the image that the model looked at; ``None``: it did not say, or was not asked,
    or the row is of an old version."""
    frames_sha256: str = ""
    """Of the decoded frames (image/decoder.py), hexadecimal; empty when they were not decoded."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values that survive a round trip through JSON."""
        return {
            "sop_class_uid": self.sop_class_uid,
            "sop_instance_uid": self.sop_instance_uid,
            "outcome": self.outcome.value,
            "reason": self.reason.code.value if self.reason else None,
            "detail": self.detail,
            "probability": self.probability,
            "limitations": list(self.limitations),
            "seconds": self.seconds,
            "features": self.features,
            "made_with": self.made_with,
            "lung_box": self.lung_box,
            "frames_sha256": self.frames_sha256,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Reading":
        """Return the reading that :meth:`to_json` described; old ones lack the last fields."""
        reason, lung_box = values["reason"], values.get("lung_box")
        return cls(
            **{
                **values,
                "outcome": Outcome(values["outcome"]),
                "reason": Reason.from_code_value(reason) if reason else None,
                "limitations": tuple(values["limitations"]),
                "lung_box": Box(*lung_box) if lung_box else None,
            }
        )


def study_outcome(readings: Sequence[Reading]) -> Outcome:
    """Return the outcome of a study: the most telling of its images.

    Positive before indeterminate before negative; a study is rejected only when none of its
    images was analysed, because a lateral beside a frontal image is no fault of the study.
    """
    order = (Outcome.POSITIVE, Outcome.INDETERMINATE, Outcome.NEGATIVE)
    found = {reading.outcome for reading in readings}
    return next((outcome for outcome in order if outcome in found), Outcome.REJECTED)
