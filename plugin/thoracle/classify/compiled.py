"""A network compiled by OpenVINO in place of the network in torch, once it gave the same results.

OpenVINO joins each convolution with the normalisation and activation behind it, and chooses
kernels for the processor at hand (docs/benchmarks.md says what that gains).
"""

import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from thoracle.classify import bundle
from thoracle.errors import BundleError
from thoracle.settings import Classify

logger = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Largest difference of an output from torch's; softmax and sigmoid make it smaller still."""

PROPERTIES = {
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": 1,
    # Processors with bfloat16 would use it unasked, and then differ from the others.
    "INFERENCE_PRECISION_HINT": "f32",
    # The decoder and the listener use the same cores; a pinned thread would wait for them.
    "ENABLE_CPU_PINNING": False,
}

Network = Callable[[Tensor], Any]
"""Gives a tensor for a batch, or a tuple of tensors."""


class CompiledNetwork:
    """A network in OpenVINO that is called as the one in torch is; not for several threads at once.

    Parameters
    ----------
    network
        In evaluation mode. It stays in use for images of another size than the example's.
    example
        A batch of one image; its values do not matter.
    threads
        Processor threads; 0 takes one per core.
    """

    def __init__(self, network: nn.Module, example: Tensor, threads: int) -> None:
        # openvino is optional, and comes without type annotations that mypy may read.
        import openvino  # type: ignore[import-untyped]

        with warnings.catch_warnings():
            # It traces with torch.jit, of which torch warns; the result is compared in accelerate.
            warnings.simplefilter("ignore")
            model = openvino.convert_model(network, example_input=example)
        # A fixed size, one image at a time: a batch gains too little (docs/benchmarks.md).
        model.reshape(list(example.shape))
        properties = PROPERTIES | {"INFERENCE_NUM_THREADS": threads}
        self._model = openvino.compile_model(model, "CPU", properties)
        self._network = network
        self._shape = example.shape[1:]

    def __call__(self, inputs: Tensor) -> Any:
        """Return what the network gives for a batch; no image's result depends on the others."""
        if inputs.shape[1:] != self._shape:
            return self._network(inputs)
        images = np.ascontiguousarray(inputs.numpy())
        results = [self._model(images[i : i + 1]).values() for i in range(len(images))]
        columns = zip(*results, strict=True)
        outputs = [torch.from_numpy(np.concatenate(arrays)) for arrays in columns]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def accelerate(network: nn.Module, data_format: Any, settings: Classify) -> Network:
    """Return a network as the runtime of the settings runs it.

    Parameters
    ----------
    network
        In evaluation mode, on the processor.
    data_format
        What metadata.json says of its one input.
    settings
        For runtime and number of threads.

    Returns
    -------
    Network
        To be called as the network is. The network itself when torch is to run it, or, where
        OpenVINO was not asked for by name, when that fails or differs by more than ``TOLERANCE``.

    Raises
    ------
    BundleError
        OpenVINO was asked for by name, and fails or differs.
    SettingsError
        OpenVINO was asked for by name, and is not installed.
    """
    name, chosen = type(network).__name__, bundle.runtime_of(settings)
    if chosen == "torch":
        logger.info("%s runs in %s", name, bundle.described_runtime(chosen))
        return network
    try:
        compiled = _compiled(network, data_format, settings.threads)
    # Conversion can meet anything in a network, and in a library for this processor.
    except Exception as error:
        said = f"{name} in {bundle.described_runtime(chosen)}: {type(error).__name__}: {error}"
        if settings.runtime == chosen:
            raise BundleError(said) from error
        logger.warning("%s; it runs in torch", said)
        return network
    logger.info("%s runs in %s", name, bundle.described_runtime(chosen))
    return compiled


def _compiled(network: nn.Module, data_format: Any, threads: int) -> CompiledNetwork:
    """Return a compiled network; ``ValueError`` when it differs from torch's."""
    example = _example(data_format)
    compiled = CompiledNetwork(network, example, threads)
    difference = _difference(network, compiled, example)
    if not difference <= TOLERANCE:  # so that "not a number" is refused too
        raise ValueError(f"found outputs {difference:.1g} from torch's, required is {TOLERANCE:g}")
    return compiled


def _example(data_format: Any) -> Tensor:
    """Return a batch of one pseudo-random image, always the same, as metadata.json describes it."""
    (image,) = data_format["inputs"].values()
    low, high = map(float, image["value_range"])
    shape = (1, image["num_channels"], *image["spatial_shape"])
    random = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return low + (high - low) * random


def _difference(network: Network, compiled: Network, example: Tensor) -> float:
    """Return the largest absolute difference of the outputs for an example."""
    with torch.inference_mode():
        expected, found = network(example), compiled(example)
    if isinstance(expected, Tensor):
        expected, found = (expected,), (found,)
    pairs = zip(expected, found, strict=True)
    return float(torch.stack([(one - other).abs().max() for one, other in pairs]).max())
