"""`thoracle route`: its commands. Each imports what it needs when it runs, as in ``cli``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thoracle.cli.options import ConfigOption, JsonOption, print_json, say, settings_of
from thoracle.errors import NotAnalysable, ThoracleError
from thoracle.records import Outcome, Reason
from thoracle.settings import Settings

if TYPE_CHECKING:
    from pydicom import Dataset

    from thoracle.routing.rules import StudyResult

app = typer.Typer(help="Explain which routing rules fire, and why.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Explain which routing rules fire, and why."""


@app.command("explain")
def explain_command(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE...", help="The images of a study.")],
    config: ConfigOption = None,
    result: Annotated[
        str | None,
        typer.Option(
            metavar="OUTCOME:WHAT",
            help="Assume this result: positive:0.93, rejected:NOT-CHEST. Default: no result yet.",
        ),
    ] = None,
    sender: Annotated[str, typer.Option(metavar="AET", help="AE title of the sender.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Explain which rules fire for a study, and what goes where. Nothing is sent."""
    from thoracle.routing import explanation, rules

    settings = settings_of(config)
    decision = rules.decide(
        settings.rule,
        settings.destination,
        _study(paths),
        sender,
        None if result is None else _result(result, settings),
        rules.receivers(settings),
    )
    if as_json:
        print_json(decision.to_json())
        return
    for line in explanation.explained(decision, settings):
        say(line)


def _study(paths: Sequence[Path]) -> "list[Dataset]":
    from thoracle.image.header import header_of

    headers: list[Dataset] = []
    for path in paths:
        try:
            ds = header_of(path)
        except NotAnalysable as error:
            raise ThoracleError(f"{path}: {error.detail}, required: a DICOM file") from error
        if not ds:
            raise ThoracleError(f"{path}: found no DICOM header, required: a DICOM file")
        headers.append(ds)
    studies = {str(ds.get("StudyInstanceUID", "")) for ds in headers}
    if len(studies) > 1:
        raise ThoracleError(f"found images of {len(studies)} studies, required: one study")
    return headers


def _result(said: str, settings: Settings) -> "StudyResult":
    from thoracle.classify import bundle
    from thoracle.routing.rules import StudyResult

    identity = bundle.identify(settings.classify)
    word, _, what = said.partition(":")
    try:
        outcome = Outcome(word)
        rejected = outcome is Outcome.REJECTED
        reason = Reason.from_code_value(what) if rejected else None
        probability = None if rejected else float(what)
    except (ValueError, KeyError) as error:
        raise ThoracleError(
            f"--result: found {said!r}, required: e.g. positive:0.93 or rejected:NOT-CHEST"
        ) from error
    return StudyResult(outcome, probability, reason, identity.name, identity.version)
