"""How fast images are read: the forward pass, `thoracle analyse`, and where its time goes.

A part of bench.py; alone, `python tests/bench_analyse.py` prints its section.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench_images import make_images
from thoracle.classify import bundle
from thoracle.classify.classifier import Classifier
from thoracle.classify.compiled import PROPERTIES, CompiledNetwork, converted
from thoracle.classify.network import EfficientNetLite0
from thoracle.image import pixels
from thoracle.image.decoder import Decoder
from thoracle.pipeline.reader import Reader
from thoracle.settings import Classify, Settings

REPEATS = 60
BATCH = 8
RUNTIMES = ("torch", "openvino")


@dataclass
class Throughput:
    """What ``thoracle analyse`` needed for a folder."""

    runtime: str
    images_per_second: float
    """After the first answer."""
    seconds: float
    """In all, with Python, torch and the bundle being loaded."""


# ---- the forward pass ------------------------------------------------------------------------


def forward() -> dict[str, float]:
    """Return the median milliseconds for one image, by way; the ways take turns."""
    import openvino  # type: ignore[import-untyped]  # it comes without annotations

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    network = EfficientNetLite0().eval().requires_grad_(False)
    one, batch = torch.rand(1, 1, 224, 224), torch.rand(BATCH, 1, 224, 224)
    content = converted(network, one)
    compiled = CompiledNetwork(network, content, tuple(one.shape), threads=0)
    model = openvino.Core().read_model(*content)
    model.reshape([-1, 1, 224, 224])
    batched = openvino.compile_model(model, "CPU", PROPERTIES)
    ways: dict[str, tuple[Callable[[], Any], int]] = {
        "torch, one image": (lambda: network(one), 1),
        f"torch, {BATCH} in a batch": (lambda: network(batch), BATCH),
        "openvino, one image": (lambda: compiled(one), 1),
        f"openvino, {BATCH} in a batch": (lambda: batched(batch.numpy()), BATCH),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with torch.inference_mode():
        for _ in range(REPEATS):
            for way, (call, images) in ways.items():
                started = time.perf_counter()
                call()
                seconds[way].append((time.perf_counter() - started) / images)
    return {way: statistics.median(found) * 1e3 for way, found in seconds.items()}


# ---- thoracle analyse ------------------------------------------------------------------------


def analyse(folder: Path, paths: Sequence[Path]) -> list[Throughput]:
    """Return what the command needs for these files, with each runtime."""
    found = []
    for runtime in RUNTIMES:
        config = folder / f"{runtime}.toml"
        config.write_text(f'[classify]\nruntime = "{runtime}"\n')
        command = [sys.executable, "-m", "thoracle", "analyse", "--json", "--config", str(config)]
        started = time.perf_counter()
        with subprocess.Popen([*command, *map(str, paths)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            moments = []
            for line in process.stdout:
                assert json.loads(line)["probability"] is not None, line
                moments.append(time.perf_counter())
        assert len(moments) == len(paths), f"found {len(moments)} answers of {len(paths)}"
        rate = (len(moments) - 1) / (moments[-1] - moments[0])
        found.append(Throughput(runtime, rate, time.perf_counter() - started))
    return found


@contextmanager
def timed(owner: Any, name: str, seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add up the seconds that a function takes, for a while."""
    function = getattr(owner, name)

    def clocked(*arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            seconds[stage] = seconds.get(stage, 0) + time.perf_counter() - started

    setattr(owner, name, clocked)
    try:
        yield
    finally:
        setattr(owner, name, function)


def stages(paths: Sequence[Path]) -> dict[str, float]:
    """Return the mean milliseconds of an image by stage, read one after the other."""
    settings = Settings(classify=Classify(runtime="openvino"))
    classifier = Classifier.load(settings.classify)
    identity = bundle.identify(settings.classify)
    inner: dict[str, float] = {}
    outer: dict[str, float] = {}
    with Decoder(settings.decode.memory_megabytes, settings.decode.timeout_seconds) as decoder:
        reader = Reader(settings, identity, decoder, lambda: classifier)
        reader.read(paths[0])  # starts the child
        with (
            timed(decoder, "decode", inner, "decode"),
            timed(pixels, "radiograph", inner, "look-up table"),
            timed(CompiledNetwork, "__call__", inner, "networks"),
        ):
            for path in paths:
                for stage, spent in reader.read(path).seconds.items():
                    outer[stage] = outer.get(stage, 0) + spent
    total = {
        "select": outer["select"],
        "decode": inner["decode"],
        "look-up table": inner["look-up table"],
        "transforms": outer["classify"] - inner["networks"],
        "networks": inner["networks"],
    }
    return {stage: spent / len(paths) * 1e3 for stage, spent in total.items()}


# ---- report ----------------------------------------------------------------------------------


def section(folder: Path, files: int) -> list[str]:
    """Measure, and return the lines of docs/benchmarks.md."""
    ways, (paths,) = forward(), make_images(folder, 1, files)
    reference = ways["torch, one image"]
    runs, shares = analyse(folder, paths), stages(paths)
    whole = sum(shares.values())
    return [
        "## Reading images",
        "",
        f"EfficientNet-Lite0, 224 x 224, median of {REPEATS} turns that the ways take in one run. "
        "The ratio is what travels.",
        "",
        "| forward pass | ms an image | times as fast as torch |",
        "|---|---|---|",
        *(f"| {way} | {ms:.1f} | {reference / ms:.1f} |" for way, ms in ways.items()),
        "",
        f"`thoracle analyse` on {files} files, uncompressed:",
        "",
        "| runtime | images/s after the first | s in all, with loading |",
        "|---|---|---|",
        *(f"| {run.runtime} | {run.images_per_second:.1f} | {run.seconds:.1f} |" for run in runs),
        "",
        "Where the time of an image goes with openvino, read one after the other (`analyse` reads "
        "several at a time, so that decoding and classifying overlap):",
        "",
        "| stage | mean ms | share |",
        "|---|---|---|",
        *(f"| {stage} | {ms:.1f} | {ms / whole:.0%} |" for stage, ms in shares.items()),
        "",
    ]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="thoracle-bench-") as name:
        print("\n".join(section(Path(name), 100)))
