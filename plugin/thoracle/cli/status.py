"""`thoracle status`: what is where. It imports what it needs when it runs."""

import getpass
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from thoracle.settings import Settings, load

if TYPE_CHECKING:
    pass

out = Console()


def status_command(
    study: Annotated[
        str | None, typer.Argument(help="Study Instance UID; default: the last ones.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Configuration file; without it, the defaults."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many studies.")] = 20,
) -> None:
    """Show what is where. That studies were looked at is an event of the audit."""
    from thoracle.audit import forwarding
    from thoracle.monitoring import alarms
    from thoracle.pipeline import overview
    from thoracle.store.database import existing

    settings = Settings() if config is None else load(config)
    with existing(settings).begin() as connection:
        counts = overview.counts(connection)
        studies = overview.studies(connection, limit, study)
        _record_status(connection, study, [row["study_instance_uid"] for row in studies])
        raised = [row._asdict() for row in alarms.alarm_rows(connection, "alarm")]
        repositories = forwarding.repositories(connection)
    if as_json:
        told = {"counts": counts, "alarms": raised, "audit_repositories": repositories}
        sys.stdout.write(json.dumps({**told, "studies": studies}, ensure_ascii=True) + "\n")
        return
    said = "; ".join(f"{one['sentence']} (since {one['since']})" for one in raised) or "none"
    out.print(f"alarms: {said}", markup=False, highlight=False, soft_wrap=True)
    for one in repositories:
        out.print(_repository(one), markup=False, highlight=False, soft_wrap=True)
    for title, numbers in counts.items():
        text = ", ".join(f"{number} {name}" for name, number in numbers.items()) or "none"
        out.print(f"{title}: {text}", highlight=False)
    for row in studies:
        for line in _study(row):
            out.print(line, markup=False, highlight=False, soft_wrap=True)


def _repository(one: dict[str, Any]) -> str:
    text = f"audit repository {one['repository']}: {one['state']}, {one['waiting']} events wait"
    if one["failures"]:
        text += f" (since {one['failing_since']}, attempt {one['failures'] + 1} at"
        text += f" {one['next_attempt_at']}) {one['detail']}"
    return text


def _record_status(connection: Any, study: str | None, shown: list[str]) -> None:
    """Record who looks at which studies."""
    from thoracle.store import trail

    event = trail.Event.STUDY_VIEWED if study else trail.Event.LIST_VIEWED
    columns: trail.Columns = {
        "user_id": getpass.getuser()[:64],
        "study_instance_uid": study and study[:64],
        "detail": {"means": "thoracle status", "studies": shown},
    }
    if study and not shown:
        columns["event_outcome"] = trail.MINOR_FAILURE
    trail.record(connection, event, columns)


def _study(row: dict[str, Any]) -> Iterator[str]:
    """Yield what is where of a study, a line each."""
    probability = "" if row["probability"] is None else f" {row['probability']:.4f}"
    said = f"{row['outcome'] or row['state'] or 'receiving'}{probability}"
    if row["sending"] is not None:
        said += f" ({row['sending']})"
    if row["state"] == "withdrawn":
        said = f"withdrawn (was {said})"
    yield f"{row['changed_at']} {row['study_instance_uid']} generation {row['generation']}: {said}"
    for one in row["workitems"]:
        by = f" by {one['claimed_by']}" if one["claimed_by"] else ""
        yield f"    workitem {one['sop_instance_uid']} {one['state']}{by}"
    for one in row["performances"]:
        yield f"    {one['manager']} ups {one['state']} {one['detail'] or ''}".rstrip()
    yield from (f"    {_notification(one)}" for one in row["notifications"])
    yield from (f"    {_delivery(one)}" for one in row["deliveries"])


def _notification(one: dict[str, Any]) -> str:
    text = f"{one['receiver']} hl7 {one['state']}"
    if one["next_attempt_at"]:
        text += f" (attempt {one['attempts'] + 1} at {one['next_attempt_at']})"
    return text + (f" {one['detail']}" if one["detail"] else "")


def _delivery(one: dict[str, Any]) -> str:
    text = f"{one['destination']} {one['kind']} {one['state']}"
    if one["proof"]:
        text += f" (proof: {one['proof']})"
    if one["next_attempt_at"]:
        text += f" (attempt {one['attempts'] + 1} at {one['next_attempt_at']})"
    if one["request"]:
        text += f" (proof {one['request']}"
        text += f", to be looked for at {one['due_at']})" if one["due_at"] else ")"
    return text + (f" {one['detail']}" if one["detail"] else "")
