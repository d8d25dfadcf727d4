"""A network compiled by OpenVINO in place of the network in torch, once it gave the same results.

OpenVINO joins each convolution with the normalisation and activation behind it, and chooses
kernels for the processor at hand (docs/benchmarks.md says what that gains).
"""

import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from thoracle.classify import bundle, compiled_cache
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
    content
        The network as OpenVINO reads it (:func:`converted`).
    shape
        Of a batch of one image: a batch of more gains too little (docs/benchmarks.md).
    threads
        Processor threads; 0 takes one per core.
    """

    def __init__(
        self,
        network: nn.Module,
        content: compiled_cache.Content,
        shape: tuple[int, ...],
        threads: int,
    ) -> None:
        # openvino is optional, and comes without type annotations that mypy may read.
        import openvino  # type: ignore[import-untyped]

        core = openvino.Core()
        model = core.read_model(*content)
        model.reshape(list(shape))
        properties = PROPERTIES | {"INFERENCE_NUM_THREADS": threads}
        self._model = core.compile_model(model, "CPU", properties)
        self._network = network
        self._shape = torch.Size(shape[1:])

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
        compiled = _compiled(network, data_format, settings)
    # Conversion can meet anything in a network, and in a library for this processor.
    except Exception as error:
        said = f"{name} in {bundle.described_runtime(chosen)}: {type(error).__name__}: {error}"
        if settings.runtime == chosen:
            raise BundleError(said) from error
        logger.warning("%s; it runs in torch", said)
        return network
    logger.info("%s runs in %s", name, bundle.described_runtime(chosen))
    return compiled


def _compiled(network: nn.Module, data_format: Any, settings: Classify) -> CompiledNetwork:
    """Return a compiled network; ``ValueError`` when it differs from torch's.

    One that was kept has been compared when it was converted, on this processor.
    """
    example = _example(data_format)
    shape = tuple(example.shape)
    folder = compiled_cache.cache_folder(settings)
    entry = folder and compiled_cache.entry(folder, network, shape, (PROPERTIES, _processor()))
    if entry and (kept := compiled_cache.read(entry)):
        return CompiledNetwork(network, kept, shape, settings.threads)
    content = converted(network, example)
    compiled = CompiledNetwork(network, content, shape, settings.threads)
    difference = _difference(network, compiled, example)
    if not difference <= TOLERANCE:  # so that "not a number" is refused too
        raise ValueError(f"found outputs {difference:.1g} from torch's, required: {TOLERANCE:g}")
    if entry:
        compiled_cache.write(entry, content)
    return compiled


def converted(network: nn.Module, example: Tensor) -> compiled_cache.Content:
    """Return a network as OpenVINO reads it.

    Parameters
    ----------
    network
        In evaluation mode.
    example
        A batch of one image; its values do not matter.
    """
    import openvino

    with warnings.catch_warnings(), torch.no_grad():
        # torch warns of its own torch.jit. Comparing the trace with the network, as torch and
        # OpenVINO would, costs many passes; what comes out is compared once instead.
        warnings.simplefilter("ignore")
        # torch does not annotate it.
        traced = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
        model = openvino.convert_model(traced, example_input=example)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.xml")
        openvino.save_model(model, path, compress_to_fp16=False)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


def _processor() -> tuple[Any, ...]:
    """Return what OpenVINO says of the processor: its kernels are chosen by that."""
    import openvino

    core = openvino.Core()
    names = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
    return tuple(core.get_property("CPU", name) for name in names)


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
