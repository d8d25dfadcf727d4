"""Training curves as CSV, written after every epoch: a run that stops leaves what it had."""

import csv
from pathlib import Path

from ignite.engine import Engine, Events


class CurvesSaver:
    """Append the mean loss of an epoch, and the validator's AUROC after it, to ``curves.csv``.

    Attach it behind the validation handler.

    Parameters
    ----------
    output_dir
        Folder of the file; an older file is replaced.
    validator
        Engine with the metric ``roc_auc``.
    """

    def __init__(self, output_dir: str, validator: Engine) -> None:
        self._path = Path(output_dir) / "curves.csv"
        self._validator = validator
        self._losses: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Write the header now, and a row at the end of every epoch of the trainer."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._write("w", ("epoch", "loss", "val_auroc"))
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._keep)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._append)

    def _keep(self, engine: Engine) -> None:
        self._losses.append(float(engine.state.output["loss"]))

    def _append(self, engine: Engine) -> None:
        loss = sum(self._losses) / len(self._losses)
        self._losses.clear()
        # The validator does not judge every epoch: then its last result is repeated.
        auroc = self._validator.state.metrics.get("roc_auc")
        said = "" if auroc is None else f"{auroc:.4f}"
        self._write("a", (engine.state.epoch, f"{loss:.4f}", said))

    def _write(self, mode: str, row: tuple[object, ...]) -> None:
        with self._path.open(mode, newline="", encoding="utf-8") as lines:
            csv.writer(lines, lineterminator="\n").writerow(row)
