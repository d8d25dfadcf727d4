"""What the report says in plain words.

Many viewers show the values of coded items without their names, so these sentences have to be
understood on their own.
"""

from collections.abc import Sequence
from datetime import datetime

from thoracle.records import (
    BundleIdentity,
    Decision,
    Finding,
    Outcome,
    Reading,
    Reason,
    study_outcome,
)
from thoracle.wording import DISCLAIMER, IN_LISTS

REJECTION = (
    "Results of Thoracle (AI for research) on this study are withdrawn. This note names these "
    "results alone, no image of a modality."
)


def conclusion(readings: Sequence[Reading], bundle: BundleIdentity) -> str:
    """Return the conclusion on a study: status, result, and the rule that made it."""
    strongest = _most_telling(readings)
    if strongest.outcome is Outcome.REJECTED:
        return f"{DISCLAIMER} {_rejected(readings, len(readings), bundle.finding)}"
    parts = [DISCLAIMER, finding(strongest, bundle), f"Rule: {rule(bundle.decision)}."]
    if len(readings) > 1:
        analysed = sum(reading.outcome is not Outcome.REJECTED for reading in readings)
        parts.append(
            "The study takes the most telling outcome of its images: positive before "
            f"indeterminate before negative. Images analysed: {analysed} of {len(readings)}."
        )
    return " ".join(parts)


def key_objects(readings: Sequence[Reading], bundle: BundleIdentity) -> str:
    """Return why images are key objects: the most telling result, and which model says so."""
    said = finding(_most_telling(readings), bundle)
    return f"{DISCLAIMER} {said} Model: {bundle.name} {bundle.version}."


def label_on_image(reading: Reading, found: Finding) -> str:
    """Return what stands beside an outlined region, at most 64 characters."""
    return f"AI: {found.short_name} {percent(reading.probability or 0.0)} % {IN_LISTS}"


def label_in_viewer(reading: Reading, found: Finding) -> str:
    """Return what a viewer shows beside the part of an image that was looked at."""
    return f"AI: {found.short_name} {reading.outcome} (research)"


def withdrawal(reason: str, made: datetime | None, found: Finding) -> str:
    """Return the conclusion on a study of which the earlier result, made then, is withdrawn."""
    when = f" of {made.isoformat(' ', 'minutes')}" if made else ""
    return (
        f"{DISCLAIMER} The earlier AI result{when} on this study is withdrawn and must not be "
        f'used. Reason stated: "{reason}". {found.outcomes.rejected.sentence}.'
    )


def finding(reading: Reading, bundle: BundleIdentity) -> str:
    """Return the result for one image."""
    if reading.outcome is Outcome.REJECTED:
        return _rejected([reading], 1, bundle.finding)
    said = bundle.finding.outcomes.of(reading.outcome)
    numbers = (
        f"probability {percent(reading.probability or 0.0)} %, "
        f"decision threshold {percent(bundle.decision.threshold)} %"
    )
    return said.with_numbers(numbers)


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


def _rejected(rejected: Sequence[Reading], images: int, found: Finding) -> str:
    meanings = {reading.reason.code.meaning: None for reading in rejected if reading.reason}
    if meanings.keys() == {Reason.WITHDRAWN.code.meaning}:  # it had been analysed
        return f"{Reason.WITHDRAWN.code.meaning}. {found.outcomes.rejected.sentence}."
    what = "Image not analysed" if images == 1 else f"None of the {images} images analysed"
    return f"{what}: {'; '.join(meanings)}. {found.outcomes.rejected.sentence}."
