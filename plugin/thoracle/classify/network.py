"""EfficientNet-Lite0: convolutions, batch normalisation and ReLU6 alone.

MONAI's EfficientNet is fixed to swish activations, scaled stem and head, and the padding of
TensorFlow, so published weights of the lite variant do not fit it. The module names are those of
the published weights.

References
----------
M. Tan, Q. Le: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks (2019).
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

STAGES = (
    # repeats, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280


def _normalisation(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class InvertedResidual(nn.Module):
    """An inverted residual block without squeeze and excitation.

    Parameters
    ----------
    channels_in, channels_out
        Channels before and after the block.
    kernel, stride
        Of the depthwise convolution, pixels.
    expansion
        Factor of the channels inside the block; 1 has no expansion convolution.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        inner = channels_in * expansion
        self._expand = expansion != 1
        self._skip = stride == 1 and channels_in == channels_out
        if self._expand:
            self._expand_conv = nn.Conv2d(channels_in, inner, 1, bias=False)
            self._bn0 = _normalisation(inner)
        self._depthwise_conv = nn.Conv2d(
            inner, inner, kernel, stride, kernel // 2, groups=inner, bias=False
        )
        self._bn1 = _normalisation(inner)
        self._project_conv = nn.Conv2d(inner, channels_out, 1, bias=False)
        self._bn2 = _normalisation(channels_out)
        self._relu = nn.ReLU6(inplace=True)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the features ``(batch, channels_out, rows / stride, columns / stride)``."""
        x = self._relu(self._bn0(self._expand_conv(inputs))) if self._expand else inputs
        x = self._relu(self._bn1(self._depthwise_conv(x)))
        features: Tensor = self._bn2(self._project_conv(x))
        return features + inputs if self._skip else features


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 for images of one channel.

    Parameters
    ----------
    in_channels
        Channels of the image.
    num_classes
        Number of logits.
    dropout
        Probability that a feature is dropped in training, 0 to 1.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 2, dropout: float = 0.2) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(in_channels, STEM_CHANNELS, 3, 2, 1, bias=False)
        self._bn0 = _normalisation(STEM_CHANNELS)
        self._blocks = nn.ModuleList()
        channels = STEM_CHANNELS
        for repeats, kernel, stride, expansion, width in STAGES:
            for repeat in range(repeats):
                first = stride if repeat == 0 else 1
                self._blocks.append(InvertedResidual(channels, width, kernel, first, expansion))
                channels = width
        self._conv_head = nn.Conv2d(channels, HEAD_CHANNELS, 1, bias=False)
        self._bn1 = _normalisation(HEAD_CHANNELS)
        self._relu = nn.ReLU6(inplace=True)
        self._dropout = nn.Dropout(dropout)
        self._fc = nn.Linear(HEAD_CHANNELS, num_classes)

    def maps(self, image: Tensor) -> Tensor:
        """Return the last feature maps ``(batch, 1280, rows / 32, columns / 32)``, 0 to 6."""
        x = self._relu(self._bn0(self._conv_stem(image)))
        for block in self._blocks:
            x = block(x)
        features: Tensor = self._relu(self._bn1(self._conv_head(x)))
        return features

    def features(self, image: Tensor) -> Tensor:
        """Return the mean of each feature map ``(batch, 1280)``, 0 to 6."""
        return self.maps(image).mean((2, 3))

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(batch, num_classes)`` of images ``(batch, channels, rows, columns)``."""
        logits: Tensor = self._fc(self._dropout(self.features(image)))
        return logits


class TwoViews(nn.Module):
    """Two networks that look at one radiograph: one at the whole of it, one at the lungs alone.

    The whole has what the lungs alone cannot show, and misleads more easily. The mean of both
    errs less than either (monai_bundle/docs/README.md).

    Parameters
    ----------
    num_classes
        Number of logits.
    dropout
        Probability that a feature is dropped in training, 0 to 1.
    """

    def __init__(self, num_classes: int = 2, dropout: float = 0.2) -> None:
        super().__init__()
        self.whole = EfficientNetLite0(1, num_classes, dropout)
        self.lungs = EfficientNetLite0(1, num_classes, dropout)

    def view_logits(self, image: Tensor) -> Tensor:
        """Return the logits ``(batch, num_classes, 2)`` of the whole and of the lungs.

        Parameters
        ----------
        image
            ``(batch, 2, rows, columns)``, -1 to 1: the whole, and the lungs.
        """
        return torch.stack([self.whole(image[:, :1]), self.lungs(image[:, 1:])], 2)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(batch, num_classes)``, the mean of both views'."""
        return self.view_logits(image).mean(2)


def greyscale_weights(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights for one channel, without classifier, from weights for three.

    Summing the first convolution over red, green and blue gives exactly the features that an
    image repeated in three channels has.
    """
    weights = {name: value for name, value in published.items() if not name.startswith("_fc.")}
    stem = weights["_conv_stem.weight"]
    return weights | {"_conv_stem.weight": torch.sum(stem, 1, keepdim=True)}
