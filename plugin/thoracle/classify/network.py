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
from torch.nn import functional

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
EPSILON = 1e-3
"""Added to a variance before it divides."""
FINE_BLOCKS = 11
"""Blocks whose features have a place for every 16 pixels."""
FINE_CHANNELS = 112
MAP_CHANNELS = 64
"""Features of each place of the map of opacities."""


def _normalisation(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON)


def _normalised(convolution: nn.Conv2d, normalisation: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Return the normalised convolution of ``x`` in one pass; the statistics are fixed.

    They are fixed in training, too: those of a small batch would tell which sources are in it.
    """
    scale = normalisation.weight * torch.rsqrt(_statistic(normalisation.running_var) + EPSILON)
    bias = normalisation.bias - _statistic(normalisation.running_mean) * scale
    weight = convolution.weight * scale[:, None, None, None]
    stride, padding, groups = convolution.stride, convolution.padding, convolution.groups
    return functional.conv2d(x, weight, bias, stride, padding, 1, groups)


def _statistic(value: Tensor | None) -> Tensor:
    """Return a statistic that every normalisation here has."""
    assert value is not None
    return value


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
        x = inputs
        if self._expand:
            x = self._relu(_normalised(self._expand_conv, self._bn0, x))
        x = self._relu(_normalised(self._depthwise_conv, self._bn1, x))
        features = _normalised(self._project_conv, self._bn2, x)
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
        x = self._relu(_normalised(self._conv_stem, self._bn0, image))
        for block in self._blocks:
            x = block(x)
        features: Tensor = self._relu(_normalised(self._conv_head, self._bn1, x))
        return features

    def features(self, image: Tensor) -> Tensor:
        """Return the mean of each feature map ``(batch, 1280)``, 0 to 6."""
        return self.maps(image).mean((2, 3))

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(batch, num_classes)`` of images ``(batch, channels, rows, columns)``."""
        logits: Tensor = self._fc(self._dropout(self.features(image)))
        return logits


class OpacityNetwork(EfficientNetLite0):
    """Says whether a chest radiograph shows a finding, and where it shows opacities, in one pass.

    The map is learned from boxes that radiologists drew around opacities. The answer is a linear
    function of the mean of all features, of the mean of the map's features where the map is high,
    and of the map's maximum and mean.

    Parameters
    ----------
    num_classes
        Number of logits.
    dropout
        Probability that a feature is dropped in training, 0 to 1.
    """

    def __init__(self, num_classes: int = 2, dropout: float = 0.2) -> None:
        super().__init__(1, num_classes, dropout)
        self._fine = nn.Conv2d(FINE_CHANNELS, MAP_CHANNELS, 1)
        self._coarse = nn.Conv2d(HEAD_CHANNELS, MAP_CHANNELS, 1)
        self._smooth = nn.Conv2d(MAP_CHANNELS, MAP_CHANNELS, 3, 1, 1)
        self._opacity = nn.Conv2d(MAP_CHANNELS, 1, 1)
        self._fc = nn.Linear(HEAD_CHANNELS + MAP_CHANNELS + 2, num_classes)

    def evidence(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the answer is made of, and the map.

        Parameters
        ----------
        image
            ``(batch, 1, rows, columns)``, -1 to 1; rows and columns divide by 32.

        Returns
        -------
        tuple
            ``(batch, 1346)``, and logits of opacity ``(batch, 1, rows / 16, columns / 16)``.
        """
        x = self._relu(_normalised(self._conv_stem, self._bn0, image))
        for block in self._blocks[:FINE_BLOCKS]:
            x = block(x)
        fine = x
        for block in self._blocks[FINE_BLOCKS:]:
            x = block(x)
        maps = self._relu(_normalised(self._conv_head, self._bn1, x))
        wide = functional.interpolate(self._coarse(maps), scale_factor=2.0, mode="nearest")
        places = torch.relu(self._smooth(torch.relu(self._fine(fine) + wide)))
        opacity = self._opacity(places)
        share = opacity.sigmoid()
        focus = (places * share).sum((2, 3)) / (share.sum((2, 3)) + 1.0)
        most = opacity.amax((2, 3))
        return torch.cat([maps.mean((2, 3)), focus, most, share.mean((2, 3))], 1), opacity

    def with_map(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(batch, num_classes)`` and the map; arguments as for :meth:`evidence`."""
        evidence, opacity = self.evidence(image)
        return self._fc(self._dropout(evidence)), opacity

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(batch, num_classes)``; arguments as for :meth:`evidence`."""
        return self.with_map(image)[0]


class WithMap(nn.Module):
    """A network that gives logits and map, as the classifier takes it and runtimes compile it."""

    def __init__(self, network: OpacityNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and map of :meth:`OpacityNetwork.with_map`."""
        return self.network.with_map(image)


def greyscale_weights(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights for one channel, without classifier, from weights for three.

    Summing the first convolution over red, green and blue gives exactly the features that an
    image repeated in three channels has.
    """
    weights = {name: value for name, value in published.items() if not name.startswith("_fc.")}
    stem = weights["_conv_stem.weight"]
    return weights | {"_conv_stem.weight": torch.sum(stem, 1, keepdim=True)}
