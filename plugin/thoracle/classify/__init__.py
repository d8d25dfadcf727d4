"""Stage 4: the MONAI bundle. torch, MONAI and OpenVINO are imported here and nowhere else."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from thoracle.settings import Classify

if TYPE_CHECKING:
    from thoracle.classify.classifier import Classifier

# OpenMP reads this when torch is loaded. Threads that spin while they wait for the next layer
# take the processor from the listener: actively waiting ones doubled the CPU time of a study.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Importing openvino, and each conversion, is reported to Google Analytics with an identifier kept
# in the home folder, unasked, when this package that its wheel depends on can be imported. None
# makes the import fail, and openvino then takes a stub of its own: nothing is ever sent.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # None is Python's own way

_ONLY_FOR_TRAINING = ("ignite", "matplotlib", "tensorboard", "mlflow", "IPython")
"""What MONAI imports wherever it is installed, and no inference needs: up to 1.5 CPU seconds."""


def load_classifier(settings: Classify) -> "Classifier":
    """Return the classifier of the settings; importing torch and MONAI takes seconds.

    Raises
    ------
    SettingsError, BundleError
        As by :meth:`thoracle.classify.classifier.Classifier.load`.
    """
    return import_classifier().load(settings)


def import_classifier() -> "type[Classifier]":
    """Return the class of the classifier, with torch and MONAI imported."""
    with _absent(*_ONLY_FOR_TRAINING):
        from thoracle.classify.classifier import Classifier
    return Classifier


@contextmanager
def _absent(*names: str) -> Iterator[None]:
    """Let imports of packages fail that nobody has imported so far: they are optional to MONAI."""
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # as above
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
