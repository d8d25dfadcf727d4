"""Temperature, threshold and indeterminate band, from images that training did not see."""

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
    "temperature": "least cross-entropy on the validation part, both classes weighing the same; "
    "at least 1, as results elsewhere deserve no more confidence than here",
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


def temperature(logits: Tensor, labels: Tensor) -> float:
    """Return what to divide logits by, 1 to 10, so that their softmax is calibrated."""
    weight = 1 / torch.bincount(labels, minlength=2).float()
    candidates = torch.arange(1.0, 10.0, 0.01)
    losses = [
        nn.functional.cross_entropy(logits / value, labels, weight=weight) for value in candidates
    ]
    return round(float(candidates[torch.stack(losses).argmin()]), 3)


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
    value = temperature(logits, labels)
    probabilities = (logits / value).softmax(1)[:, 1]
    lower, upper = band(probabilities, labels)
    decision = {
        "temperature": value,
        "threshold": THRESHOLD,
        "indeterminate": {"lower": lower, "upper": upper},
        "rules": RULES,
        "fitted_on": {
            "part": "validation",
            "covid": int((labels == 1).sum()),
            "not_covid": int((labels == 0).sum()),
        },
    }
    path = Path(output_dir) / "decision.json"
    path.write_text(json.dumps(decision, indent=4) + "\n", encoding="utf-8")
