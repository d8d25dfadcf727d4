"""`thoracle status`: what is where. It imports what it needs when it runs."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer

from thoracle.cli.options import (
    STUDY_HELP,
    ConfigOption,
    JsonOption,
    database_of,
    print_json,
    say,
    settings_of,
    study_of,
    who,
)


def status_command(
    study: Annotated[
        str | None, typer.Argument(help=f"{STUDY_HELP} Default: the last ones.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    limit: Annotated[int, typer.Option(min=1, help="Number of studies.")] = 20,
) -> None:
    """Show the state of the service and of its latest studies, or of one. It is audited."""
    from thoracle.audit import forwarding
    from thoracle.monitoring import occurrences
    from thoracle.pipeline import overview
    from thoracle.store import lease

    database = database_of(settings_of(config))
    if study is not None:
        study = study_of(database, study, "thoracle status")
    with database.begin() as connection:
        counts = overview.counts(connection)
        studies = overview.studies(connection, limit, study)
        _record_status(connection, study, [row["study_instance_uid"] for row in studies])
        raised = occurrences.as_json(occurrences.standing(connection))
        repositories = forwarding.repositories(connection)
        gateways = lease.known(connection)
    if as_json:
        told = {"counts": counts, "alarms": raised, "audit_repositories": repositories}
        print_json({**told, "gateways": [asdict(one) for one in gateways], "studies": studies})
        return
    for number, gateway in enumerate(gateways):
        say(f"gateway {gateway.name}: {gateway.said(leads=number == 0)}")
    say(f"alarms: {'; '.join(map(_alarm, raised)) or 'none'}")
    for one in repositories:
        say(_repository(one))
    for title, numbers in counts.items():
        text = ", ".join(f"{number} {name}" for name, number in numbers.items()) or "none"
        say(f"{title}: {text}")
    for row in studies:
        for line in _study(row):
            say(line)


def _alarm(one: dict[str, Any]) -> str:
    more = f"since {one['since']}"
    if one["acknowledged_at"]:
        more += f", acknowledged by {one['acknowledged_by']}"
    if one["silenced_until"]:
        more += f", silenced by {one['silenced_by']} until {one['silenced_until']}"
    return f"{one['sentence']} {one['advice']}".strip() + f" ({more})"


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
        **who("thoracle status", studies=shown),
        "study_instance_uid": study and study[:64],
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
    yield from (f"    {_sent(one)}" for one in row["outbox"])


def _sent(one: dict[str, Any]) -> str:
    text = f"{one['peer']} {one['kind']} {one['state']}"
    if one["proof"]:
        text += f" (proof: {one['proof']})"
    if one["next_attempt_at"]:
        text += f" (attempt {one['attempts'] + 1} at {one['next_attempt_at']})"
    if one["request"]:
        text += f" (proof {one['request']}"
        text += f", next check at {one['due_at']})" if one["due_at"] else ")"
    return text + (f" {one['detail']}" if one["detail"] else "")
