import pytest
import torch
from torch import Tensor

from thoracle.classify.explanation import explained
from thoracle.classify.network import EfficientNetLite0, TwoViews
from thoracle.classify.saliency import STRIDE, contributions, of_views, on_original, saliency

SIDE = 224


def _random_network() -> EfficientNetLite0:
    torch.manual_seed(1)
    network = EfficientNetLite0()
    # One pass in training, of which all is kept: else the features of a fresh network die out.
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0
    network(torch.rand(2, 1, SIDE, SIDE))
    network.eval().requires_grad_(False)
    network._fc.bias.copy_(torch.tensor([0.7, -1.2]))
    return network


def _brightness_network() -> EfficientNetLite0:
    """Return a network of which the positive logit is the brightness, averaged by each kernel."""
    network = EfficientNetLite0().eval().requires_grad_(False)
    for part in network.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.weight.zero_()
            # From channel 0 to channel 0, and nothing else.
            part.weight[0, 0] = 1 / part.weight[0, 0].numel()
    network._fc.weight.zero_()
    network._fc.weight[1, 0] = 1
    return network


def _two_views() -> TwoViews:
    network = TwoViews().eval().requires_grad_(False)
    network.whole, network.lungs = _random_network(), _random_network()
    return network


def _spot(row: int, column: int) -> Tensor:
    image = torch.zeros(1, SIDE, SIDE)
    image[0, row - 12 : row + 12, column - 12 : column + 12] = 1
    return image


def _peak(values: Tensor) -> tuple[int, int]:
    index = int(values.argmax())
    return index // values.shape[1], index % values.shape[1]


def test_contributions_and_biases_are_the_difference_of_the_logits() -> None:
    network = _random_network()
    images = torch.rand(2, 1, SIDE, SIDE) * 2 - 1
    with torch.no_grad():
        logits = network(images)
    bias = network._fc.bias[1] - network._fc.bias[0]

    places = contributions(network, images)

    assert places.shape == (2, 7, 7)
    assert torch.allclose(
        places.sum((1, 2)) + bias, logits[:, 1] - logits[:, 0], rtol=1e-4, atol=1e-4
    )
    assert float(places.std()) > 0


@pytest.mark.parametrize("steps", [1, 4])
def test_a_map_in_lungs_everywhere_adds_up_to_the_mean_difference(steps: int) -> None:
    network = _random_network()
    image = torch.rand(1, SIDE, SIDE) * 2 - 1
    wide = torch.nn.functional.pad(image, (0, 32, 0, 32))
    offsets = range(32 // steps // 2, 32, 32 // steps)
    moved = torch.stack([wide[:, y : y + SIDE, x : x + SIDE] for y in offsets for x in offsets])
    bias = network._fc.bias[1] - network._fc.bias[0]
    with torch.no_grad():
        logits = network(moved)

    found = saliency(network, image, torch.ones(1, SIDE, SIDE), steps)

    expected = (logits[:, 1] - logits[:, 0]).mean() - bias
    assert found.shape == (SIDE, SIDE)
    assert float(found.sum()) / 32**2 == pytest.approx(float(expected), rel=1e-3, abs=1e-3)


def test_a_map_is_zero_outside_the_lungs() -> None:
    lungs = torch.zeros(1, SIDE, SIDE)
    lungs[:, 40:180, 30:100] = 1

    found = saliency(_random_network(), torch.rand(1, SIDE, SIDE), lungs)

    assert float(found[lungs[0] == 0].abs().max()) == 0
    assert float(found[lungs[0] == 1].abs().max()) > 0


@pytest.mark.parametrize(("row", "column"), [(64, 160), (150, 50), (40, 200)])
def test_the_peak_is_where_the_score_comes_from(row: int, column: int) -> None:
    found = saliency(_brightness_network(), _spot(row, column), torch.ones(1, SIDE, SIDE))

    peak = _peak(found)

    # A place of the last maps sees far more than a stride, so the peak is broad.
    assert abs(peak[0] - row) <= STRIDE
    assert abs(peak[1] - column) <= STRIDE


def test_the_same_image_gives_the_same_map() -> None:
    network, image = _random_network(), torch.rand(1, SIDE, SIDE)
    lungs = torch.ones(1, SIDE, SIDE)

    assert torch.equal(saliency(network, image, lungs), saliency(network, image, lungs))


def test_a_map_goes_back_to_where_the_box_was() -> None:
    box = (0.1, 0.6, 0.25, 0.75)
    whole = on_original(torch.ones(SIDE, SIDE), box, 1000, 800)

    inside = whole > 0

    assert whole.shape == (1000, 800)
    assert torch.equal(inside.any(1).nonzero().flatten(), torch.arange(100, 600))
    assert torch.equal(inside.any(0).nonzero().flatten(), torch.arange(200, 600))
    assert torch.allclose(whole[inside], torch.ones(()))


def test_a_peak_keeps_its_place_on_the_original() -> None:
    cut = torch.zeros(SIDE, SIDE)
    cut[54:58, 166:170] = 1

    peak = _peak(on_original(cut, (0.1, 0.6, 0.25, 0.75), 1000, 800))

    assert abs(peak[0] - (100 + 56 / SIDE * 500)) <= 5
    assert abs(peak[1] - (200 + 168 / SIDE * 400)) <= 5


def test_two_views_of_a_radiograph_are_averaged_where_they_show_the_same() -> None:
    network, lungs = _brightness_network(), torch.ones(1, SIDE, SIDE)
    whole, box = (0.0, 1.0, 0.0, 1.0), (0.25, 0.75, 0.5, 1.0)
    # The middle of the box is at (0.5, 0.75) of the radiograph.
    views = [
        (network, _spot(112, 168), lungs, whole),
        (network, _spot(112, 112), lungs, box),
    ]

    found = of_views(views, 448, 448)

    total = float(found.sum()) / 64**2
    apart = [float(saliency(*view[:3]).sum()) / 32**2 for view in views]
    assert total == pytest.approx(sum(apart) / 2, rel=0.02)
    peak = _peak(found)
    assert abs(peak[0] - 224) <= 24
    assert abs(peak[1] - 336) <= 24


def test_an_explanation_adds_up_to_the_mean_difference_of_both_views() -> None:
    network, views = _two_views(), torch.rand(2, SIDE, SIDE) * 2 - 1
    everywhere = torch.ones(1, SIDE, SIDE)

    found = explained(network, views, torch.ones(1, 128, 128), everywhere, (0.1, 0.8, 0.2, 0.9))

    parts = (network.whole, network.lungs)
    # Per 1/49 of the radiograph, as the map; a view that shows less of it counts as much.
    apart = [
        float(saliency(part, view[None], everywhere).sum()) / 32**2
        for part, view in zip(parts, views, strict=True)
    ]
    assert found.contributions.shape == (512, 512)
    assert found.contributions.sum() * 49 / 512**2 == pytest.approx(sum(apart) / 2, rel=0.02)


def test_an_explanation_is_zero_where_lung_is_less_likely_than_not() -> None:
    lungs = torch.full((1, 128, 128), 0.4)
    lungs[:, 32:96, 16:64] = 0.9

    found = explained(
        _two_views(),
        torch.rand(2, SIDE, SIDE),
        lungs,
        torch.full((1, SIDE, SIDE), 0.4),
        (0.2, 0.8, 0.1, 0.6),
    )

    inside = found.contributions[136:376, 72:248]  # without the edges, where both are mixed
    outside = found.contributions.copy()
    outside[124:388, 60:260] = 0
    assert (inside != 0).all()
    assert (outside == 0).all()
