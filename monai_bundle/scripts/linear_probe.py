"""The first step of training: a classifier on published features.

Fine-tuning from a random classifier first spoils the features; from a fitted one it does not
(A. Kumar et al.: Fine-Tuning can Distort Pretrained Features and Underperform
Out-of-Distribution, 2022).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from thoracle.classify.network import TwoViews

PENALTY = 0.01
"""Weight of the sum of squares, for features of variance 1."""


def fit_probe(network: TwoViews, batches: Iterable[dict[str, Any]], weights: Tensor) -> None:
    """Fit the last layer of each view and leave all else as it is.

    Parameters
    ----------
    network
        The ``_fc`` of its views is changed in place.
    batches
        Images and labels, in a fixed order and not augmented.
    weights
        ``(images,)``, of each image in that order; their scale does not matter.
    """
    network.eval()
    views = (network.whole, network.lungs)
    features: list[list[Tensor]] = [[], []]
    labels = []
    with torch.no_grad():
        for batch in batches:
            for channel, view in enumerate(views):
                image = batch["image"][:, channel : channel + 1]
                features[channel].append(view.features(image))
            labels.append(batch["label"])
    y, share = torch.cat(labels), (weights / weights.sum()).float()
    for view, found in zip(views, features, strict=True):
        _fit(view._fc, torch.cat(found), y, share)


def _fit(last: nn.Linear, x: Tensor, y: Tensor, weights: Tensor) -> None:
    """Set a layer to the regression of labels on features ``(images, features)``."""
    mean, deviation = x.mean(0), x.std(0) + 1e-3
    layer = regress((x - mean) / deviation, y, weights)
    weight = layer.weight.detach() / deviation
    with torch.no_grad():
        last.weight.copy_(weight)
        last.bias.copy_(layer.bias - weight @ mean)


def regress(x: Tensor, y: Tensor, weights: Tensor) -> nn.Linear:
    """Return a logistic regression on standardised features ``(images, features)``."""
    layer = nn.Linear(x.shape[1], 2)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        entropy = nn.functional.cross_entropy(layer(x), y, reduction="none")
        total: Tensor = (weights * entropy).sum() + PENALTY * layer.weight.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return layer
