"""What training and calibration of the bundle are made of."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scripts.augmentation import Augment
from scripts.calibration import band, counted, decision, scaling, weights
from scripts.collapse import CollapseCheck
from scripts.data import Boxes, balanced_weights, entries, mask, opacity_boxes
from scripts.fine_tuning import TaughtLoss
from scripts.measures import averaged, pointing, scored
from scripts.predict import hits
from scripts.predictions import Prediction, read, write
from scripts.view_score import ViewLayer, slope, subtract
from torch import Tensor

from thoracle.classify.network import HEAD_CHANNELS, OpacityNetwork

SIDE = 64


def _batch(n: int = 4) -> dict[str, Tensor]:
    boxes = torch.zeros(n, 1, 64, 64, dtype=torch.uint8)
    boxes[:, :, 8:24, 40:60] = 255
    image = torch.zeros(n, 1, 256, 256, dtype=torch.uint8)
    image[:, :, 32:96, 160:240] = 255
    return {
        "image": image,
        "lungs": torch.full((n, 1, 128, 128), 255, dtype=torch.uint8),
        "boxes": boxes,
        "target": torch.ones(n),
        "mapped": torch.ones(n),
    }


def _row(**changes: str) -> dict[str, str]:
    row = {"path": "a", "source": "siim", "finding": "covid", "category": "typical"}
    return row | {"view": "AP", "age": "adult", "group": "1", "split": "training"} | changes


def _said(logit: float, **changes: object) -> Prediction:
    one = Prediction(
        **{"path": "a", "source": "siim", "finding": "covid", "category": "typical"},
        **{"age": "adult", "view": "AP", "group": "1", "part": "validation"},
        logit=logit,
        view_score=0.0,
        peak=0.5,
        hit=1.0,
    )
    return dataclasses.replace(one, **changes)  # type: ignore[arg-type]  # names are fields


def test_the_same_seed_changes_a_batch_alike_and_another_otherwise() -> None:
    image, targets = Augment(SIDE, 1)(_batch())
    again, same = Augment(SIDE, 1)(_batch())
    other, _ = Augment(SIDE, 2)(_batch())
    assert image.shape == (4, 1, SIDE, SIDE)
    assert targets["map"].shape == (4, 1, SIDE // 16, SIDE // 16)
    assert torch.equal(image, again)
    assert torch.equal(targets["map"], same["map"])
    assert not torch.equal(image, other)


def test_boxes_move_with_what_they_are_around() -> None:
    torch.manual_seed(0)
    still = {"blackened": 0.0}
    augment = Augment(256, 5, **still)
    # Grey values stay, so that what is bright can be found again.
    augment._exposure = augment._sharpness = augment._lettered = lambda image: image  # type: ignore[method-assign]
    image, targets = augment(_batch(16))
    bright = torch.nn.functional.avg_pool2d((image > 0).float(), 16)
    assert float((bright - targets["map"]).abs().mean()) < 0.02
    assert float(targets["map"].mean()) > 0.02


def test_a_blackened_image_teaches_that_nothing_is_known() -> None:
    image, targets = Augment(SIDE, 1, blackened=1.0)(_batch())
    assert float(image.max()) == -1
    assert targets["target"].tolist() == [0.5] * 4
    assert targets["mapped"].tolist() == [0] * 4


def test_images_without_marks_teach_no_map() -> None:
    found = {"logits": torch.zeros(2, 2), "opacity": torch.zeros(2, 1, 4, 4)}
    targets = {"target": torch.ones(2), "mapped": torch.zeros(2), "map": torch.ones(2, 1, 4, 4)}
    unmarked = TaughtLoss(map_weight=1.0)(found, targets)
    assert float(unmarked) == pytest.approx(float(TaughtLoss(map_weight=0.0)(found, targets)))
    marked = TaughtLoss(map_weight=1.0)(found, targets | {"mapped": torch.tensor([1.0, 0.0])})
    assert float(marked) == pytest.approx(float(unmarked) * 2)


def test_a_run_whose_answers_are_constant_is_ended() -> None:
    check, engine = CollapseCheck(patience=3), SimpleNamespace(state=SimpleNamespace())
    engine.state.output = {"pred": {"logits": torch.zeros(8, 2)}}
    for _ in range(3):
        check(engine)
    with pytest.raises(RuntimeError, match="the network has collapsed"):
        check(engine)
    engine.state.output = {"pred": {"logits": torch.randn(8, 2)}}
    check(engine)
    engine.state.output = {"pred": {"logits": torch.zeros(8, 2)}}
    check(engine)


def test_classes_are_drawn_by_their_share_and_views_of_a_kind_alike() -> None:
    rows = [_row(view="AP")] * 30 + [_row(view="PA")] * 10
    rows += [_row(finding="normal", view="PA")] * 50 + [_row(finding="unsure")] * 5
    drawn = balanced_weights(rows)
    assert float(drawn[:40].sum()) == pytest.approx(0.45)
    assert float(drawn[:30].sum()) == pytest.approx(float(drawn[30:40].sum()))
    assert float(drawn[40:90].sum()) == pytest.approx(0.45)
    assert float(drawn[90:].sum()) == pytest.approx(0.1)


def test_a_source_is_left_out_with_the_groups_that_it_is_in(tmp_path: Path) -> None:
    lines = ["path,source,group,split,age", "a,x,1,training,adult", "b,y,1,training,adult"]
    lines += ["c,y,2,training,child", "d,y,3,test,adult"]
    (tmp_path / "split.csv").write_text("\n".join(lines) + "\n")
    split = str(tmp_path / "split.csv")
    assert [row["path"] for row in entries(split, ["training"], ["x"])] == ["c"]
    assert entries(split, ["training"], ["x"], children=False) == []


def test_boxes_are_shares_of_the_original_sides(tmp_path: Path) -> None:
    folder = tmp_path / "siim"
    folder.mkdir()
    box = "[{'x': 250, 'y': 125, 'width': 250, 'height': 500}]"
    head = "path,orig_width,orig_height,opacity_boxes_in_original_px"
    (folder / "manifest.csv").write_text(f'{head}\na.jpg,1000,500,"{box}"\nb.jpg,10,10,\n')
    rows = [_row(path="siim/a.jpg"), _row(path="siim/b.jpg"), _row(path="c", finding="normal")]
    assert opacity_boxes(str(tmp_path), rows) == [[(0.25, 0.25, 0.5, 1.0)], None, []]


def test_a_mask_is_marked_inside_its_boxes() -> None:
    found = mask([(0.25, 0.5, 0.5, 0.75)])
    assert found.shape == (1, 64, 64)
    assert (found[0, 32:48, 16:32] == 255).all()
    assert int((found > 0).sum()) == 16 * 16


def test_a_map_hits_when_its_greatest_place_is_inside_a_box() -> None:
    maps = torch.zeros(3, 4, 4)
    maps[:, 1, 2] = 1
    boxes: list[Boxes | None] = [[(0.5, 0.25, 0.75, 0.5)], [(0.0, 0.0, 0.5, 1.0)], None]
    assert hits(maps, boxes) == [1.0, 0.0, -1.0]


def test_subtracting_a_view_changes_the_answer_by_its_score() -> None:
    torch.manual_seed(0)
    network = OpacityNetwork().eval()
    layer = ViewLayer(torch.randn(HEAD_CHANNELS), 0.3)
    image = torch.rand(2, 1, SIDE, SIDE)
    with torch.no_grad():
        evidence, _ = network.evidence(image)
        before = network(image)
        subtract(network, layer.scaled(0.5))
        after = network(image)
    expected = before[:, 1] - 0.5 * layer.scores(evidence)
    torch.testing.assert_close(after[:, 1], expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(after[:, 0], before[:, 0])


def test_the_slope_is_that_within_one_finding() -> None:
    rows = [_row(), _row(), _row(finding="normal"), _row(finding="normal")]
    scores = torch.tensor([0.0, 1.0, 10.0, 11.0])
    assert slope(torch.tensor([5.0, 5.5, 0.0, 0.5]), scores, rows) == pytest.approx(0.5)


def test_scaling_finds_offset_and_temperature_again() -> None:
    torch.manual_seed(0)
    true = torch.randn(1000) * 2
    labels = (torch.rand(1000) < true.sigmoid()).long()
    offset, temperature = scaling(true * 3 - 1.5, labels, torch.full((1000,), 1 / 1000))
    assert offset == pytest.approx(1.5, abs=0.5)
    assert temperature == pytest.approx(3, abs=0.6)


@pytest.mark.parametrize("limit", [0.05, 0.1])
def test_the_band_keeps_wrong_answers_below_its_limit(limit: float) -> None:
    torch.manual_seed(0)
    probabilities = torch.rand(500)
    labels = (torch.rand(500) < probabilities).long()
    share = torch.full((500,), 1 / 500)
    lower, upper = band(probabilities, labels, share, limit)
    positive, negative = probabilities >= upper, probabilities < lower
    wrong = (positive & (labels == 0)) | (negative & (labels == 1))
    assert lower <= 0.5 <= upper
    assert float(wrong.sum()) <= limit * float((positive | negative).sum())


def test_answers_that_are_right_need_no_band() -> None:
    probabilities = torch.tensor([0.1, 0.2, 0.8, 0.9])
    lower, upper = band(probabilities, torch.tensor([0, 0, 1, 1]), torch.full((4,), 0.25), 0.08)
    assert lower == upper


def test_what_is_unsure_and_children_calibrate_nothing() -> None:
    found = [_said(1.0), _said(0, finding="unsure"), _said(0, age="child"), _said(0, part="test")]
    assert counted(found) == found[:1]


def test_both_classes_weigh_the_same_and_one_in_six_others_is_a_pneumonia() -> None:
    found = [_said(1.0)] * 3 + [_said(0.0, finding="normal")] * 4
    found += [_said(0.0, finding="pneumonia")] * 5
    share = weights(found)
    assert float(share[:3].sum()) == pytest.approx(0.5)
    assert float(share[3:7].sum()) == pytest.approx(0.5 * 5 / 6)
    assert float(share.sum()) == pytest.approx(1)


def test_a_decision_says_its_band_and_comes_back_from_json() -> None:
    torch.manual_seed(0)
    logits = torch.randn(300).tolist()
    found = [_said(v + 2, finding="covid") for v in logits]
    found += [_said(v - 2, finding="normal") for v in logits]
    rule = json.loads(json.dumps(decision(found, 0.5)))
    lower, upper = rule["indeterminate"]["lower"], rule["indeterminate"]["upper"]
    assert rule["sentence"] == f"positive from {upper:.2f}, negative below {lower:.2f}"
    assert lower <= rule["threshold"] <= upper
    answers = scored(found, 0.5)
    assert (answers.lower, answers.upper) == (lower, upper)
    left, wrong = answers.shares()
    assert left < 0.2
    assert wrong <= 0.081


def test_predictions_come_back_from_their_file(tmp_path: Path) -> None:
    found = [_said(1.25, hit=-1.0), _said(-3.5, view="", finding="normal")]
    write(tmp_path / "folder" / "p.csv", found)
    assert read(tmp_path / "folder" / "p.csv") == found


def test_several_seeds_are_averaged_image_by_image() -> None:
    mean = averaged([[_said(1.0)], [_said(3.0)]])
    assert [one.logit for one in mean] == [2.0]


def test_only_images_with_boxes_are_pointed_at() -> None:
    found = pointing([_said(0, hit=1.0), _said(0, hit=0.0), _said(0, hit=-1.0)])
    assert found is not None
    assert found.value == 0.5
    assert pointing([_said(0, hit=-1.0)]) is None
