"""`thoracle audit why`: the story of a study in sentences."""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from thoracle.errors import ThoracleError

out = Console()


def why_command(
    context: typer.Context,
    study: Annotated[str | None, typer.Argument(help="Study Instance UID.")] = None,
    accession: Annotated[
        str | None, typer.Option(help="Accession Number, instead of the study.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, one object a study.")] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Configuration file; without it, the defaults."),
    ] = None,
) -> None:
    """Tell what became of a study, why, and what is waited for."""
    from thoracle.audit import story
    from thoracle.audit.query import Question
    from thoracle.cli import audit

    if (study is None) is (accession is None):
        raise ThoracleError("found both or neither of STUDY and --accession, required is one")
    data = audit.database(config or context.obj)
    with data.connect() as connection:
        studies = [study] if study else story.of_accession(connection, accession or "")
        told = [_told(connection, story, one) for one in studies]
    question = Question(study_instance_uid=study, accession_number=accession)
    audit.asked(data, question, "thoracle audit why")
    if not told:
        raise ThoracleError(f"found no study with accession number {accession!r:.80}")
    for number, one in enumerate(told):
        if as_json:
            sys.stdout.write(json.dumps(one, ensure_ascii=True) + "\n")
        else:
            _print([""] if number else [])
            _print(_lines(one))


def _told(connection: Any, story: Any, study: str) -> dict[str, Any]:
    known = story.known_of(connection, study)
    return {
        "study_instance_uid": study,
        "answer": story.answer(known),
        "waiting": story.waiting(known),
        "facts": [asdict(one) for one in story.facts(known.events)],
        "came": known.study is not None,
        "around": [asdict(one) for one in story.facts(story.around(connection, known))],
    }


def _lines(told: dict[str, Any]) -> Iterable[str]:
    yield told["answer"]
    yield "Research use only, not for diagnosis."
    if told["waiting"]:
        yield from ("", "What is waited for:", *(f"  {one}" for one in told["waiting"]))
    if told["facts"]:
        yield from ("", "What happened (UTC):", *map(_line, told["facts"]))
    if told["around"]:
        title = (
            "What its senders had refused around that time:"
            if told["came"]
            else "The newest that was refused, of whichever study:"
        )
        yield from ("", title, *map(_line, told["around"]))


def _line(fact: dict[str, Any]) -> str:
    began, ended = _moment(fact["at"]), _moment(fact["until"])
    until = "" if ended == began else f" to {ended}"
    return f"  {began}{until}  {fact['sentence']}"


def _moment(text: str) -> str:
    return text[:19].replace("T", " ")


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        out.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
