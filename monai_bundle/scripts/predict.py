"""What a network says of images of the split, as a table."""

from collections.abc import Sequence

import torch
from scripts.cache import as_input
from scripts.data import Boxes, Row
from scripts.predictions import SAME, Prediction
from scripts.view_score import ViewLayer
from torch import Tensor

from thoracle.classify.network import OpacityNetwork

BATCH = 32


def judged(network: OpacityNetwork, images: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return evidence ``(n, 1346)``, logit of COVID-19 over the other's ``(n,)``, and map.

    Parameters
    ----------
    network
        In evaluation mode.
    images
        As cached, ``(n, 1, 256, 256)`` uint8.
    side
        Rows and columns of what the network takes.
    """
    evidence, maps = [], []
    with torch.inference_mode():
        for batch in torch.split(images, BATCH):
            found, opacity = network.evidence(as_input(batch, side))
            evidence.append(found)
            maps.append(opacity[:, 0].sigmoid())
        logits = network._fc(torch.cat(evidence))
    # Outside inference mode, so that a regression may take them.
    return torch.cat(evidence).clone(), (logits[:, 1] - logits[:, 0]).clone(), torch.cat(maps)


def hits(maps: Tensor, boxes: Sequence[Boxes | None]) -> list[float]:
    """Return for each map whether its greatest value is inside a box: 1, 0, or -1 without boxes.

    Parameters
    ----------
    maps
        ``(n, rows, columns)``.
    boxes
        Of each image, as :func:`scripts.data.opacity_boxes` gives them.
    """
    rows, columns = maps.shape[1:]
    found = []
    for place, edges in zip(maps.flatten(1).argmax(1).tolist(), boxes, strict=True):
        y, x = (place // columns + 0.5) / rows, (place % columns + 0.5) / columns
        inside = any(
            left <= x <= right and top <= y <= bottom for left, top, right, bottom in edges or ()
        )
        found.append(float(inside) if edges else -1.0)
    return found


def predictions(
    rows: Sequence[Row],
    boxes: Sequence[Boxes | None],
    said: tuple[Tensor, Tensor, Tensor],
    layer: ViewLayer,
) -> list[Prediction]:
    """Return what :func:`judged` found as predictions, in the order of the rows."""
    evidence, logits, maps = said
    columns = zip(
        rows,
        logits.tolist(),
        layer.scores(evidence).tolist(),
        maps.amax((1, 2)).tolist(),
        hits(maps, boxes),
        strict=True,
    )
    return [
        Prediction(
            **{name: row[name] for name in SAME},
            part=row["split"],
            logit=logit,
            view_score=score,
            peak=peak,
            hit=hit,
        )
        for row, logit, score, peak, hit in columns
    ]
