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
from scripts.constant_map import compared, constant_maps
from scripts.data import Boxes, balanced_weights, entries, mask, opacity_boxes
from scripts.fine_tuning import TaughtLoss
from scripts.gate_features import Sample
from scripts.gate_images import Example
from scripts.gate_training import chosen_limits
from scripts.linear_probe import regression_scores
from scripts.measures import Scored, averaged, pointing, ratio, scored
from scripts.predict import hits
from scripts.predictions import Prediction, read, write
from scripts.report import left_out, tried
from scripts.view_score import ViewLayer, slope, subtract
from torch import Tensor

from thoracle.classify.network import HEAD_CHANNELS, OpacityNetwork
from thoracle.evaluate.metrics import Estimate

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
    assert left.value < 0.2
    assert wrong.value <= 0.081


def test_a_source_that_was_left_out_calibrates_nothing() -> None:
    torch.manual_seed(0)
    found = [_said(v + 2, source="nih") for v in torch.randn(100).tolist()]
    found += [_said(v - 2, source="nih", finding="normal") for v in torch.randn(100).tolist()]
    other = [dataclasses.replace(one, source="siim", logit=-one.logit) for one in found]
    assert decision([*found, *other], 0.0, ["siim"]) == decision(found, 0.0)
    alone = scored(found, 0.0).probabilities
    together = scored([*found, *other], 0.0, without=["siim"]).probabilities
    torch.testing.assert_close(together[: len(found)], alone)


def test_a_ratio_is_resampled_by_patient() -> None:
    values, of = [1.0, 1.0, 0.0, 0.0] * 25, [1.0] * 100
    alone = ratio(values, of, [str(number) for number in range(100)])
    pairs = ratio(values, of, [str(number // 2) for number in range(100)])
    assert alone.value == pairs.value == 0.5
    assert ratio([0.0] * 100, [0.0] * 100, ["1"] * 100) == Estimate(0.0, 0.0, 0.0)
    assert pairs.upper - pairs.lower > 1.2 * (alone.upper - alone.lower)


def test_true_probabilities_have_a_calibration_error_by_chance() -> None:
    torch.manual_seed(0)
    few, many = (
        [
            _said(0.0, finding="covid" if one < share else "normal")
            for one, share in zip(torch.rand(n).tolist(), torch.rand(n).tolist(), strict=True)
        ]
        for n in (200, 2000)
    )
    errors = [
        Scored(found, torch.rand(len(found)), 0.4, 0.6).chance_error() for found in (few, many)
    ]
    assert errors[0].lower < errors[0].value < errors[0].upper
    assert errors[1].value < errors[0].value / 2


def test_the_constant_map_is_the_mean_of_the_boxes_within_the_lungs() -> None:
    mean = torch.zeros(64, 64)
    mean[10, 10], mean[50, 50] = 1.0, 0.5
    lungs = torch.full((2, 1, 128, 128), 255, dtype=torch.uint8)
    lungs[1, :, :64] = 0
    assert [one.argmax().item() for one in constant_maps(mean, lungs)] == [
        10 * 64 + 10,
        50 * 64 + 50,
    ]


def test_a_gain_over_the_constant_map_is_of_the_same_images() -> None:
    constant, better = [1.0, 0.0] * 20, [1.0, 1.0, 1.0, 0.0] * 10
    found = compared({"seed1": better}, constant, [str(number) for number in range(40)])
    gain = found["more than the constant map"]["seed1"]
    assert isinstance(gain, Estimate)
    assert gain.value == 0.25
    assert 0 < gain.lower < gain.upper


def test_a_source_left_out_is_judged_whole_against_the_test_part_of_others() -> None:
    torch.manual_seed(0)
    noise = torch.randn(40).tolist()
    found = [_said(v + 1, source="ieee8023", part="training") for v in noise]
    found += [_said(v, source="nih", finding="normal", part="test") for v in noise]
    found += [_said(v - 9, source="kermany", finding="normal", age="child") for v in noise]
    found += [_said(v + 2, source="siim") for v in noise]
    found += [_said(v - 2, source="siim", finding="normal") for v in noise]
    rows = left_out(found, ["ieee8023"], 0.0)
    name = "ieee8023 against nih, healthy"
    assert {name, "undecided, COVID-19 and healthy"} < set(rows)
    assert [one for one in rows if " against " in one] == [name]
    area = rows[name]
    assert isinstance(area, Estimate)
    assert 0.6 < area.value < 0.9


def test_changed_recipes_stand_side_by_side() -> None:
    found = [_said(v, part=part) for v in (2.0, 3.0) * 3 for part in ("test", "validation")]
    found += [dataclasses.replace(one, finding="normal", logit=-1.0) for one in found]
    negatives = [dataclasses.replace(one, category="negative") for one in found[12:]]
    here = [*found[:12], *negatives]
    elsewhere = [dataclasses.replace(one, source="nih", category="") for one in here]
    lines = tried({"as it is": [[*here, *elsewhere]] * 2}, 0.0).splitlines()
    assert lines[0] == "|  | as it is (2) |"
    assert "| SIIM, typical against negative | 1.000 (1.000 to 1.000) |" in lines


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


def test_a_regression_tells_the_class_from_features_that_show_it() -> None:
    torch.manual_seed(0)
    rows = [_row(), _row(finding="normal"), _row(finding="pneumonia")] * 10
    features = torch.randn(30, 4)
    features[::3, 2] += 5
    scores = regression_scores(rows, features, features)
    assert scores[::3].min() > max(scores[1::3].max(), scores[2::3].max())


def test_each_source_weighs_the_same_in_the_limits_of_the_gate() -> None:
    def said(source: str, frontal: float, taught: str = "frontal") -> tuple[Sample, str, Tensor]:
        example = Example(torch.empty(0), "frontal", taught, "1", source)
        sample = Sample(torch.empty(0), example, "frontal", taught, True)
        return sample, f"source {source}", torch.tensor([frontal, 1 - frontal])

    strange = [said("large", 0.1)] * 200 + [said("large", 0.9)] * 9_800
    usual = [said("small", 0.5)] * 4 + [said("small", 0.95)] * 96
    damage = [said("small", 0.01, "inverted")] * 50
    found = chosen_limits([*strange, *usual, *damage])
    # 1 % of the large source and 2 % of the small one make 1 % of two sources; 2 % and 4 %, 3 %.
    assert found["least_frontal"] == 0.5
    assert found["sure_frontal"] == 0.9
