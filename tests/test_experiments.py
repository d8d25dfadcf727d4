"""What experiments change in the recipe, and the tables of what they say."""

import dataclasses
import json
import random
import re
from pathlib import Path

import pytest
import torch
from scripts import experiments
from scripts.experiment_tables import CHANGES, found_in, page
from scripts.experiments import ARMS, PATTERNS, SHORT, PatternAugment, PatternLoss, possible
from scripts.linear_probe import scored_by
from scripts.precision import Said, compared, outcomes
from scripts.predictions import Prediction, write

from thoracle.classify.network import HEAD_CHANNELS
from thoracle.evaluate.metrics import Estimate

TRAIN = Path(experiments.__file__).parent.parent / "configs" / "train.json"


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


def _run(gap: float, seed: int) -> list[Prediction]:
    """Return what a network with some gap between the classes says of images of every kind."""
    drawn = random.Random(seed)
    kinds = [("siim", "covid", "typical"), ("siim", "normal", "negative")]
    kinds += [("siim", "pneumonia", "atypical"), ("ieee8023", "covid", "")]
    kinds += [("nih", "normal", ""), ("nih", "pneumonia", ""), ("ieee8023", "pneumonia", "")]
    return [
        _said(
            drawn.gauss(gap if finding == "covid" else 0.0, 1.0),
            **{"source": source, "finding": finding, "category": category},
            **{"part": part, "view": view, "group": f"{source}{finding}{part}{view}{place}"},
        )
        for source, finding, category in kinds
        for part in ("validation", "test")
        for view in ("AP", "PA")
        for place in range(6)
    ]


def test_an_override_replaces_what_the_recipe_has() -> None:
    recipe = json.loads(TRAIN.read_text())
    names = [name for changes in (SHORT, *ARMS.values()) for name in changes]
    assert len(names) > 10
    for name in names:
        value = recipe
        for key in name.split("#"):
            value = value[int(key)] if isinstance(value, list) else value[key]
    for changes in (SHORT, *ARMS.values()):
        for name, value in changes.items():
            if name.startswith("imports#"):
                before = recipe["imports"][int(name.removeprefix("imports#"))]
                # Another function under the name that the recipe calls.
                assert re.search(r"\w+$", before)[0] == re.search(r"\w+$", value)[0]  # type: ignore[index]  # both end so
                assert hasattr(experiments, value.split()[3])


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ({"source": "siim", "category": "atypical"}, {"atypical"}),
        ({"source": "nih", "finding": "normal"}, {"negative"}),
        ({"source": "nih", "finding": "pneumonia"}, {"indeterminate", "atypical", "negative"}),
        ({"source": "ieee8023", "finding": "covid"}, set(PATTERNS)),
    ],
)
def test_a_pattern_is_possible_as_far_as_it_is_known(row: dict[str, str], names: set[str]) -> None:
    found = possible(row)
    assert {name for name, one in zip(PATTERNS, found.tolist(), strict=True) if one} == names


def test_an_unknown_pattern_teaches_nothing_and_a_wrong_one_costs() -> None:
    found = {
        "logits": torch.zeros(1, 2),
        "opacity": torch.zeros(1, 1, 4, 4),
        "pattern": torch.tensor([[9.0, 0.0, 0.0, 0.0]]),
    }
    targets = {
        "target": torch.ones(1),
        "mapped": torch.zeros(1),
        "map": torch.zeros(1, 1, 4, 4),
    }
    unknown, right, wrong = (
        float(PatternLoss()(found, targets | {"possible": torch.tensor([which])}))
        for which in ([1.0] * 4, [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0])
    )
    assert right == pytest.approx(unknown, abs=1e-3)
    assert wrong > unknown + 5


@pytest.mark.parametrize(("blackened", "sum_of_possible"), [(0.0, 1.0), (1.0, 4.0)])
def test_a_blackened_image_may_have_any_pattern(blackened: float, sum_of_possible: float) -> None:
    batch = {
        "image": torch.zeros(2, 1, 256, 256, dtype=torch.uint8),
        "lungs": torch.full((2, 1, 128, 128), 255, dtype=torch.uint8),
        "boxes": torch.zeros(2, 1, 64, 64, dtype=torch.uint8),
        "target": torch.tensor([1.0, 0.5]),
        "mapped": torch.ones(2),
        "possible": torch.eye(4)[:2],
    }
    _, targets = PatternAugment(64, 1, blackened=blackened)(batch)
    assert targets["possible"].sum(1).tolist() == [sum_of_possible] * 2


def test_networks_of_experiments_answer_without_the_map_and_with_a_pattern() -> None:
    image = torch.zeros(1, 1, 64, 64)
    with torch.inference_mode():
        evidence, _ = experiments.WithoutMap().evidence(image)
        assert float(evidence[:, :HEAD_CHANNELS].abs().sum()) > 0
        assert float(evidence[:, HEAD_CHANNELS:].abs().sum()) == 0
        network = experiments.PatternNetwork()
        taught = network.train()(image)
        assert isinstance(taught, dict)
        assert taught["pattern"].shape == (1, 4)
        answer = network.eval()(image)
        assert isinstance(answer, torch.Tensor)
        assert answer.shape == (1, 2)
    slow, fast = (len(group["params"]) for group in network.parts(1e-4, 1e-3))  # type: ignore[arg-type]  # tensors
    assert len([name for name, _ in network.named_parameters() if name.startswith("_pattern")]) == 2
    assert fast == 2 * len(network.new)
    assert slow > fast


def test_kaggles_set_alone_is_taught_and_everything_validates(tmp_path: Path) -> None:
    lines = ["path,source,group,split,age", "kaggle/Dataset/a,x,1,training,adult"]
    lines += ["siim/b,siim,2,training,adult", "siim/c,siim,3,validation,adult"]
    (tmp_path / "split.csv").write_text("\n".join(lines) + "\n")
    split = str(tmp_path / "split.csv")
    assert [row["path"] for row in experiments.of_kaggle(split, ["training"])] == [
        "kaggle/Dataset/a"
    ]
    assert [row["path"] for row in experiments.of_kaggle(split, ["validation"])] == ["siim/c"]


def test_the_page_has_a_table_for_each_kind_of_experiment(tmp_path: Path) -> None:
    for name, gap in (("base", 3.0), ("no_map", 2.0), ("without_ieee8023", 1.0)):
        for seed in (1, 2):
            write(tmp_path / name / f"seed{seed}" / "predictions.csv", _run(gap, seed))
    text = page(found_in(tmp_path))
    assert "|  | the recipe, shortened (2) | without the map (2) |" in text
    assert "## ieee8023 left out of training, SIIM kept" in text
    assert "Kaggle" not in text
    (line,) = (one for one in text.splitlines() if one.startswith("| the same, typical |"))
    cells = [cell.strip() for cell in line.split("|")[2:4]]
    assert cells == ["1.000 (1.000 to 1.000)", "too few"]
    (own,) = (one for one in text.splitlines() if "ieee8023 against ieee8023" in one)
    seen = float(own.split("|")[4].split()[0])
    assert float(own.split("|")[2].split()[0]) < seen


def test_a_column_with_more_seeds_is_kept_from_an_earlier_page(tmp_path: Path) -> None:
    for name, seeds in (("base", 3), ("no_map", 1)):
        for seed in range(1, seeds + 1):
            write(tmp_path / name / f"seed{seed}" / "predictions.csv", _run(2.0, seed))
    earlier = (
        f"# Experiments\n\n## {CHANGES}\n\n"
        "|  | the recipe, shortened (2) | without the map (3) | without balance by view (3) |\n"
        "| --- | --- | --- | --- |\n"
        "| SIIM, typical against negative | 0.1 | 0.2 | 0.3 |\n\nand more\n"
        "\n## nih left out of training, SIIM kept\n\nA table.\n"
    )
    text = page(found_in(tmp_path), earlier)
    # Nothing was run without NIH this time.
    assert text.endswith("\n\n## nih left out of training, SIIM kept\n\nA table.\n")
    head = "|  | the recipe, shortened (3) | without balance by view (3) | without the map (3) |"
    assert head in text
    (line,) = (one for one in text.splitlines() if one.startswith("| SIIM, typical against neg"))
    cells = [cell.strip() for cell in line.split("|")[2:5]]
    assert cells[0].startswith("0.9")
    assert cells[1:] == ["0.3", "0.2"]


def test_outcomes_that_fewer_bits_change_are_counted() -> None:
    torch.manual_seed(0)
    assert outcomes(torch.tensor([0.1, 0.5, 0.9]), 0.4, 0.7).tolist() == [-1, 0, 1]
    found = [_said(0.0, group=str(n)) for n in range(10)]
    found += [_said(0.0, finding="normal", category="negative", group=str(n)) for n in range(10)]
    right = torch.tensor([3.0] * 10 + [-3.0] * 10)
    rule = {"offset": 0.0, "temperature": 1.0, "indeterminate": {"lower": 0.4, "upper": 0.7}}
    coarse = right.clone()
    coarse[0], coarse[1] = 0.0, -3.0
    rows = compared(found, {"32 bits": Said(right, 8.0), "INT8": Said(coarse, 4.0)}, rule)["INT8"]
    changed = rows["outcomes changed"]
    assert isinstance(changed, Estimate)
    assert changed.value == pytest.approx(0.1)
    assert rows["positive to negative, or back"] == pytest.approx(0.05)


def test_a_regression_is_not_taught_a_source_that_is_left_out() -> None:
    torch.manual_seed(0)
    kinds = [("siim", "covid", 0), ("siim", "normal", 1), ("nih", "normal", 2)]
    rows: list[dict[str, str]] = []
    features = []
    for source, finding, place in kinds * 20:
        row = {"path": "a", "source": source, "finding": finding, "category": "", "age": "adult"}
        rows.append(row | {"view": "", "group": f"{source}{len(rows)}", "split": "training"})
        features.append(torch.randn(4) + 6 * torch.eye(4)[place])
    x = torch.stack(features)
    healthy = [2 + 3 * number for number in range(20)]
    seen, unseen = (
        [scored_by(rows, x, sources)[place].logit for place in healthy] for sources in ((), ["nih"])
    )
    assert max(seen) < 0
    assert sum(seen) < sum(unseen)
