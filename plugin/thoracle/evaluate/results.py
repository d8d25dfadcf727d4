"""What the pipeline says of each labelled case."""

import getpass
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from thoracle.evaluate.labels import Case, Label, Labels, Matched
from thoracle.pipeline import offline
from thoracle.records import Outcome
from thoracle.settings import Settings
from thoracle.store import database, trail
from thoracle.study import verdicts
from thoracle.study.verdicts import Opinion

# ---- results -------------------------------------------------------------------------------------

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


# ---- verdicts ------------------------------------------------------------------------------------
# Readers' verdicts as labels: no image is read again, the results are those that were judged.
#
# The rule is in docs/evaluate.md. Whoever judged had seen the answer, so these labels favour it;
# the caveat that says so goes wherever the figures go.

CAVEAT = (
    "The labels are verdicts of readers who had seen the model's answer: they favour it, and "
    "indeterminate and rejected results are left out. Sensitivity and specificity are too high by "
    "an unknown amount, and so is the AUROC; no figure here is a measurement against the truth."
)
_CLEAR = {Outcome.POSITIVE.value: True, Outcome.NEGATIVE.value: False}


def read_verdicts(settings: Settings, bundle_digest: str) -> tuple[Labels, Matched, list[Result]]:
    """Return the newest verdict of each study as a label, with the result that it is about.

    What becomes no label is in ``left_out`` by reason. That verdicts were read is audited.

    Parameters
    ----------
    settings
        Of the gateway: they say where its database is.
    bundle_digest
        Results of other bundles are left out.

    Raises
    ------
    ThoracleError
        There is no database.
    """
    with database.existing(settings).begin() as connection:
        rows = verdicts.newest(connection)
        detail = {"verdicts": len(rows), "means": "thoracle evaluate --verdicts"}
        columns: trail.Columns = {"user_id": getpass.getuser(), "detail": detail}
        trail.record(connection, trail.Event.EXPORTED, columns)
    return labelled(rows, bundle_digest)


def labelled(rows: Iterable[Any], bundle_digest: str) -> tuple[Labels, Matched, list[Result]]:
    """Return labels, what is left out, and results, for rows of ``store.verdicts.newest``."""
    matched = Matched()
    results: list[Result] = []
    for number, row in enumerate(rows, 1):
        refusal = _refusal(row, bundle_digest)
        if refusal:
            matched.leave_out(refusal, row.study_instance_uid)
            continue
        agreed = row.opinion == Opinion.AGREE
        label = Label(
            line=number,
            key=row.study_instance_uid,
            positive=_CLEAR[row.outcome] is agreed,
            group=row.device or "",
            patient=f"{row.issuer_of_patient_id or ''}/{row.patient_id}" if row.patient_id else "",
        )
        case = Case(label, ())
        matched.cases.append(case)
        results.append(Result(case, Outcome(row.outcome), row.probability, None, ()))
    labels = Labels("verdicts", True, tuple(one.label for one in matched.cases), (), CAVEAT)
    return labels, matched, results


def _refusal(row: Any, bundle_digest: str) -> str:
    """Return why a verdict is no label; empty when it is one."""
    if row.bundle_digest != bundle_digest:
        return "verdicts on results of another bundle"
    if row.opinion == Opinion.NOT_APPLICABLE:
        return "verdicts `not applicable`"
    if row.outcome not in _CLEAR or row.probability is None:
        return f"verdicts on {row.outcome} results, which say neither positive nor negative"
    return ""
