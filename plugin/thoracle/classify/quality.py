"""The input gate: whether this is a frontal radiograph of a chest that the model may judge.

The header was asked before; here only pixels count. Two networks have looked at the image: the
one that finds lungs, whose map of a lateral, a hand or a negative is unlike that of a chest seen
from the front, and the first blocks of a network trained on photographs of everything. What both
saw, coarsely, goes into a small classifier. It answers "frontal" or names what is wrong.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from thoracle.classify.compiled import accelerate
from thoracle.classify.lungs import stretch
from thoracle.classify.network import STAGES, STEM_CHANNELS, InvertedResidual
from thoracle.errors import NotAnalysable
from thoracle.records import Reason
from thoracle.settings import Classify

CLASSES: Mapping[str, Reason | None] = {
    "frontal": None,
    "lateral": Reason.NOT_FRONTAL,
    "inverted": Reason.INVERTED,
    "turned": Reason.NOT_UPRIGHT,
    "incomplete": Reason.INCOMPLETE,
    "other": Reason.NOT_LIKE_KNOWN,
}
"""What the gate tells apart, in the order of its outputs, and the reason that each is given."""

SIDE = 128
"""Rows and columns that the photographs' network sees."""
BLOCKS = 11
"""Blocks of it that are used: those up to 112 channels and 1/16 of the side."""
CHANNELS = 112
EARLY_FORMAT = {
    "inputs": {"image": {"num_channels": 1, "spatial_shape": [SIDE, SIDE], "value_range": [-1, 1]}}
}
"""What these blocks take, as metadata.json says it of a network."""
GRID = 4
"""Its features are averaged over 4 x 4 parts of the image."""
LUNG_GRID = 16
"""The lungs are averaged over 16 x 16 parts."""
FEATURES = CHANNELS * GRID**2 + LUNG_GRID**2
HIDDEN = 64
LEVELS = 256
"""Grey levels that are told apart when they are counted."""


@dataclass(frozen=True, slots=True)
class Limits:
    """From where an image is refused or flagged: models/gate.json."""

    least_frontal: float
    """Least probability of "frontal", 0 to 1; below it the image is refused."""
    sure_frontal: float
    """Below it the image is analysed, and the report says that it is unusual, 0 to 1."""
    least_reason: float
    """Share of the other classes that one of them needs to be named as the reason, 0 to 1."""
    largest_level: float
    """Largest share of the pixels that may have one grey level, 0 to 1."""


class EarlyBlocks(nn.Sequential):
    """What is taken from the network of photographs: ``(batch, 1, 128, 128)``, -1 to 1."""


class GateNetwork(nn.Module):
    """What the gate learns and what it takes from the network of photographs."""

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.early = EarlyBlocks(
            nn.Conv2d(1, STEM_CHANNELS, 3, 2, 1, bias=False),
            nn.BatchNorm2d(STEM_CHANNELS, eps=1e-3),
            nn.ReLU6(inplace=True),
            *list(_blocks())[:BLOCKS],
        )
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("scale", torch.ones(FEATURES))
        self.head = nn.Sequential(
            nn.Dropout(0.3),
            nn.Linear(FEATURES, HIDDEN),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(HIDDEN, len(CLASSES)),
        )

    def features(self, images: Tensor, lungs: Tensor) -> Tensor:
        """Return what the head is given, ``(batch, 2048)``.

        Parameters
        ----------
        images
            ``(batch, 1, rows, columns)``, 0 to 1, 128 or more rows and columns.
        lungs
            ``(batch, 1, any, any)``, probability of lung, 0 to 1.
        """
        return _features(self.early, images, lungs)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits ``(batch, 6)`` of :data:`CLASSES` for :meth:`features`."""
        logits: Tensor = self.head((features - self.mean) / self.scale)
        return logits


def _features(early: Callable[[Tensor], Tensor], images: Tensor, lungs: Tensor) -> Tensor:
    """Return :meth:`GateNetwork.features` with blocks that may be accelerated."""
    small = functional.adaptive_avg_pool2d(images, SIDE)
    seen = early(torch.stack([stretch(image) for image in small]))
    coarse = functional.adaptive_avg_pool2d(seen, GRID).flatten(1)
    map_of_lungs = functional.adaptive_avg_pool2d(lungs, LUNG_GRID).flatten(1)
    return torch.cat([coarse, map_of_lungs], 1)


def _blocks() -> Iterator[InvertedResidual]:
    """Yield the blocks of EfficientNet-Lite0."""
    channels = STEM_CHANNELS
    for repeats, kernel, stride, expansion, width in STAGES:
        for repeat in range(repeats):
            first = stride if repeat == 0 else 1
            yield InvertedResidual(channels, width, kernel, first, expansion)
            channels = width


class Gate:
    """The input gate of a bundle, ready for use.

    Parameters
    ----------
    network
        In evaluation mode.
    limits
        From where images are refused.
    """

    def __init__(self, network: GateNetwork, limits: Limits) -> None:
        self.network = network
        self.limits = limits
        self._early: Callable[[Tensor], Tensor] = network.early

    @classmethod
    def load(cls, folder: Path) -> "Gate":
        """Return the gate of a bundle.

        Parameters
        ----------
        folder
            The bundle; its digest was compared. ``models/gate.pt`` and ``gate.json`` are read.

        Raises
        ------
        OSError, RuntimeError, ValueError, KeyError
            A file is missing or not one of a gate.
        """
        stored = json.loads((folder / "models" / "gate.json").read_text(encoding="utf-8"))
        limits = Limits(**{limit.name: float(stored[limit.name]) for limit in fields(Limits)})
        network = GateNetwork()
        weights = torch.load(folder / "models" / "gate.pt", map_location="cpu", weights_only=True)
        network.load_state_dict(weights)  # half precision in the file, single from here on
        network.eval().requires_grad_(False)
        return cls(network, limits)

    def accelerate(self, settings: Classify) -> None:
        """Run the blocks of the photographs' network as the runtime of the settings does.

        Raises
        ------
        BundleError, SettingsError
            As by :func:`thoracle.classify.compiled.accelerate`.
        """
        self._early = accelerate(self.network.early, EARLY_FORMAT, settings)

    def check(self, image: Tensor, lungs: Tensor) -> tuple[str, ...]:
        """Return sentences of limitation about an image that the model may judge.

        Parameters
        ----------
        image
            ``(1, 512, 512)`` float32, 0 to 1, bright is dense: the radiograph stretched by area.
        lungs
            ``(1, rows, columns)`` float32, probability of lung, 0 to 1.

        Returns
        -------
        tuple
            Empty for an image like those the model knows.

        Raises
        ------
        NotAnalysable
            The image is not such a radiograph. The reason names what it is where that is clear.
        """
        self._check_levels(image)
        found = self.probabilities(image, lungs)
        frontal = found["frontal"]
        if frontal < self.limits.least_frontal:
            raise NotAnalysable(self._reason(found), self._detail(found))
        if frontal < self.limits.sure_frontal:
            return (
                f"Unusual image: frontal chest radiograph with probability {frontal:.2f} only.",
            )
        return ()

    def probabilities(self, image: Tensor, lungs: Tensor) -> dict[str, float]:
        """Return the probability of each of :data:`CLASSES`; arguments as for :meth:`check`."""
        with torch.inference_mode():
            logits = self.network(_features(self._early, image[None], lungs[None]))[0]
        return dict(zip(CLASSES, logits.softmax(0).tolist(), strict=True))

    def _check_levels(self, image: Tensor) -> None:
        """Refuse an image that is nearly all black, nearly all white or nearly empty."""
        # torch.histc takes four times as long.
        counts = torch.bincount((image * LEVELS).long().clamp_(0, LEVELS - 1).flatten())
        largest = float(counts.max()) / image.numel()
        if not largest <= self.limits.largest_level:
            most = self.limits.largest_level
            detail = f"found {largest:.0%} of pixels of one grey level, at most {most:.0%} allowed"
            raise NotAnalysable(Reason.FLAT, detail)

    def _reason(self, found: Mapping[str, float]) -> Reason:
        """Return the reason of the likeliest fault, or that it is unlike what is known."""
        faults = {name: value for name, value in found.items() if CLASSES[name] is not None}
        worst = max(faults, key=faults.__getitem__)
        clear = faults[worst] >= self.limits.least_reason * sum(faults.values())
        return (clear and CLASSES[worst]) or Reason.NOT_LIKE_KNOWN

    def _detail(self, found: Mapping[str, float]) -> str:
        shown = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
        return f"found from the pixels {shown}; required: frontal {self.limits.least_frontal:.2f}"
