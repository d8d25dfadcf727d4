"""`thoracle evaluate`. It imports what it needs when it runs, as the others in ``cli``."""

import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from thoracle import spreadsheet
from thoracle.errors import ThoracleError

if TYPE_CHECKING:
    from thoracle.evaluate.labels import Labels
    from thoracle.evaluate.match import Matched

out = Console()
err = Console(stderr=True)


def evaluate_command(
    path: Annotated[
        Path | None, typer.Argument(help="DICOM, PNG or JPEG file, or folder of them.")
    ] = None,
    labels_file: Annotated[
        Path | None,
        typer.Argument(
            metavar="LABELS.csv",
            help="Columns: path, sop_instance_uid, study_instance_uid or accession_number; label; "
            "group and patient if you like.",
        ),
    ] = None,
    use_verdicts: Annotated[
        bool,
        typer.Option(
            "--verdicts",
            help="Instead of both: what readers said of the gateway's results. These labels "
            "favour the model: readers had seen its answer.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="PNG file to write: ROC and reliability.")
    ] = None,
    target_sensitivity: Annotated[
        float, typer.Option(help="A threshold is proposed that reaches it, above 0 to 1.")
    ] = 0.9,
    target_specificity: Annotated[
        float, typer.Option(help="A threshold is proposed that reaches it, above 0 to 1.")
    ] = 0.9,
    prevalence: Annotated[
        list[float] | None,
        typer.Option(help="Share of cases where results are to mean something; several are fine."),
    ] = None,
    predictions_file: Annotated[
        Path | None, typer.Option("--predictions", help="CSV file to write: a line an image.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Configuration file; without it, the defaults."),
    ] = None,
) -> None:
    """Say how well the model does on your own labelled images, and propose thresholds.

    What is left out or rejected is counted and named. Research software, not for diagnosis.
    """
    from thoracle import log
    from thoracle.classify import bundle
    from thoracle.evaluate import evaluation, results, verdicts
    from thoracle.evaluate.show import show
    from thoracle.settings import Settings, load
    from thoracle.store import files

    targets = evaluation.Targets(
        _share("--target-sensitivity", target_sensitivity, whole=True),
        _share("--target-specificity", target_specificity, whole=True),
        tuple(_share("--prevalence", one) for one in prevalence or (0.01, 0.05, 0.2)),
    )
    pair = _pair(path, labels_file, use_verdicts, predictions_file)
    _can_be_written(plot, predictions_file)
    settings = Settings() if config is None else load(config)
    log.configure("ERROR")
    identity = bundle.identify(settings.classify)
    if pair is None:
        found, matched, read = verdicts.read(settings, identity.digest)
    else:
        found, matched = _matched(*pair)
        read = results.read(settings, matched.cases, _with_progress)
    said = evaluation.evaluate(identity, found, matched, read, targets)
    if predictions_file is not None:
        files.keep(predictions_file, _csv(results.predictions(read)).encode())
    if plot is not None:
        _plot(*evaluation.curves(said), plot, identity.decision.threshold)
    if as_json:
        sys.stdout.write(json.dumps(said.to_json(), ensure_ascii=True) + "\n")
    else:
        show(said, out)


def _pair(
    path: Path | None, labels_file: Path | None, use_verdicts: bool, predictions: Path | None
) -> tuple[Path, Path] | None:
    """Return images and labels, or ``None`` when verdicts are to be the labels."""
    if use_verdicts:
        if path is not None or labels_file is not None:
            raise ThoracleError("--verdicts: found a path, required is none: no image is read")
        if predictions is not None:
            raise ThoracleError(
                "--predictions: found together with --verdicts; `thoracle verdicts` exports them"
            )
        return None
    if path is None or labels_file is None:
        raise ThoracleError("found no PATH and LABELS.csv, required are both, or --verdicts")
    return path, labels_file


def _matched(path: Path, labels_file: Path) -> "tuple[Labels, Matched]":
    from thoracle.evaluate import labels, match
    from thoracle.pipeline import offline

    found = labels.read(labels_file)
    return found, match.match(found, path, offline.images([path]))


def _share(option: str, value: float, *, whole: bool = False) -> float:
    if not (0 < value < 1 or (whole and value == 1)):
        end = "at most" if whole else "below"
        raise ThoracleError(f"{option}: found {value:g}, required is above 0 and {end} 1")
    return value


def _can_be_written(plot: Path | None, predictions: Path | None) -> None:
    """Raise for what would fail at the end, when the images have been read for an hour."""
    if plot is not None and importlib.util.find_spec("matplotlib") is None:
        raise ThoracleError("--plot: found no matplotlib; `pip install 'thoracle[evaluate]'`")
    for path in (plot, predictions):
        if path is not None and not path.parent.is_dir():
            raise ThoracleError(f"{path}: found no folder {path.parent}, required is one")


def _plot(curves: dict[str, Any], areas: dict[str, Any], path: Path, threshold: float) -> None:
    from thoracle.evaluate import plots

    if curves:
        plots.evaluation(curves, path, threshold=threshold, areas=areas)
    else:
        err.print("no plot: found no analysed images of both classes", highlight=False)


def _csv(rows: Iterable[dict[str, str]]) -> str:
    """Return the rows as CSV."""
    columns = ("path", "probability", "outcome", "reason", "label")
    return spreadsheet.text(columns, (tuple(row.values()) for row in rows))


def _with_progress(answers: Iterable[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
    from rich.progress import Progress

    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        bar = progress.add_task("reading", total=total)
        for answer in answers:
            progress.advance(bar)
            yield answer
