"""Where a radiograph shows opacities, from the map that the network gives beside its answer.

The network learned it from boxes that radiologists drew around opacities: a value is the share of
that place which would be inside such a box. So it says where the network sees opacities, and not
what they are. What is outside the box of the lungs is left out: no box was drawn there.
"""

import torch
from torch import Tensor
from torch.nn import functional

from thoracle.classify.lungs import Shares
from thoracle.records import Saliency

GRID = (512, 512)
"""Rows and columns of a map: those that the bundle reduces a radiograph to before it looks."""


def opacities(logits: Tensor, box: Shares) -> Saliency:
    """Return the map of opacities of a radiograph.

    Parameters
    ----------
    logits
        ``(1, rows, columns)``: logit of "inside a box around an opacity" of each place.
    box
        Of the lungs.

    Returns
    -------
    Saliency
        Of 512 x 512 places, 0 to 1; exactly zero outside the box of the lungs.
    """
    whole = functional.interpolate(logits[None].sigmoid(), GRID, mode="bilinear")[0, 0]
    found = torch.zeros(GRID)
    rows = slice(round(box[0] * GRID[0]), round(box[1] * GRID[0]))
    columns = slice(round(box[2] * GRID[1]), round(box[3] * GRID[1]))
    found[rows, columns] = whole[rows, columns]
    return Saliency(found.numpy())
