"""The classifier: the bundle's preprocessing, network and postprocessing, loaded once.

Importing this module takes seconds (torch, MONAI), so others import it when they need it.
"""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.bundle.config_item import ComponentLocator
from monai.bundle.config_parser import ConfigParser
from monai.transforms.compose import Compose
from torch import Tensor
from torch.nn import functional

from thoracle.classify.bundle import bundle_folder, identify
from thoracle.classify.compiled import accelerate
from thoracle.classify.lungs import LUNG, Shares, box
from thoracle.classify.network import OpacityNetwork, WithMap
from thoracle.classify.transforms import CheckFrontald
from thoracle.errors import BundleError, SettingsError
from thoracle.records import Box, BundleIdentity, Image, Judgement, Saliency, SaliencyKind
from thoracle.settings import Classify

# ---- map of opacities ----------------------------------------------------------------------------
# Where a radiograph shows opacities, from the map that the network gives beside its answer.
#
# The network learned it from boxes that radiologists drew around opacities: a value is the share of
# that place which would be inside such a box. So it says where the network sees opacities, and not
# what they are. What is outside the box of the lungs is left out: no box was drawn there.

GRID = (512, 512)
"""Rows and columns of a map: those that the bundle reduces a radiograph to before it looks."""


def opacities(logits: Tensor, lungs: Shares) -> Saliency:
    """Return the map of opacities of a radiograph.

    Parameters
    ----------
    logits
        ``(1, rows, columns)``: logit of "inside a box around an opacity" of each place.
    lungs
        The box around them.

    Returns
    -------
    Saliency
        Of 512 x 512 places, 0 to 1; exactly zero outside the box of the lungs.
    """
    whole = functional.interpolate(logits[None].sigmoid(), GRID, mode="bilinear")[0, 0]
    found = torch.zeros(GRID)
    rows = slice(round(lungs[0] * GRID[0]), round(lungs[1] * GRID[0]))
    columns = slice(round(lungs[2] * GRID[1]), round(lungs[3] * GRID[1]))
    found[rows, columns] = whole[rows, columns]
    return Saliency(found.numpy())


# ---- classifier ----------------------------------------------------------------------------------

DECIMALS = 4
"""Digits of a probability that are kept: more differ between processors."""
NETWORKS = {
    "lungs_network": ("models/lungs.pt", "lungs_data_format"),
    "network_def": ("models/model.pt", "network_data_format"),
}
"""Networks a configuration can have: the file of the weights, and the entry of metadata.json."""


class Classifier:
    """A bundle ready to classify; threads may share it, and take turns.

    Parameters
    ----------
    identity
        Which bundle this is.
    content
        The parsed ``preprocessing``, ``network_def`` (maybe accelerated), ``inferer`` and
        ``postprocessing``.
    """

    def __init__(self, identity: BundleIdentity, content: dict[str, Any]) -> None:
        self.identity = identity
        self._find, self._reduce = _parted(content["preprocessing"])
        self._network = content["network_def"]
        self._infer = content["inferer"]
        self._postprocess = content["postprocessing"]
        # MONAI does not promise that transforms may be shared, and a compiled network may not. So
        # one image at a time is prepared, and one at a time judged, while the next is prepared.
        self._preparing = threading.Lock()
        self._judging = threading.Lock()

    @classmethod
    def load(cls, settings: Classify) -> "Classifier":
        """Return the classifier of the bundle that the settings name.

        Sets the number of threads that torch uses in this process.

        Raises
        ------
        SettingsError
            The settings name a runtime that is not installed.
        BundleError
            The digest is not the one required (then nothing of the bundle was evaluated), or the
            bundle cannot be loaded.
        """
        identity = identify(settings)
        torch.set_num_threads(settings.threads or os.cpu_count() or 1)
        folder = bundle_folder(settings)
        try:
            return cls(identity, _content(folder, settings))
        except (BundleError, SettingsError):
            raise
        # A configuration can name any class, so loading one can raise anything.
        except Exception as error:
            raise BundleError(f"{folder}: {type(error).__name__}: {error}") from error

    def classify(self, image: Image) -> Judgement:
        """Return the calibrated probability of the finding, what limits it, and the map.

        Raises
        ------
        NotAnalysable
            The input gate refuses the image.
        BundleError
            What the bundle gives is no probability for each class of its metadata.
        """
        with torch.inference_mode():
            with self._preparing:
                found = self._found(image)
                prepared = _prepared(self._reduce(found))
            with self._judging:
                given = self._infer(inputs=prepared[None], network=self._network)
                # The network of another maker may give logits alone.
                logits, places = given if isinstance(given, tuple) else (given, None)
                pred = self._postprocess({"pred": logits[0]})["pred"]
        channel = self.identity.finding.channel
        if pred.numel() <= channel or not 0 <= float(pred.flatten()[channel]) <= 1:
            raise BundleError(
                f"pred: found {pred.flatten().tolist()[:8]}, required: a probability, 0 to 1, "
                f"at place {channel}"
            )
        probability = round(float(pred.flatten()[channel]), DECIMALS)
        lungs = box(found["lungs"]) if "lungs" in found else None
        return Judgement(
            probability=probability,
            limitations=found.get("limitations", ()),
            features=_measured(found),
            lung_box=_in_pixels(lungs, *image.array.shape[1:]),
            saliency=self._shown(places, lungs),
        )

    def explain(self, image: Image) -> Saliency | None:
        """Return where the network sees opacities: :meth:`classify` has found it already.

        Returns
        -------
        Saliency or None
            ``None`` for a bundle whose metadata say so, and for one of another maker whose network
            gives no such map, or whose preprocessing does not look for lungs.

        Raises
        ------
        NotAnalysable
            The input gate refuses the image.
        """
        return self.classify(image).saliency

    def _shown(self, places: torch.Tensor | None, lungs: Shares | None) -> Saliency | None:
        """Return the map of opacities, where there is one and the metadata say so."""
        if places is None or lungs is None:
            return None
        if self.identity.finding.saliency is SaliencyKind.NONE:
            return None
        return opacities(places[0], lungs)

    def _found(self, image: Image) -> dict[str, Any]:
        """Return image, lungs and limitations; raise NotAnalysable where the gate refuses."""
        found: dict[str, Any] = self._find({"image": image})
        if refusal := found.get("refusal"):
            raise refusal
        return found


def _measured(found: dict[str, Any]) -> dict[str, float]:
    """Return what the watch wants to know and the transforms found anyway."""
    if "lungs" not in found:
        return {}
    share = (torch.as_tensor(found["lungs"]) >= LUNG).double().mean()
    return {"lungs": round(float(share), DECIMALS)}


def _in_pixels(lungs: Shares | None, rows: int, columns: int) -> Box | None:
    """Return the box of the lungs in an image of so many rows and columns."""
    if lungs is None:
        return None
    top, bottom, left, right = lungs
    return Box(left * columns, top * rows, right * columns, bottom * rows)


def _parted(preprocessing: Callable[[Any], Any]) -> tuple[Compose, Compose]:
    """Return the transforms up to the gate, and those behind: none where there is no gate."""
    steps = _steps(preprocessing)
    gates = (number for number, step in enumerate(steps, 1) if isinstance(step, CheckFrontald))
    end = next(gates, len(steps))
    return Compose(steps[:end]), Compose(steps[end:])


def _steps(preprocessing: Callable[[Any], Any]) -> tuple[Callable[[Any], Any], ...]:
    """Return the transforms of a preprocessing, or it alone."""
    # MONAI does not annotate it.
    steps: tuple[Callable[[Any], Any], ...]
    steps = Compose(preprocessing).flatten().transforms  # type: ignore[no-untyped-call]
    return steps


def _prepared(prepared: dict[str, Any]) -> torch.Tensor:
    """Return what the network is given, ``(channels, rows, columns)``."""
    return torch.as_tensor(prepared["image"]).as_subclass(torch.Tensor)


class _Locator(ComponentLocator):
    """MONAI's table of its classes, made while other threads import.

    MONAI goes through ``sys.modules`` itself, and fails when an import adds to it meanwhile.
    """

    def _find_module_names(self) -> list[str]:
        return [name for name in list(sys.modules) if name.startswith(self.MOD_START)]


def _content(folder: Path, settings: Classify) -> dict[str, Any]:
    """Return what classifying takes of a bundle; evaluates its configuration."""
    parser = ConfigParser()
    parser.locator = _Locator()
    parser.read_config(folder / "configs" / "inference.json")
    parser.read_meta(folder / "configs" / "metadata.json")
    parser["bundle_root"] = str(folder)
    for name, (weights, data_format) in NETWORKS.items():
        if name not in parser:
            continue  # a bundle of another maker may have no need of it
        network: torch.nn.Module = parser.get_parsed_content(name)
        network.load_state_dict(torch.load(folder / weights, map_location="cpu", weights_only=True))
        network.eval().requires_grad_(False)
        if isinstance(network, OpacityNetwork):
            network = WithMap(network)
        # In its place, so that whatever refers to it gets the accelerated one.
        parser[name] = accelerate(network, parser.get(f"_meta_::{data_format}"), settings)
    names = ("preprocessing", "network_def", "inferer", "postprocessing")
    content = {name: parser.get_parsed_content(name) for name in names}
    for step in _steps(content["preprocessing"]):
        if isinstance(step, CheckFrontald):
            step.gate.accelerate(settings)
    return content
