"""When a run is ended: its answers are the same for every image."""

from typing import Any


class CollapseCheck:
    """End a run whose answers are the same for every image: at high rates that happened.

    Parameters
    ----------
    least
        Least standard deviation of the answers of a batch.
    patience
        Batches in a row that may have less; the first ones always do.
    """

    def __init__(self, least: float = 0.02, patience: int = 60) -> None:
        self._least = least
        self._patience = patience
        self._constant = 0

    def attach(self, engine: Any) -> None:
        """Look at each iteration of a trainer of ignite."""
        from ignite.engine import Events

        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Count batches with constant answers.

        Raises
        ------
        RuntimeError
            There were too many in a row.
        """
        spread = float(engine.state.output["pred"]["logits"].detach().std(0).mean())
        self._constant = self._constant + 1 if not spread >= self._least else 0
        if self._constant > self._patience:
            raise RuntimeError(
                f"found answers that differ by {spread:.1g} between images in {self._constant} "
                f"batches in a row, required: {self._least:g}: the network has collapsed"
            )
