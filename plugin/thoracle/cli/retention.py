"""`thoracle retention` and `thoracle hold`. Each command imports what it needs when it runs."""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

import typer

from thoracle.cli.options import (
    ConfigOption,
    JsonOption,
    database_of,
    print_json,
    say,
    settings_of,
    study_of,
    who,
)
from thoracle.errors import ThoracleError

retention = typer.Typer(help="Show and apply the retention rules.", no_args_is_help=True)
hold = typer.Typer(help="Place and release legal holds.", no_args_is_help=True)

STUDIES = 200
"""Looked at in one query."""


# ---- retention -------------------------------------------------------------------------------


@retention.command("plan")
def plan_command(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    limit: Annotated[int, typer.Option(min=1, help="Studies to list of each kind.")] = 100,
) -> None:
    """List what would be deleted now, and what is kept and why. Changes nothing."""
    from thoracle.retention import removal, rules
    from thoracle.retention.rows import PurgeKind
    from thoracle.store import trail, views
    from thoracle.store.anchors import ANCHORS_FILE, read_anchors

    settings = settings_of(config)
    database = database_of(settings)
    limits = rules.RetentionLimits.of(settings.retention)
    with database.connect() as connection:
        planned = [
            one
            for what in PurgeKind
            for one in islice(
                (_planned_rows if what in removal.KINDS else _planned)(connection, what, limits),
                limit,
            )
        ]
    with database.begin() as connection:
        for some in views.pieces(sorted({one["study_instance_uid"] for one in planned})) or [[]]:
            columns = who("thoracle retention plan", studies=list(some))
            trail.record(connection, trail.Event.LIST_VIEWED, columns)
    for one in planned:
        _show(one, as_json)
    with database.connect() as connection:
        repositories = [one.name for one in settings.audit_repository]
        kept = read_anchors(settings.data_folder / ANCHORS_FILE)
        days = settings.retention.audit_days
        found = rules.prefix(connection, days, repositories, limits.moment, kept)
    if as_json:
        values = {"what": "audit", "rows": found.rows, "up_to": found.up_to}
        print_json({**values, "stays_because": found.stopped_by})
        return
    say(
        f"audit: {found.rows} rows would be deleted"
        + (f"; {found.stopped_by}" * bool(found.stopped_by))
    )


def _planned(connection: Any, what: Any, limits: Any) -> Iterator[dict[str, Any]]:
    """Yield the studies with files, by UID: what they have, and why it stays."""
    from thoracle.retention import holds, rules
    from thoracle.retention import rows as stored
    from thoracle.retention.rows import PurgeKind
    from thoracle.study import headers

    after = ""
    while True:
        if what is PurgeKind.HEADERS:
            studies = headers.studies(connection, "9", "9", after, STUDIES)
        else:
            studies = stored.candidates(connection, what, "9", after, STUDIES)
        for study in studies:
            facts = stored.facts(connection, study)
            held_by = holds.of_study(connection, study)
            why = list(rules.reasons(facts, held_by, what, limits))
            files = rules.size(connection, what, study)
            yield {
                "what": what.value,
                "study_instance_uid": study,
                "files": files,
                "goes": not why,
                "stays_because": why,
            }
        if len(studies) < STUDIES:
            return
        after = studies[-1]


def _planned_rows(connection: Any, what: Any, limits: Any) -> Iterator[dict[str, Any]]:
    """Yield the studies whose rows are old enough for a rule, by UID, and why they stay."""
    from thoracle.retention import removal

    after, before = "", limits.before(what)
    while before:
        studies = removal.candidates(connection, what, before, after, STUDIES)
        for study in studies:
            why = list(removal.reasons(connection, what, study, limits))
            yield {
                "what": what.value,
                "study_instance_uid": study,
                "rows": removal.size(connection, what, study, before),
                "goes": not why,
                "stays_because": why,
            }
        if len(studies) < STUDIES:
            return
        after = studies[-1]


def _show(one: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(one)
        return
    said = "go" if one["goes"] else f"stay: {'; '.join(one['stays_because'])}"
    is_rows = "rows" in one or one["what"] == "headers"
    number = f"{one.get('rows', one.get('files'))} {'rows' if is_rows else 'files'}"
    say(f"{one['what']} of {one['study_instance_uid']}: {number} {said}")


@retention.command("run")
def run_command(config: ConfigOption = None) -> None:
    """Delete what is due now, without waiting for the gateway."""
    from thoracle import log
    from thoracle.retention.purge import Purge

    settings = settings_of(config)
    log.configure("ERROR")
    say(f"deleted: {Purge(database_of(settings), settings).run()}")


# ---- holds -----------------------------------------------------------------------------------


@hold.command("add")
def add_command(
    reason: Annotated[str, typer.Option(help="Reason, e.g. the case number.")],
    patient: Annotated[str | None, typer.Option(help="Patient ID.")] = None,
    issuer: Annotated[
        str | None, typer.Option(help="Issuer of the Patient ID; default: any issuer.")
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Study Instance UID or Accession Number.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Place a patient or a study under legal hold."""
    from thoracle.audit import lookup
    from thoracle.retention import holds

    if (patient is None) is (study is None):
        raise ThoracleError("found both or neither of --patient and --study, required: one")
    if not reason.strip() or len(reason) > 1024 or not (patient or study):
        raise ThoracleError(
            f"found a reason of {len(reason.strip())} characters, required: 1 to 1024, and a "
            "patient or study that is not empty"
        )
    database = database_of(settings_of(config))
    if study is not None and not lookup.is_uid(study):  # a UID may be of a study yet to come
        study = study_of(database, study, "thoracle hold add")
    with database.begin() as connection:
        number = holds.place(
            connection,
            reason.strip(),
            who("thoracle hold add"),
            patient_id=patient,
            issuer_of_patient_id=issuer,
            study_instance_uid=study,
        )
    say(f"hold {number} is placed")


@hold.command("release")
def release_command(
    number: Annotated[int, typer.Argument(help="Number of the hold in `thoracle hold list`.")],
    config: ConfigOption = None,
) -> None:
    """Release a hold: the retention rules apply again. It stays in `list --all`."""
    from thoracle.retention import holds

    with database_of(settings_of(config)).begin() as connection:
        row = holds.release(connection, number, who("thoracle hold release"))
    if row is None:
        raise ThoracleError(f"found no active hold {number}, required: one")
    say(f"hold {number} is released")


@hold.command("list")
def list_command(
    everything: Annotated[bool, typer.Option("--all", help="Include released holds.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List legal holds."""
    from thoracle.retention import holds
    from thoracle.store import trail

    with database_of(settings_of(config)).begin() as connection:
        found = [row._asdict() for row in holds.rows(connection, released=everything)]
        columns = who("thoracle hold list", studies=holds.studies(connection, everything))
        trail.record(connection, trail.Event.LIST_VIEWED, columns)
    for row in found:
        if as_json:
            print_json(row)
        else:
            say(_sentence(row))
    if not found and not as_json:
        say("no legal holds")


def _sentence(row: dict[str, Any]) -> str:
    if row["study_instance_uid"]:
        whose = f"study {row['study_instance_uid']}"
    else:
        issuer = row["issuer_of_patient_id"]
        whose = f"patient {row['patient_id']!r}"
        whose += " of any issuer" if issuer is None else f" of issuer {issuer!r}"
    ended = f", released {row['released_at']} by {row['released_by']}" if row["released_at"] else ""
    reason = row["reason"]
    return f"{row['id']}: {whose}, since {row['placed_at']} by {row['placed_by']}{ended}: {reason}"
