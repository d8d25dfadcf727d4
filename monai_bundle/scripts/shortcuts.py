"""The shortcut audit: what is left of a model when the lungs are gone, or nothing but them is.

A model that reads lungs is lost without them. One that still tells the classes apart then reads
something else: the shape of the outline, or the source.

References
----------
A. J. DeGrave, J. D. Janizek, S.-I. Lee: AI for radiographic COVID-19 detection selects shortcuts
over signal (2021). doi:10.1038/s42256-021-00338-7
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from scripts.linear_probe import regress
from scripts.predictions import FINDINGS, WITHIN, Prediction, from_logits
from torch import Tensor
from torch.nn import functional

from thoracle.classify.lungs import LUNG
from thoracle.classify.network import TwoViews
from thoracle.evaluate.metrics import auroc_interval, wilson

DILATION = 9
"""Pixels of a picture of 512 x 512 by which lungs are widened before they are blacked out."""
THUMBNAIL = 16
LEAST = 5
"""Images of a kind below which an AUROC is not reported."""

Entry = Mapping[str, Any]


def widened(lungs: Tensor, dilation: int) -> Tensor:
    """Return which pixels are within ``dilation`` pixels of lungs, as booleans."""
    size = 2 * dilation + 1
    return functional.max_pool2d((lungs >= LUNG).float()[None], size, 1, dilation)[0] > 0


def differences(network: TwoViews, image: Tensor) -> list[float]:
    """Return the logit of COVID-19 minus the other's for each view of ``(2, rows, columns)``.

    Their mean is that of the network.
    """
    with torch.inference_mode():
        logits = network.view_logits(image[None])[0]
    return (logits[1] - logits[0]).tolist()


def blacked_out(picture: Tensor, lungs: Tensor) -> dict[str, Tensor]:
    """Return a picture without its lungs, and one with nothing but them.

    Parameters
    ----------
    picture
        ``(1, rows, columns)``, 0 to 1.
    lungs
        Found in it, 0 to 1, of any size.
    """
    whole = functional.interpolate(lungs[None], picture.shape[1:], mode="bilinear")[0]
    return {
        "lungs black": picture.masked_fill(widened(whole, DILATION), 0.0),
        "all but lungs black": picture.masked_fill(~widened(whole, 0), 0.0),
    }


def looks(
    picture: Tensor,
    network: TwoViews,
    find: Callable[[Entry], Entry],
    rest: Callable[[Entry], Entry],
) -> dict[str, tuple[list[float], bool]]:
    """Return for each variant of a picture what each view says, and whether the gate refuses it.

    Parameters
    ----------
    picture
        ``(1, rows, columns)``, 0 to 1: the whole radiograph.
    network
        In evaluation mode.
    find
        Adds ``lungs`` to a picture: the preprocessing up to there.
    rest
        Makes the views of the two: the preprocessing from there.
    """
    item = find({"image": picture})
    variants = {"as it is": item}
    for name, black in blacked_out(picture, item["lungs"]).items():
        variants[f"{name}, outlines kept"] = {"image": black, "lungs": item["lungs"]}
        variants[f"{name}, lungs looked for anew"] = find({"image": black})
    said = {}
    for name, one in variants.items():
        prepared = rest(dict(one))
        said[name] = (differences(network, prepared["image"]), "refusal" in prepared)
    return said


def blackened(
    labels: Sequence[int], seen: Sequence[Mapping[str, tuple[list[float], bool]]]
) -> dict[str, dict[str, Any]]:
    """Return for each variant the AUROC, also of each view, and how often the gate refuses it.

    Parameters
    ----------
    labels
        1 for COVID-19, of each image.
    seen
        What :func:`looks` gives for each image.
    """
    result = {}
    for name in seen[0]:
        scores = [one[name][0] for one in seen]
        refused = sum(one[name][1] for one in seen)
        views = [[score[view] for score in scores] for view in range(len(scores[0]))]
        result[name] = {
            "n": len(labels),
            "positive": sum(labels),
            "auroc": auroc_interval(labels, [sum(score) / len(score) for score in scores]),
            "auroc of each view": [auroc_interval(labels, one) for one in views],
            "refused": wilson(refused, len(labels)),
        }
    return result


def between_sources(predictions: Iterable[Prediction]) -> list[dict[str, Any]]:
    """Return how well the score tells two sources of one finding apart, the worst first.

    0.5 is best. Farther from it, the score depends on the source, though perhaps because disease
    is more severe in one of them.
    """
    kinds: dict[tuple[str, str], list[Prediction]] = {}
    for one in predictions:
        kinds.setdefault((one.finding, one.source), []).append(one)
    rows = []
    for (finding, first), (other, second) in combinations(sorted(kinds), 2):
        pair = kinds[finding, first], kinds[other, second]
        if finding != other or min(map(len, pair)) < LEAST:
            continue
        images = [*pair[0], *pair[1]]
        area = auroc_interval(
            [one.source == first for one in images],
            [one.logit for one in images],
            [one.group for one in images],
        )
        row = {"finding": FINDINGS[finding], "higher": first, "lower": second, "n": len(images)}
        rows.append(row | {"auroc": area})
    return sorted(rows, key=lambda row: -abs(row["auroc"].value - 0.5))


def thumbnail(picture: Tensor) -> Tensor:
    """Return the grey values of a whole picture in 16 x 16 pixels, ``(256,)``."""
    return functional.interpolate(picture[None], (THUMBNAIL, THUMBNAIL), mode="area").flatten()


def thumbnail_predictions(
    rows: list[Mapping[str, str]], thumbnails: Tensor, fold: str
) -> list[Prediction]:
    """Return what a logistic regression on thumbnails says: disease it cannot see.

    Parameters
    ----------
    rows
        Of docs/split.csv.
    thumbnails
        ``(rows, 256)``.
    fold
        ``within``, or the sources left out of training, joined by ``+``.
    """
    left_out = [] if fold == WITHIN else fold.split("+")
    chosen = list(_training(rows, left_out))
    mean, deviation = thumbnails[chosen].mean(0), thumbnails[chosen].std(0) + 1e-3
    features = (thumbnails - mean) / deviation
    labels = torch.tensor([int(row["finding"] == "covid") for row in rows])
    # Both classes weigh the same, as in the training of the model.
    weights = 0.5 / torch.bincount(labels[chosen], minlength=2)[labels[chosen]].float()
    layer = regress(features[chosen], labels[chosen], weights)
    with torch.no_grad():
        logits = layer(features)
    return from_logits(rows, (logits[:, 1] - logits[:, 0]).tolist(), fold, 1.0)


def _training(rows: list[Mapping[str, str]], left_out: list[str]) -> Iterator[int]:
    """Yield the places of the training part, without groups that have an image of these sources."""
    groups = {row["group"] for row in rows if row["source"] in left_out}
    for index, row in enumerate(rows):
        if row["split"] == "training" and row["group"] not in groups:
            yield index
