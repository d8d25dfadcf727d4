"""The classifier: the bundle's preprocessing, network and postprocessing, loaded once.

Importing this module takes seconds (torch, MONAI), so others import it when they need it.
"""

import os
import threading
from pathlib import Path
from typing import Any

import torch
from monai.bundle.config_parser import ConfigParser

from thoracle.classify.bundle import bundle_folder, identify
from thoracle.classify.compiled import accelerate
from thoracle.errors import BundleError, SettingsError
from thoracle.records import BundleIdentity, Image, Judgement
from thoracle.settings import Classify

POSITIVE_CHANNEL = 1
"""The channel of ``pred`` that metadata.json calls COVID-19."""
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
        The parsed ``preprocessing``, ``network_def``, ``inferer`` and ``postprocessing``.
    """

    def __init__(self, identity: BundleIdentity, content: dict[str, Any]) -> None:
        self.identity = identity
        self._preprocess = content["preprocessing"]
        self._network = content["network_def"]
        self._infer = content["inferer"]
        self._postprocess = content["postprocessing"]
        # One image at a time: torch spreads each over all threads, and MONAI does not promise
        # that transforms may be shared.
        self._lock = threading.Lock()

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
        """Return the calibrated probability of COVID-19, and what limits it.

        Raises
        ------
        NotAnalysable
            The input gate refuses the image.
        """
        with self._lock, torch.inference_mode():
            return self._judgement(image)

    def _judgement(self, image: Image) -> Judgement:
        prepared = self._preprocess({"image": image})
        if refusal := prepared.get("refusal"):
            raise refusal
        tensor = torch.as_tensor(prepared["image"]).as_subclass(torch.Tensor)
        logits = self._infer(inputs=tensor[None], network=self._network)
        pred = self._postprocess({"pred": logits[0]})["pred"]
        probability = round(float(pred[POSITIVE_CHANNEL]), DECIMALS)
        return Judgement(probability, prepared.get("limitations", ()))


def _content(folder: Path, settings: Classify) -> dict[str, Any]:
    """Return what classifying takes of a bundle; evaluates its configuration."""
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    parser.read_meta(folder / "configs" / "metadata.json")
    parser["bundle_root"] = str(folder)
    for name, (weights, data_format) in NETWORKS.items():
        if name not in parser:
            continue  # a bundle of another maker may look at the whole image alone
        network: torch.nn.Module = parser.get_parsed_content(name)
        network.load_state_dict(torch.load(folder / weights, map_location="cpu", weights_only=True))
        network.eval().requires_grad_(False)
        # In its place, so that whatever refers to it gets the accelerated one.
        parser[name] = accelerate(network, parser.get(f"_meta_::{data_format}"), settings)
    names = ("preprocessing", "network_def", "inferer", "postprocessing")
    return {name: parser.get_parsed_content(name) for name in names}
