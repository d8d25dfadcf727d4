"""Where in the lungs a result comes from: class activation maps of EfficientNet-Lite0.

Behind its last feature maps, the network has a mean over all places and a linear layer. So the
difference of its two logits is exactly a sum over places, plus the difference of the biases: the
contribution of a place is what the linear layer makes of the features there (Zhou et al. 2016).
For such a network, Grad-CAM (Selvaraju et al. 2017) gives the same map without negative values.

A map says what the network used, not where disease is, and not that the use was right.

References
----------
B. Zhou et al.: Learning Deep Features for Discriminative Localization (2016). arXiv:1512.04150
R. R. Selvaraju et al.: Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization (2017). arXiv:1610.02391
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from thoracle.classify.network import EfficientNetLite0

Box = tuple[float, float, float, float]
"""Top, bottom, left and right of a view, as shares of the radiograph."""

STRIDE = 32
"""Pixels of the image from one place of the last feature maps to the next."""
STEPS = 4
"""Positions of the image within a stride, in each direction, that are averaged."""


def contributions(network: EfficientNetLite0, images: Tensor) -> Tensor:
    """Return how much each place adds to the logit of the positive class over the other's.

    Parameters
    ----------
    network
        In evaluation mode, with two logits.
    images
        ``(batch, 1, rows, columns)``: one view of each radiograph.

    Returns
    -------
    Tensor
        ``(batch, rows / 32, columns / 32)``. The sum over places is the difference of the logits
        minus that of the biases.
    """
    with torch.no_grad():
        maps = network.maps(images)
        weight = network._fc.weight[1] - network._fc.weight[0]
        places = maps.shape[2] * maps.shape[3]
        return torch.einsum("bkrc,k->brc", maps, weight) / places


def saliency(
    network: EfficientNetLite0, image: Tensor, lungs: Tensor, steps: int = STEPS
) -> Tensor:
    """Return the contributions on the grid of one view, zero outside the lungs.

    The image is moved over ``steps`` x ``steps`` positions within one stride, so that the map has
    a place every ``32 / steps`` pixels in place of every 32. Each convolution of stride 2 centres
    its place (i, j) on the pixel (2 i, 2 j): place (i, j) of the last maps belongs to the pixel
    (32 i, 32 j), not to the middle of a square of 32 x 32 pixels, and is put there.

    Parameters
    ----------
    network
        In evaluation mode, with two logits.
    image, lungs
        ``(1, rows, columns)`` each: one view as the network takes it, and its lungs, 0 to 1.
    steps
        Positions in each direction, a divisor of 32; the time grows with the square.

    Returns
    -------
    Tensor
        ``(rows, columns)``. The unit is that of the difference of the logits, per 32 x 32 pixels
        that are like this: comparable between images. Positive speaks for the positive class.
    """
    step = STRIDE // steps
    rows, columns = image.shape[1:]
    # Beyond the view is what stands for hidden: zero.
    wide = functional.pad(image, (0, STRIDE, 0, STRIDE))
    offsets = range(step // 2, STRIDE, step)
    moved = [wide[:, y : y + rows, x : x + columns] for y in offsets for x in offsets]
    coarse = contributions(network, torch.stack(moved))
    # (y, x, i, j) to (i, y, j, x): the positions within a stride stand between two places.
    places = coarse.reshape(steps, steps, *coarse.shape[1:]).permute(2, 0, 3, 1)
    fine = places.reshape(1, 1, coarse.shape[1] * steps, coarse.shape[2] * steps)
    whole = functional.interpolate(fine, (rows, columns), mode="bilinear", align_corners=False)
    return whole[0, 0] * lungs[0]


def on_original(saliency_map: Tensor, box: Box, rows: int, columns: int) -> Tensor:
    """Return a map on the grid of the image that it was cut from, zero outside the box.

    Parameters
    ----------
    saliency_map
        Of the view that was cut out.
    box
        What of the image the view shows.
    rows, columns
        Of the image, and of the map that is returned; its unit stays.
    """
    top, bottom = round(box[0] * rows), round(box[1] * rows)
    left, right = round(box[2] * columns), round(box[3] * columns)
    size = (bottom - top, right - left)
    cut = functional.interpolate(saliency_map[None, None], size, mode="bilinear", antialias=True)
    original = torch.zeros(rows, columns)
    original[top:bottom, left:right] = cut[0, 0]
    return original


def of_views(
    views: Iterable[tuple[EfficientNetLite0, Tensor, Tensor, Box]],
    rows: int,
    columns: int,
    steps: int = STEPS,
) -> Tensor:
    """Return the map of a radiograph of which the logits are the mean of its views' logits.

    Parameters
    ----------
    views
        Network, image and lungs, as for :func:`saliency`, and box of each view.
    rows, columns
        Of the radiograph, and of the map.
    steps
        As for :func:`saliency`.

    Returns
    -------
    Tensor
        The unit is that of the difference of the logits, per 1/49 of the radiograph: the share of
        a 32 x 32 square in a view of 224 x 224 pixels.
    """
    maps = []
    for network, image, lungs, box in views:
        area = (box[1] - box[0]) * (box[3] - box[2])
        maps.append(on_original(saliency(network, image, lungs, steps), box, rows, columns) / area)
    return torch.stack(maps).mean(0)
