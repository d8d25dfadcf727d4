"""A logistic regression on features that somebody else made."""

from collections.abc import Collection, Mapping, Sequence

import torch
from scripts.predictions import Prediction, of_scores
from torch import Tensor, nn

PENALTY = 0.01
"""Weight of the sum of squares, for features of variance 1."""


def regress(x: Tensor, y: Tensor, weights: Tensor, penalty: float = PENALTY) -> nn.Linear:
    """Return a logistic regression on standardised features.

    Parameters
    ----------
    x
        ``(images, features)``, mean 0 and variance 1.
    y
        ``(images,)``, 0 or 1.
    weights
        ``(images,)``, of each image; together 1.
    penalty
        Weight of the sum of the squares of the coefficients.
    """
    layer = nn.Linear(x.shape[1], 2)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        entropy = nn.functional.cross_entropy(layer(x), y, reduction="none")
        total: Tensor = (weights * entropy).sum() + penalty * layer.weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]  # torch annotates neither
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]  # nor this
    return layer


def regression_scores(taught: Sequence[Mapping[str, str]], x: Tensor, judged: Tensor) -> Tensor:
    """Return the logit of COVID-19 of a regression, classes weighing the same, ``(n,)``.

    Parameters
    ----------
    taught
        Rows of the split, of both classes.
    x, judged
        Features, ``(len(taught), m)`` and ``(n, m)``.
    """
    mean, deviation = x.mean(0), x.std(0) + 1e-3
    labels = torch.tensor([int(row["finding"] == "covid") for row in taught])
    share = 0.5 / torch.bincount(labels).float()
    layer = regress((x - mean) / deviation, labels, share[labels])
    with torch.no_grad():
        logits = layer((judged - mean) / deviation)
    found: Tensor = logits[:, 1] - logits[:, 0]
    return found


def scored_by(
    rows: Sequence[Mapping[str, str]], features: Tensor, sources: Collection[str]
) -> list[Prediction]:
    """Return what a regression says of all rows that was not taught some sources."""
    out = {row["group"] for row in rows if row["source"] in sources}
    places = [
        place
        for place, row in enumerate(rows)
        if row["split"] == "training" and row["group"] not in out
    ]
    taught = [rows[place] for place in places]
    return of_scores(rows, regression_scores(taught, features[places], features).tolist())
