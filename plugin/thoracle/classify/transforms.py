"""Reading radiographs as MONAI transforms: training and service share one way to pixels."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.config.type_definitions import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform, Transform

from thoracle.classify.quality import Gate
from thoracle.errors import NotAnalysable
from thoracle.image.pixels import read_image
from thoracle.records import Image


class LoadRadiograph(Transform):
    """Read a file, or take an image that was read already, as a tensor."""

    def __call__(self, data: str | Path | Image) -> MetaTensor:
        """Return ``(1, rows, columns)`` float32 in [0, 1]; bright is dense.

        Parameters
        ----------
        data
            Path of a DICOM, PNG or JPEG file, or an image as the reader gives it. The tensor may
            share the image's memory.

        Raises
        ------
        NotAnalysable
            The file has no pixels that can be read.
        """
        if isinstance(data, Image):
            return MetaTensor(torch.from_numpy(data.array))
        array = read_image(Path(data)).array
        return MetaTensor(torch.from_numpy(array), meta={"filename_or_obj": str(data)})


class LoadRadiographd(MapTransform):
    """:class:`LoadRadiograph` for the entries of a dictionary.

    Parameters
    ----------
    keys
        Entries to read.
    allow_missing_keys
        Whether an entry may be absent.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self._load = LoadRadiograph()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with its entries read."""
        entries = dict(data)
        for key in self.key_iterator(entries):
            entries[key] = self._load(entries[key])
        return entries


class CheckFrontald(MapTransform):
    """Ask the input gate about an image whose lungs were found.

    A transform that raises would lose the reason: ``Compose`` puts an error of its own in place.
    So the refusal is an entry, which :class:`thoracle.classify.classifier.Classifier` raises.

    Parameters
    ----------
    keys
        The image, ``(1, 512, 512)``, 0 to 1.
    gate
        :class:`thoracle.classify.quality.Gate` of the bundle.
    lungs_key
        Probability of lung.
    """

    def __init__(self, keys: str, gate: Gate, lungs_key: str = "lungs") -> None:
        super().__init__(keys)
        self.gate = gate
        self._lungs_key = lungs_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with ``limitations``, or with ``refusal``."""
        entries = dict(data)
        image = torch.as_tensor(entries[self.keys[0]]).as_subclass(torch.Tensor)
        try:
            entries["limitations"] = self.gate.check(image, entries[self._lungs_key])
        except NotAnalysable as refusal:
            entries["refusal"] = refusal
        return entries
