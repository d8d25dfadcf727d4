"""The map of opacities, from what the network gives to what results show."""

import numpy as np
import torch

from thoracle.classify.classifier import opacities

WHOLE = (0.0, 1.0, 0.0, 1.0)


def test_a_map_is_stretched_over_the_whole_radiograph() -> None:
    logits = torch.full((1, 12, 12), -20.0)
    logits[0, 3, 8] = 20.0
    found = opacities(logits, WHOLE).contributions
    assert found.shape == (512, 512)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert abs(row - 3.5 / 12 * 512) <= 1
    assert abs(column - 8.5 / 12 * 512) <= 1
    assert 0.9 < found.max() <= 1


def test_a_map_is_zero_outside_the_box_of_the_lungs() -> None:
    found = opacities(torch.zeros(1, 12, 12), (0.25, 0.75, 0.125, 0.5)).contributions
    assert (found[128:384, 64:256] == 0.5).all()
    assert np.count_nonzero(found) == 256 * 192


def test_a_map_of_nothing_is_of_zeros_and_never_scaled_up() -> None:
    assert opacities(torch.full((1, 12, 12), -20.0), WHOLE).contributions.max() < 1e-6
