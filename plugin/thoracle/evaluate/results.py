"""What the pipeline says of each labelled case."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from thoracle.evaluate.match import Case
from thoracle.pipeline import offline
from thoracle.records import Outcome
from thoracle.settings import Settings

Advance = Callable[[Iterable[dict[str, Any]], int], Iterator[dict[str, Any]]]
"""Passes answers on, and shows how many of how many there were."""


@dataclass(frozen=True, slots=True)
class Result:
    """A case with what the model says: of several images, the most telling, as in a report."""

    case: Case
    outcome: Outcome
    probability: float | None
    """``None`` when rejected."""
    reason: str | None
    """Given exactly when rejected: of the first image, as none was analysed."""
    answers: tuple[dict[str, Any], ...]
    """For each image, as ``thoracle analyse`` gives them."""


def read(settings: Settings, cases: Sequence[Case], advance: Advance) -> list[Result]:
    """Return what the pipeline says of each case."""
    paths = [path for case in cases for path in case.paths]
    # Taken to the end, so that the decoder stops here and not when the iterator is forgotten.
    answers = iter(list(advance(offline.analyse(settings, paths, None), len(paths))))
    return [_result(case, [next(answers) for _ in case.paths]) for case in cases]


def _result(case: Case, answers: list[dict[str, Any]]) -> Result:
    """Return the answer with the greatest probability.

    It has the study's outcome too (:func:`thoracle.records.study_outcome`), because outcomes grow
    with probabilities.
    """
    analysed = [one for one in answers if one["probability"] is not None]
    if not analysed:
        return Result(case, Outcome.REJECTED, None, answers[0]["reason"]["meaning"], (*answers,))
    most = max(analysed, key=lambda one: one["probability"])
    return Result(case, Outcome(most["outcome"]), most["probability"], None, (*answers,))


def pairs_of(results: Sequence[Result]) -> tuple[list[int], list[float]]:
    """Return labels and probabilities of the results that have one."""
    analysed = [one for one in results if one.probability is not None]
    labels = [int(one.case.label.positive) for one in analysed]
    return labels, [one.probability for one in analysed if one.probability is not None]


def predictions(results: Sequence[Result]) -> Iterator[dict[str, str]]:
    """Yield a line for each image: what is said of it, and the label of its case."""
    for one in results:
        for answer in one.answers:
            reason, probability = answer["reason"], answer["probability"]
            yield {
                "path": answer["path"],
                "probability": "" if probability is None else f"{probability:.4f}",
                "outcome": answer["outcome"],
                "reason": reason["meaning"] if reason else "",
                "label": "positive" if one.case.label.positive else "negative",
            }
