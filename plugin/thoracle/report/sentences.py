"""What the report says in plain words.

Many viewers show the values of coded items without their names, so these sentences have to be
understood on their own.
"""

from collections.abc import Sequence
from datetime import datetime

from thoracle.records import BundleIdentity, Decision, Outcome, Reading, Reason, study_outcome

PREAMBLE = "AI result for research, not verified by a physician, not for diagnosis."
REJECTION = (
    "Results of Thoracle (AI for research) on this study are withdrawn. This note names these "
    "results alone, no image of a modality."
)

REGION = "AI: what the result rests on"
"""What a viewer shows beside a salient region."""


def conclusion(readings: Sequence[Reading], decision: Decision) -> str:
    """Return the conclusion on a study: status, result, and the rule that made it."""
    strongest = _most_telling(readings)
    if strongest.outcome is Outcome.REJECTED:
        return f"{PREAMBLE} {_rejected(readings, len(readings))}"
    parts = [PREAMBLE, finding(strongest, decision), f"Rule: {rule(decision)}."]
    if len(readings) > 1:
        analysed = sum(reading.outcome is not Outcome.REJECTED for reading in readings)
        parts.append(
            "The study takes the most telling outcome of its images: positive before "
            f"indeterminate before negative. Images analysed: {analysed} of {len(readings)}."
        )
    return " ".join(parts)


def key_objects(readings: Sequence[Reading], bundle: BundleIdentity) -> str:
    """Return why images are key objects: the most telling result, and which model says so."""
    said = finding(_most_telling(readings), bundle.decision)
    return f"{PREAMBLE} {said} Model: {bundle.name} {bundle.version}."


def label_on_image(reading: Reading) -> str:
    """Return what stands beside an outlined region, at most 64 characters."""
    return f"AI: COVID-19 {percent(reading.probability or 0.0)} %, research, not verified"


def label_in_viewer(reading: Reading) -> str:
    """Return what a viewer shows beside the part of an image that was looked at."""
    return f"AI: COVID-19 {reading.outcome} (research)"


def withdrawal(reason: str, made: datetime | None) -> str:
    """Return the conclusion on a study of which the earlier result, made then, is withdrawn."""
    when = f" of {made.isoformat(' ', 'minutes')}" if made else ""
    return (
        f"{PREAMBLE} The earlier AI result{when} on this study is withdrawn and must not be used. "
        f'Reason stated: "{reason}". The withdrawal says nothing about COVID-19.'
    )


def finding(reading: Reading, decision: Decision) -> str:
    """Return the result for one image."""
    numbers = (
        f"probability {percent(reading.probability or 0.0)} %, "
        f"decision threshold {percent(decision.threshold)} %"
    )
    match reading.outcome:
        case Outcome.POSITIVE:
            return f"COVID-19 finding suggested: {numbers}."
        case Outcome.NEGATIVE:
            return f"COVID-19 finding not suggested: {numbers}. This does not exclude COVID-19."
        case Outcome.INDETERMINATE:
            return (
                f"COVID-19 result indeterminate, the model is not confident: {numbers}. "
                "This neither suggests nor excludes COVID-19."
            )
        case Outcome.REJECTED:
            return _rejected([reading], 1)


def rule(decision: Decision) -> str:
    """Return how a probability becomes an outcome."""
    lower, upper = percent(decision.lower), percent(decision.upper)
    between = ", indeterminate between" if decision.lower < decision.upper else ""
    return f"positive from {upper} %, negative below {lower} %{between}"


def label(number: int, instance_number: object, view_position: object) -> str:
    """Return how a person finds an image again: ``"Image 1 (Instance Number 2, PA)"``."""
    hints = [f"Instance Number {instance_number}"] if instance_number else []
    hints += [f"{view_position}"] if view_position else []
    return f"Image {number} ({', '.join(hints)})" if hints else f"Image {number}"


def percent(probability: float) -> str:
    """Return a probability of 0 to 1 in percent, at most two decimals: ``"91"``, ``"8.25"``."""
    return f"{percentage(probability):g}"


def percentage(probability: float) -> float:
    """Return a probability of 0 to 1 in percent, rounded to two decimals."""
    # float() first: a float32 leaks as 78.27000427246094 into the report.
    return round(float(probability) * 100, 2)


def _most_telling(readings: Sequence[Reading]) -> Reading:
    outcome = study_outcome(list(readings))
    telling = [reading for reading in readings if reading.outcome is outcome]
    return max(telling, key=lambda reading: reading.probability or 0.0)


def _rejected(rejected: Sequence[Reading], images: int) -> str:
    meanings = {reading.reason.code.meaning: None for reading in rejected if reading.reason}
    if meanings.keys() == {Reason.WITHDRAWN.code.meaning}:  # it had been analysed
        return f"{Reason.WITHDRAWN.code.meaning}; this says nothing about COVID-19."
    what = "Image not analysed" if images == 1 else f"None of the {images} images analysed"
    return f"{what}: {'; '.join(meanings)}; this says nothing about COVID-19."
