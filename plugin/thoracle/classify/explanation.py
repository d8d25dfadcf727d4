"""Which places of a radiograph a result rests on, from what the classifier made of it.

The recipe is the one whose faithfulness the model card measures: sixteen passes of each view.
"""

import torch
from torch import Tensor
from torch.nn import functional

from thoracle.classify.lungs import LUNG
from thoracle.classify.network import TwoViews
from thoracle.classify.saliency import Box, of_views
from thoracle.records import Saliency

GRID = (512, 512)
"""Rows and columns of a map: those that the bundle reduces a radiograph to before it looks."""
WHOLE: Box = (0.0, 1.0, 0.0, 1.0)


def explained(
    network: TwoViews, views: Tensor, whole_lungs: Tensor, cut_lungs: Tensor, box: Box
) -> Saliency:
    """Return what each place of a radiograph adds to its result.

    Parameters
    ----------
    network
        In evaluation mode, in torch: its last feature maps are read.
    views
        ``(2, rows, columns)``, as the network takes them: the whole, and the lungs.
    whole_lungs
        ``(1, any, any)``, probability of lung in the whole radiograph, 0 to 1.
    cut_lungs
        ``(1, rows, columns)``, the same of the second view.
    box
        What of the radiograph the second view shows.

    Returns
    -------
    Saliency
        Of 512 x 512 places; exactly zero where lung is less likely than not.
    """
    size = (views.shape[1], views.shape[2])
    parts = [
        (network.whole, views[:1], _resized(whole_lungs, size), WHOLE),
        (network.lungs, views[1:], cut_lungs, box),
    ]
    found = of_views(parts, *GRID)
    inside = _resized(whole_lungs, GRID)[0] >= LUNG
    return Saliency(torch.where(inside, found, 0.0).numpy())


def _resized(lungs: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(lungs[None], size, mode="bilinear", antialias=True)[0]
