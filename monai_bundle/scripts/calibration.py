"""Calibration, threshold and indeterminate band, from images that training did not see."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

THRESHOLD = 0.5
NARROWEST_BAND = (0.2, 0.8)
LARGEST_ERROR_RATE = 0.1
RULES = {
    "offset, temperature": "added to the logit of COVID-19, and then dividing both: least "
    "cross-entropy on the validation part, both classes weighing the same",
    "threshold": "0.5 by definition: after calibration with classes weighing the same, "
    "either is as likely",
    "indeterminate": "on each side of the threshold, the narrowest band beyond which at most 10 % "
    "of the validation images are wrong; never narrower than 0.2 to 0.8",
}


def logits_of(network: nn.Module, batches: Iterable[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """Return logits ``(images, 2)`` and labels ``(images,)``, of which 1 is COVID-19."""
    network.eval()
    logits, labels = [], []
    with torch.inference_mode():
        for batch in batches:
            logits.append(network(batch["image"]))
            labels.append(batch["label"])
    return torch.cat(logits), torch.cat(labels).flatten().long()


def scaling(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return offset and temperature that calibrate logits.

    Parameters
    ----------
    logits
        ``(images, 2)``.
    labels
        ``(images,)``, 1 for COVID-19.

    Returns
    -------
    tuple
        What to add to the logit of COVID-19, -3 to 3, and what to divide both by then, 0.2 to 5
        (J. Platt: Probabilistic outputs for support vector machines, 1999; C. Guo et al.: On
        Calibration of Modern Neural Networks, 2017).
    """
    weight = 1 / torch.bincount(labels, minlength=2).float()
    difference = logits[:, 1] - logits[:, 0]
    offsets, temperatures = torch.arange(-3.0, 3.0, 0.02), torch.arange(0.2, 5.0, 0.02)
    scaled = (difference + offsets[:, None, None]) / temperatures[:, None]
    losses = nn.functional.binary_cross_entropy_with_logits(
        scaled, labels.float().expand_as(scaled), weight=weight[labels], reduction="none"
    ).sum(2)
    row, column = divmod(int(losses.argmin()), len(temperatures))
    return round(float(offsets[row]), 2), round(float(temperatures[column]), 2)


def calibrated(logits: Tensor, offset: float, temperature: float) -> Tensor:
    """Return the calibrated probability of COVID-19 ``(images,)`` for logits ``(images, 2)``."""
    return ((logits[:, 1] - logits[:, 0] + offset) / temperature).sigmoid()


def band(probabilities: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return lower and upper end of the indeterminate band, 0 to 1, by ``RULES``."""
    steps = torch.arange(0, 0.21, 0.01).tolist()
    low, high = NARROWEST_BAND
    lower = next(low - s for s in steps if _few(labels[probabilities < low - s] == 1))
    upper = next(high + s for s in steps if _few(labels[probabilities >= high + s] == 0))
    return round(lower, 2), round(upper, 2)


def _few(errors: Tensor) -> bool:
    """Return whether few enough are wrong; none at all is few enough."""
    return errors.numel() == 0 or float(errors.float().mean()) <= LARGEST_ERROR_RATE


def fit(network: nn.Module, batches: Iterable[dict[str, Any]], output_dir: str) -> None:
    """Write ``decision.json`` for a network, from the batches of the validation part."""
    logits, labels = logits_of(network, batches)
    path = Path(output_dir) / "decision.json"
    path.write_text(json.dumps(decision(logits, labels), indent=4) + "\n", encoding="utf-8")


def decision(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Return the content of ``decision.json`` by ``RULES``; arguments as for :func:`scaling`."""
    offset, temperature = scaling(logits, labels)
    lower, upper = band(calibrated(logits, offset, temperature), labels)
    return {
        "offset": offset,
        "temperature": temperature,
        "threshold": THRESHOLD,
        "indeterminate": {"lower": lower, "upper": upper},
        "rules": RULES,
        "fitted_on": {
            "part": "validation",
            "covid": int((labels == 1).sum()),
            "not_covid": int((labels == 0).sum()),
        },
    }
