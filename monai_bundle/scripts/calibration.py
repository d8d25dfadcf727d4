"""Calibration, threshold and band by rule, from patients that training did not see."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import torch
from scripts.predictions import Prediction
from torch import Tensor, nn

LIMITS = (0.05, 0.08, 0.10)
"""Shares of wrong answers that a band is stated for."""
SHIPPED_LIMIT = 0.08
RULES = {
    "images": "adults of the validation part without the category indeterminate; both classes "
    "weigh the same; within a class SIIM weighs as much as all other sources together; of those "
    "without COVID-19, one in six has another pneumonia, as in SIIM",
    "offset, temperature": "added to the logit of COVID-19, and then dividing both: least "
    "cross-entropy",
    "indeterminate": "of all bands that leave at most 8 % wrong among the images that get an "
    "answer, the one that leaves the fewest without; 0.01 apart",
    "threshold": "0.5, or the end of the band next to it: after calibration either class is as "
    "likely there",
}
PNEUMONIA = 1 / 6
"""Share of other pneumonias, and of atypical appearances, among those without COVID-19."""
STEPS = 100
HIGHEST = 8.0
"""Temperature of answers that tell nothing."""


def counted(found: Sequence[Prediction], without: Collection[str] = ()) -> list[Prediction]:
    """Return the predictions that calibration rests on; none of the sources left out."""
    return [
        p
        for p in found
        if p.part == "validation"
        and p.age == "adult"
        and p.finding != "unsure"
        and p.source not in without
    ]


def weights(found: Sequence[Prediction]) -> Tensor:
    """Return the weight of each prediction by :data:`RULES`, ``(n,)``; together 1."""
    kinds = [(p.label, p.source == "siim", p.finding) for p in found]
    counts = Counter(kinds)
    homes = Counter(label for label, _ in {(label, home) for label, home, _ in kinds})
    given = []
    for kind in kinds:
        label, home, finding = kind
        alone = len({f for one, h, f in counts if (one, h) == (label, home)}) == 1
        of_finding = 1.0 if alone else PNEUMONIA if finding == "pneumonia" else 1 - PNEUMONIA
        given.append(0.5 / homes[label] * of_finding / counts[kind])
    return torch.tensor(given)


def scaling(logits: Tensor, labels: Tensor, share: Tensor) -> tuple[float, float]:
    """Return offset and temperature that calibrate logits.

    Parameters
    ----------
    logits
        ``(images,)``: logit of COVID-19 minus the other's.
    labels
        ``(images,)``, 1 for COVID-19.
    share
        ``(images,)``, weights.

    Returns
    -------
    tuple
        What to add to the logit, and what to divide by then, at most 8 (J. Platt:
        Probabilistic outputs for support vector machines, 1999; C. Guo et al.: On Calibration of
        Modern Neural Networks, 2017).
    """
    line = nn.Linear(1, 1)
    nn.init.ones_(line.weight)
    nn.init.zeros_(line.bias)
    optimizer = torch.optim.LBFGS(line.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = nn.functional.binary_cross_entropy_with_logits(
            line(logits[:, None])[:, 0], labels.float(), weight=share, reduction="sum"
        )
        total.backward()  # type: ignore[no-untyped-call]  # torch annotates neither
        return total

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]  # nor this
    temperature = 1 / max(float(line.weight.detach()), 1 / HIGHEST)
    return round(float(line.bias.detach()) * temperature, 2), round(temperature, 2)


def band(probabilities: Tensor, labels: Tensor, share: Tensor, limit: float) -> tuple[float, float]:
    """Return lower and upper end of the indeterminate band, 0 to 1, by :data:`RULES`.

    Parameters
    ----------
    probabilities, labels, share
        ``(images,)`` each.
    limit
        Largest share of wrong answers among the images outside the band.
    """
    steps = torch.arange(STEPS + 1) / STEPS
    below = probabilities < steps[:, None]
    # Weight of each class below each step.
    cases, others = (((below & (labels == label)) * share).sum(1).tolist() for label in (1, 0))
    total = float(share[labels == 0].sum())
    best = (2.0, 1.0, 0.0, 1.0)
    for low in range(STEPS // 2 + 1):
        for high in range(STEPS // 2, STEPS + 1):
            wrong = cases[low] + total - others[high]
            left = cases[high] - cases[low] + others[high] - others[low]
            decided = 1 - left
            if decided > 0 and wrong <= limit * decided + 1e-9:
                # Of equals the narrowest.
                ends = low / STEPS, high / STEPS
                best = min(best, (round(left, 6), ends[1] - ends[0], *ends))
    return best[2], best[3]


def decision(
    found: Sequence[Prediction], view_share: float, without: Collection[str] = ()
) -> dict[str, Any]:
    """Return the content of ``decision.json`` by :data:`RULES`.

    Parameters
    ----------
    found
        Of the validation part; others are not looked at.
    view_share
        Share of the view's score that was subtracted from the answer.
    without
        Sources that were left out of training: they calibrate nothing either.
    """
    used = counted(found, without)
    logits = torch.tensor([p.logit - view_share * p.view_score for p in used])
    labels, share = torch.tensor([p.label for p in used]), weights(used)
    offset, temperature = scaling(logits, labels, share)
    probabilities = ((logits + offset) / temperature).sigmoid()
    bands = {f"{limit:.0%}": band(probabilities, labels, share, limit) for limit in LIMITS}
    lower, upper = bands[f"{SHIPPED_LIMIT:.0%}"]
    return {
        "offset": offset,
        "temperature": temperature,
        "threshold": min(max(0.5, lower), upper),
        "indeterminate": {"lower": lower, "upper": upper},
        "sentence": f"positive from {upper:.2f}, negative below {lower:.2f}",
        "bands": {name: {"lower": one[0], "upper": one[1]} for name, one in bands.items()},
        "view_share": view_share,
        "rules": RULES,
        "fitted_on": {
            "part": "validation",
            "covid": int((labels == 1).sum()),
            "not_covid": int((labels == 0).sum()),
        },
    }
