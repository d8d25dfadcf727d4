"""What the model says of labelled images, in figures."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from thoracle.evaluate.labels import Labels, Matched
from thoracle.evaluate.metrics import (
    Calibration,
    Estimate,
    Outcomes,
    PredictiveValues,
    Rates,
    auroc_interval,
    calibration,
    outcomes,
    predictive_values,
    rates,
)
from thoracle.evaluate.results import Result, pairs_of
from thoracle.evaluate.thresholds import Proposal, propose
from thoracle.records import BundleIdentity
from thoracle.wording import SOFTWARE

RESEARCH = (
    f"{SOFTWARE} The figures hold for these images and ones like them; "
    "a threshold chosen on them must be confirmed on others, from other patients."
)
MOST_GROUPS_DRAWN = 6
"""More curves are hard to tell apart."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What is asked of thresholds and predictive values."""

    sensitivity: float = 0.9
    specificity: float = 0.9
    prevalences: tuple[float, ...] = (0.01, 0.05, 0.2)


@dataclass(frozen=True, slots=True)
class Figures:
    """How the results of some cases agree with their labels; ``None`` where there are too few."""

    outcomes: dict[int, Outcomes]
    rates: Rates
    auroc: Estimate | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that is reported."""

    identity: BundleIdentity
    labelled_by: str
    unused: tuple[str, ...]
    left_out: dict[str, list[str]]
    results: tuple[Result, ...]
    patients: int | None
    """How many there are among the analysed cases; ``None`` when not stated."""
    all: Figures
    calibrations: tuple[Calibration, ...]
    """As sampled, and with both classes weighing the same."""
    predictive: tuple[PredictiveValues, ...]
    proposals: tuple[Proposal, ...]
    groups: dict[str, Figures]
    pairs: dict[tuple[str, str], tuple[int, int, Estimate]]
    """By group of the positive and of the negative cases: how many of each, and the AUROC."""
    caveat: str | None = None
    """Of the labels."""

    def rejected(self) -> dict[str, Counter[int]]:
        """Return by reason how many positive (1) and negative (0) cases were rejected."""
        found: dict[str, Counter[int]] = {}
        for one in self.results:
            if one.reason:
                found.setdefault(one.reason, Counter())[int(one.case.label.positive)] += 1
        return found

    def rejected_images(self) -> Counter[str]:
        """Return by reason how many images were rejected of cases that have analysed ones too."""
        return Counter(
            answer["reason"]["meaning"]
            for one in self.results
            if one.probability is not None
            for answer in one.answers
            if answer["reason"]
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values; no patient is in them but by the paths and UIDs of the labels."""
        names = {1: "positive", 0: "negative"}
        rejected = {
            reason: {names[label]: counts[label] for label in names}
            for reason, counts in self.rejected().items()
        }
        return {
            "notice": RESEARCH,
            "caveat": self.caveat,
            "bundle": {
                "name": self.identity.name,
                "version": self.identity.version,
                "digest": self.identity.digest,
            },
            "decision": asdict(self.identity.decision),
            "labelled_by": self.labelled_by,
            "columns_not_used": list(self.unused),
            "cases": len(self.results),
            "patients": self.patients,
            "left_out": self.left_out,
            "rejected": rejected,
            "rejected_images_of_analysed_cases": dict(self.rejected_images()),
            **_plain(self.all),
            "calibration": {
                "balanced" if one.balanced else "as_sampled": asdict(one)
                for one in self.calibrations
            },
            "predictive_values": [asdict(one) for one in self.predictive],
            "proposals": [asdict(one) for one in self.proposals],
            "groups": {name: _plain(figures) for name, figures in self.groups.items()},
            "auroc_by_groups": [
                {"positive": pair, "negative": other, "n": [yes, no], "auroc": asdict(area)}
                for (pair, other), (yes, no, area) in self.pairs.items()
            ],
        }


def _plain(figures: Figures) -> dict[str, Any]:
    return {
        "outcomes": {
            "positive": asdict(figures.outcomes[1]),
            "negative": asdict(figures.outcomes[0]),
        },
        "at_threshold": asdict(figures.rates),
        "auroc": figures.auroc and asdict(figures.auroc),
    }


def evaluate(
    identity: BundleIdentity,
    labels: Labels,
    matched: Matched,
    results: Sequence[Result],
    targets: Targets,
) -> Evaluation:
    """Return the figures for the results of cases.

    Parameters
    ----------
    identity
        Of the bundle; its decision is what is evaluated.
    labels
        How cases were labelled.
    matched
        What became no case.
    results
        As :func:`thoracle.evaluate.results.read` returns them.
    targets
        Of thresholds and predictive values.
    """
    has_patients = labels.has_patients
    analysed = [one for one in results if one.probability is not None]
    cases, scores = pairs_of(analysed)
    overall = _figures(analysed, identity, has_patients)
    at = overall.rates
    predictive = tuple(
        predictive_values(at.sensitivity, at.specificity, prevalence)
        for prevalence in targets.prevalences
        if at.sensitivity and at.specificity
    )
    proposed = propose(
        cases, scores, sensitivity=targets.sensitivity, specificity=targets.specificity
    )
    weights = (False, True) if overall.auroc else ()
    groups = _by_group(analysed)
    return Evaluation(
        identity=identity,
        labelled_by=labels.key,
        unused=labels.unused,
        left_out=matched.left_out,
        results=tuple(results),
        patients=len(set(_patients(analysed))) if has_patients else None,
        all=overall,
        calibrations=tuple(calibration(cases, scores, balanced=one) for one in weights),
        predictive=predictive,
        proposals=proposed,
        groups={name: _figures(some, identity, has_patients) for name, some in groups.items()},
        pairs=dict(_aurocs(groups, has_patients)) if len(groups) > 1 else {},
        caveat=labels.caveat,
    )


def _figures(results: Sequence[Result], identity: BundleIdentity, has_patients: bool) -> Figures:
    labels, scores = pairs_of(results)
    decision = identity.decision
    patients = _patients(results) if has_patients else None
    area = auroc_interval(labels, scores, patients) if 0 < sum(labels) < len(labels) else None
    return Figures(
        outcomes(labels, scores, decision.lower, decision.upper),
        rates(labels, scores, decision.threshold),
        area,
    )


def _patients(results: Sequence[Result]) -> list[str]:
    """Return whose the cases are; one whose patient is not stated is somebody else's."""
    return [
        one.case.label.patient or f"line {one.case.label.line} without a patient" for one in results
    ]


def _by_group(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the results by group, in the order of names; none when no group is stated."""
    groups: dict[str, list[Result]] = {}
    for one in sorted(results, key=lambda one: one.case.label.group):
        groups.setdefault(one.case.label.group, []).append(one)
    return {} if set(groups) <= {""} else groups


def _aurocs(
    groups: dict[str, list[Result]], has_patients: bool
) -> Iterator[tuple[tuple[str, str], tuple[int, int, Estimate]]]:
    """Yield the AUROC of each group's positive against each group's negative cases."""
    for yes, ours in groups.items():
        for no, theirs in groups.items():
            some = [one for one in ours if one.case.label.positive]
            others = [one for one in theirs if not one.case.label.positive]
            if some and others:
                patients = _patients(some + others) if has_patients else None
                area = auroc_interval(*pairs_of(some + others), patients)
                yield (yes, no), (len(some), len(others), area)


def curves(
    evaluation: Evaluation,
) -> tuple[dict[str, tuple[list[int], list[float]]], dict[str, Estimate]]:
    """Return labels and scores, and AUROC, by name: all, and the largest groups with both classes.

    Both are empty when the analysed cases are of one class.
    """
    groups = _by_group(evaluation.results) if evaluation.groups else {}
    largest = sorted(groups, key=lambda name: -len(groups[name]))
    named = [("all", evaluation.results, evaluation.all)] + [
        (f"group {name or 'not stated'}", groups[name], evaluation.groups[name])
        for name in largest
        if name in evaluation.groups
    ]
    drawn = [one for one in named if one[2].auroc is not None][: 1 + MOST_GROUPS_DRAWN]
    if evaluation.all.auroc is None:
        return {}, {}
    areas = {name: figures.auroc for name, _, figures in drawn if figures.auroc}
    return {name: pairs_of(some) for name, some, _ in drawn}, areas
