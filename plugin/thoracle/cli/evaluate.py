"""`thoracle analyse`, `evaluate` and `verdicts`: what the model says, and how good it is."""

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thoracle import spreadsheet
from thoracle.cli.options import (
    ConfigOption,
    JsonOption,
    database_of,
    err,
    out,
    print_json,
    say,
    settings_of,
    who,
    with_progress,
)
from thoracle.errors import ThoracleError
from thoracle.settings import Settings

if TYPE_CHECKING:
    from thoracle.evaluate.labels import Labels, Matched
    from thoracle.records import Finding


def analyse_command(
    paths: Annotated[list[Path], typer.Argument(help="DICOM, PNG or JPEG files, or folders.")],
    as_json: JsonOption = False,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for the result objects, per study.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Run the pipeline on files, without a network."""
    from thoracle import log
    from thoracle.pipeline import offline

    settings = settings_of(config)
    log.configure("ERROR")
    images = offline.images(paths)
    answers = offline.analyse(settings, images, out_folder)
    for answer in with_progress(answers, len(images)):
        if as_json:
            print_json(answer)
        else:
            say(_sentence(answer))


def _sentence(answer: dict[str, Any]) -> str:
    if answer["outcome"] == "rejected":
        text = f"rejected: {answer['reason']['meaning']} ({answer['detail']})"
    else:
        found = f"{answer['finding']['name']} {answer['outcome']}"
        text = f"{found}, probability {answer['probability']:.4f}"
    return f"{answer['path']}: {text} [{answer['seconds']:.2f} s; research, not for diagnosis]"


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
    as_json: JsonOption = False,
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
        typer.Option(help="Prevalence for which predictive values are given; can be repeated."),
    ] = None,
    predictions_file: Annotated[
        Path | None, typer.Option("--predictions", help="CSV file to write, one line per image.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Measure the model on your own labelled images, and propose thresholds.

    What is left out or rejected is counted and named. Research software, not for diagnosis.
    """
    from thoracle import log
    from thoracle.classify import bundle
    from thoracle.evaluate import evaluation, results
    from thoracle.evaluate.show import show
    from thoracle.store import files

    targets = evaluation.Targets(
        _share("--target-sensitivity", target_sensitivity, whole=True),
        _share("--target-specificity", target_specificity, whole=True),
        tuple(_share("--prevalence", one) for one in prevalence or (0.01, 0.05, 0.2)),
    )
    pair = _pair(path, labels_file, use_verdicts, predictions_file)
    _can_be_written(plot, predictions_file)
    settings = settings_of(config)
    log.configure("ERROR")
    identity = bundle.identify(settings.classify)
    if pair is None:
        found, matched, read = results.read_verdicts(settings, identity.digest)
    else:
        found, matched = _matched(*pair, identity.finding)
        read = results.read(settings, matched.cases, with_progress)
    said = evaluation.evaluate(identity, found, matched, read, targets)
    if predictions_file is not None:
        files.write_durably(predictions_file, _csv(results.predictions(read)).encode())
    if plot is not None:
        _plot(*evaluation.curves(said), plot, identity.decision.threshold)
    if as_json:
        print_json(said.to_json())
    else:
        show(said, out)


def _pair(
    path: Path | None, labels_file: Path | None, use_verdicts: bool, predictions: Path | None
) -> tuple[Path, Path] | None:
    """Return images and labels, or ``None`` when verdicts are to be the labels."""
    if use_verdicts:
        if path is not None or labels_file is not None:
            raise ThoracleError("--verdicts: found a path, required: none: no image is read")
        if predictions is not None:
            raise ThoracleError(
                "--predictions: found together with --verdicts; `thoracle verdicts` exports them"
            )
        return None
    if path is None or labels_file is None:
        raise ThoracleError("found no PATH and LABELS.csv, required: both, or --verdicts")
    return path, labels_file


def _matched(path: Path, labels_file: Path, finding: "Finding") -> "tuple[Labels, Matched]":
    from thoracle.evaluate import labels
    from thoracle.pipeline import offline

    found = labels.read(labels_file, finding)
    return found, labels.match(found, path, offline.images([path]))


def _share(option: str, value: float, *, whole: bool = False) -> float:
    if not (0 < value < 1 or (whole and value == 1)):
        end = "at most" if whole else "below"
        raise ThoracleError(f"{option}: found {value:g}, required: above 0 and {end} 1")
    return value


def _can_be_written(plot: Path | None, predictions: Path | None) -> None:
    """Raise for what would fail at the end, when the images have been read for an hour."""
    if plot is not None and importlib.util.find_spec("matplotlib") is None:
        raise ThoracleError("--plot: found no matplotlib; `pip install 'thoracle[evaluate]'`")
    for path in (plot, predictions):
        if path is not None and not path.parent.is_dir():
            raise ThoracleError(f"{path}: found no folder {path.parent}, required: one")


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


COLUMNS = (
    "recorded_at",
    "study_instance_uid",
    "accession_number",
    "generation",
    "sop_instance_uid",
    "bundle_digest",
    "finding",
    "outcome",
    "probability",
    "device",
    "opinion",
    "comment",
    "person",
    "counts",
)
"""Of the table ``verdict``, but for ``finding``, that of the bundle, and ``counts``: whether it is
the newest verdict of its study."""


def verdicts_command(
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="CSV file to write, one line per verdict.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Export the verdicts of readers, oldest first. The export is audited."""
    from thoracle.store import files

    if (csv_file is None) is not as_json:
        raise ThoracleError("found both or neither of --csv and --json, required: one")
    if csv_file is not None and not csv_file.parent.is_dir():
        raise ThoracleError(f"{csv_file}: found no folder {csv_file.parent}, required: one")
    rows = _exported(settings_of(config))
    if csv_file is None:
        for row in rows:
            print_json(row)
        return
    files.write_durably(csv_file, _verdicts_csv(rows).encode())
    say(f"{csv_file} written: {len(rows)} verdicts")


def _exported(settings: Settings) -> list[dict[str, Any]]:
    """Return all verdicts, and record that they leave."""
    from thoracle.store import trail
    from thoracle.study import verdicts

    with database_of(settings).begin() as connection:
        found = list(verdicts.exported(connection))
        shown = sorted({row["study_instance_uid"] for row in found})
        columns = who("thoracle verdicts", verdicts=len(found), studies=shown)
        trail.record(connection, trail.Event.EXPORTED, columns)
    return [{name: row[name] for name in COLUMNS} for row in found]


def _verdicts_csv(rows: Iterable[dict[str, Any]]) -> str:
    return spreadsheet.text(COLUMNS, ([_cell(row[name]) for name in COLUMNS] for row in rows))


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4f}"
        case _:
            return str(value)
