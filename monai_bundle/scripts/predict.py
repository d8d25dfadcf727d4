"""The predictions of a network for a list of images, as a table."""

from collections.abc import Iterable
from typing import Any

from scripts.calibration import logits_of
from scripts.predictions import from_logits, write
from torch import nn


def predict(
    network: nn.Module,
    batches: Iterable[dict[str, Any]],
    entries: list[dict[str, Any]],
    decision: dict[str, Any],
    fold: str,
    output_dir: str,
) -> None:
    """Write ``<fold>.csv`` in the format of :mod:`scripts.predictions`.

    Parameters
    ----------
    network
        Gives two logits.
    batches
        Of ``image`` and ``label``, in the order of ``entries``.
    entries
        As :func:`scripts.data.judged` gives them.
    decision
        Content of decision.json.
    fold
        ``within``, or the sources left out, joined by ``+``.
    output_dir
        Folder of the table.
    """
    logits, _ = logits_of(network, batches)
    difference = (logits[:, 1] - logits[:, 0] + decision["offset"]).tolist()
    rows = [entry["row"] for entry in entries]
    table = from_logits(rows, difference, fold, decision["temperature"])
    write(f"{output_dir}/{fold}.csv", table)
