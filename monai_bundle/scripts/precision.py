"""Whether the network may run with fewer bits: ``python -m scripts.precision``.

Compares BF16 and INT8 in OpenVINO with 32 bits on the test part, and writes ``precision.md``. INT8
needs ``pip install nncf``, and a processor with AMX or AVX-512 for either to be fast. The rule: the
AUROC may fall by less than 0.003, and less than 1 % of the outcomes may change.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle.config_parser import ConfigParser
from scripts.cache import as_input, cached
from scripts.constant_map import lacking
from scripts.data import entries, paths_of
from scripts.measures import Scored
from scripts.predictions import Prediction, of_scores
from scripts.report import Value, pair, siim, table
from torch import Tensor

from thoracle.classify.compiled import PROPERTIES
from thoracle.classify.network import OpacityNetwork, WithMap
from thoracle.evaluate.metrics import wilson

SIDE = 192
"""Rows and columns of what the network takes, as in metadata.json."""
LEARNED_ON = 300
"""Training images by which INT8 finds the range of each layer."""
WARM = 20
PRECISIONS = {"32 bits": "f32", "BF16": "bf16", "INT8": "f32"}
"""The hint that OpenVINO gets; INT8 is in the model itself."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a compiled network says of images."""

    differences: Tensor
    """``(images,)``: logit of COVID-19 minus the other's."""
    milliseconds: float
    """Of processor time an image, median."""


def ran(model: Any, hint: str, images: Tensor) -> Said:
    """Return what a model of OpenVINO says of images ``(n, 1, rows, columns)``, one at a time."""
    import openvino  # type: ignore[import-untyped]  # as in thoracle.classify.compiled

    properties = PROPERTIES | {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.compile_model(model, "CPU", properties)
    arrays = np.ascontiguousarray(images.numpy())
    logits, times = [], []
    for place in range(len(arrays)):
        start = time.process_time()
        result = compiled(arrays[place : place + 1])
        times.append(time.process_time() - start)
        logits.append(torch.from_numpy(result[0].copy()))
    every = torch.cat(logits)
    return Said(every[:, 1] - every[:, 0], statistics.median(times[WARM:]) * 1000)


def outcomes(probabilities: Tensor, lower: float, upper: float) -> Tensor:
    """Return -1 for negative, 0 for indeterminate and 1 for positive, ``(n,)``."""
    return (probabilities >= upper).long() - (probabilities < lower).long()


def compared(
    found: Sequence[Prediction], said: dict[str, Said], rule: dict[str, Any]
) -> dict[str, dict[str, Value]]:
    """Return the columns of the table, one for each precision; the first is the reference.

    Parameters
    ----------
    found
        Of the images in ``said``; only what the images are counts.
    said
        By the names of :data:`PRECISIONS`.
    rule
        Content of ``decision.json``.
    """
    band = rule["indeterminate"]["lower"], rule["indeterminate"]["upper"]
    probabilities = {
        name: ((one.differences + rule["offset"]) / rule["temperature"]).sigmoid()
        for name, one in said.items()
    }
    reference = next(iter(probabilities.values()))
    before = outcomes(reference, *band)
    columns: dict[str, dict[str, Value]] = {}
    for name, given in probabilities.items():
        answers = Scored(found, given, *band)
        changed = (outcomes(given, *band) - before).abs()
        columns[name] = {
            "SIIM, typical against negative": siim(answers, "typical", "negative").auroc(),
            "SIIM, typical against atypical": siim(answers, "typical", "atypical").auroc(),
            "covid_cxnet against NIH's healthy": pair(
                answers, "covid_cxnet", "nih", "normal"
            ).auroc(),
            "outcomes changed": wilson(int((changed > 0).sum()), len(found)),
            "positive to negative, or back": float((changed == 2).double().mean()),
            "greatest change of a probability": float((given - reference).abs().max()),
            "mean change": float((given - reference).abs().mean()),
            "network, ms of processor time an image": said[name].milliseconds,
        }
    return columns


def _models(network: OpacityNetwork, images: Callable[[], Tensor]) -> dict[str, Any]:
    """Return the model of each precision; ``images`` gives those to learn INT8 by."""
    import openvino

    example = torch.zeros(1, 1, SIDE, SIDE)
    model = openvino.convert_model(WithMap(network), example_input=example)
    model.reshape(list(example.shape))
    models = {"32 bits": model, "BF16": model}
    try:
        import nncf  # type: ignore[import-not-found]  # no dependency of the project
    except ImportError:
        return models
    arrays = [image[None].numpy() for image in images()]
    quantized = nncf.quantize(model, nncf.Dataset(arrays), subset_size=len(arrays))
    return models | {"INT8": quantized}


def main() -> None:
    """Write precision.md."""
    parser = argparse.ArgumentParser(prog="python -m scripts.precision", description=__doc__)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--cache_file", required=True, help="made by training or evaluation")
    parser.add_argument("--output", type=Path, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    config = ConfigParser()
    config.read_config("configs/inference.json")
    config["bundle_root"] = "."
    network = config.get_parsed_content("network_def")
    network.load_state_dict(torch.load("models/model.pt", weights_only=True))
    network.eval().requires_grad_(False)

    def images_of(rows: Sequence[dict[str, str]]) -> Tensor:
        paths = paths_of(rows)
        return as_input(cached(paths, chosen.dataset_dir, chosen.cache_file, lacking).large, SIDE)

    taught = entries("docs/split.csv", ["training"], children=False)
    models = _models(network, lambda: images_of(taught[:: len(taught) // LEARNED_ON][:LEARNED_ON]))
    rows = [
        row
        for row in entries("docs/split.csv", ["test"], children=False)
        if row["finding"] != "unsure"
    ]
    images = images_of(rows)
    said = {name: ran(model, PRECISIONS[name], images) for name, model in models.items()}
    found = of_scores(rows, [0.0] * len(rows))
    rule = json.loads(Path("models/decision.json").read_text(encoding="utf-8"))
    text = (
        "# The network with fewer bits\n\nIn OpenVINO, one thread, on the "
        f"{len(rows)} images of the test part; intervals of 95 %, patients resampled.\n\n"
        f"{table(compared(found, said, rule))}\n"
    )
    (chosen.output / "precision.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
