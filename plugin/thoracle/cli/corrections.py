"""What a person asks for about a study: withdraw, reanalyse, reconcile, release, retry."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thoracle.cli.options import (
    ConfigOption,
    StudyArgument,
    database_of,
    say,
    settings_of,
    study_of,
    who,
)

if TYPE_CHECKING:
    from thoracle.store.database import Database


def withdraw(
    study: StudyArgument,
    reason: Annotated[str, typer.Option(help="Reason, shown in the correcting report.")],
    config: ConfigOption = None,
) -> None:
    """Withdraw the latest result of a study with a correcting report."""
    from thoracle.pipeline import overview, requests

    database, study = _named(config, study, "withdraw")
    report = requests.withdraw(database, study, reason, getpass.getuser(), named="--reason")
    say(f"withdrawal of report {report} requested; `thoracle status {study}` shows its state")
    with database.connect() as connection:
        if overview.is_read_again(connection, study):
            say("a new analysis of the study is under way: its result is not withdrawn by this")


def reanalyse(study: StudyArgument, config: ConfigOption = None) -> None:
    """Read a study again, e.g. with a new bundle; its report names the earlier one."""
    from thoracle.pipeline import requests

    database, study = _named(config, study, "reanalyse")
    requests.reanalyse(database, study, getpass.getuser())
    say(f"new analysis requested; `thoracle status {study}` shows its state")


def reconcile(
    study: StudyArgument,
    same: Annotated[
        str | None, typer.Option(help="All images are of the patient with this Patient ID.")
    ] = None,
    issuer: Annotated[str, typer.Option(help="With --same: the Issuer of Patient ID.")] = "",
    different: Annotated[bool, typer.Option(help="The patients are different.")] = False,
    config: ConfigOption = None,
) -> None:
    """Decide whose images a study with several patients has; without options, list them."""
    from thoracle.pipeline import requests
    from thoracle.store import trail
    from thoracle.study.reconciliation import Patient

    database, study = _named(config, study, "reconcile")
    if same is None and not different:
        found = requests.patients(database, study)
        columns: trail.Columns = {**who("thoracle reconcile"), "study_instance_uid": study}
        with database.begin() as connection:
            trail.record(connection, trail.Event.STUDY_VIEWED, columns)
        for one in found:
            say("\t".join((one.patient_id, one.issuer)))
        return
    if same is not None and different:
        raise typer.BadParameter("found both, required: one", param_hint="--same, --different")
    survivor = None if same is None else Patient(same, issuer)
    requests.reconcile(database, study, survivor, getpass.getuser())
    say(f"decision saved; `thoracle status {study}` shows the new analysis")


def release(study: StudyArgument, config: ConfigOption = None) -> None:
    """Release the result of a study that a rule holds."""
    from thoracle.pipeline import requests

    database, study = _named(config, study, "release")
    requests.release(database, study, getpass.getuser())
    say(f"release requested; `thoracle status {study}` shows its state")


def retry(study: StudyArgument, config: ConfigOption = None) -> None:
    """Retry failed deliveries; STUDY `none` retries those of no study, e.g. alarms."""
    from thoracle.outbox.rows import NO_STUDY
    from thoracle.pipeline import requests

    if study == NO_STUDY:
        database = database_of(settings_of(config))
    else:
        database, study = _named(config, study, "retry")
    dead = requests.retry(database, study, getpass.getuser())
    say(f"{dead} queued to be sent again; `thoracle status {study}` shows their state")


def _named(config: Path | None, study: str, command: str) -> tuple["Database", str]:
    """Return the database, and the one study in it that somebody means."""
    database = database_of(settings_of(config))
    return database, study_of(database, study, f"thoracle {command}")
