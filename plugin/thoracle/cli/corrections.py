"""What a person asks for about a study: withdraw, reanalyse, reconcile, release, retry."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thoracle.cli.options import ConfigOption, StudyArgument, database_of, say, settings_of

if TYPE_CHECKING:
    from thoracle.store.database import Database


def withdraw(
    study: StudyArgument,
    reason: Annotated[str, typer.Option(help="Why, in words that the report will show.")],
    config: ConfigOption = None,
) -> None:
    """Withdraw the newest result of a study, by a correcting report."""
    from thoracle.pipeline import requests

    report = requests.withdraw(
        _database(config), study, reason, getpass.getuser(), named="--reason"
    )
    say(f"to be withdrawn: report {report}; `thoracle status {study}` shows when it is done")


def reanalyse(study: StudyArgument, config: ConfigOption = None) -> None:
    """Read a study again, e.g. with a new bundle; its report names the earlier one."""
    from thoracle.pipeline import requests

    requests.reanalyse(_database(config), study, getpass.getuser())
    say(f"to be read again; `thoracle status {study}` shows when it is done")


def reconcile(
    study: StudyArgument,
    same: Annotated[
        str | None, typer.Option(help="Patient ID of the one patient of all its images.")
    ] = None,
    issuer: Annotated[str, typer.Option(help="With --same: the Issuer of Patient ID.")] = "",
    different: Annotated[bool, typer.Option(help="They are different patients.")] = False,
    config: ConfigOption = None,
) -> None:
    """Settle whose images a study with several patients has; without an option: show them."""
    from thoracle.pipeline import requests
    from thoracle.study.reconciliation import Patient

    database = _database(config)
    if same is None and not different:
        for one in requests.patients(database, study):
            say("\t".join((one.patient_id, one.issuer)))
        return
    if same is not None and different:
        raise typer.BadParameter("found both, required is one", param_hint="--same, --different")
    survivor = None if same is None else Patient(same, issuer)
    requests.reconcile(database, study, survivor, getpass.getuser())
    say(f"to be settled; `thoracle status {study}` shows when it is done")


def release(study: StudyArgument, config: ConfigOption = None) -> None:
    """Send the result of a study that a rule holds."""
    from thoracle.pipeline import requests

    requests.release(_database(config), study, getpass.getuser())
    say(f"to be released; `thoracle status {study}` shows when it is done")


def retry(study: StudyArgument, config: ConfigOption = None) -> None:
    """Send again what was refused or given up; STUDY `none`: what is about no study, as alarms."""
    from thoracle.pipeline import requests

    dead = requests.retry(_database(config), study, getpass.getuser())
    say(f"{dead} to be sent again; `thoracle status {study}` shows what becomes of it")


def _database(config: Path | None) -> "Database":
    return database_of(settings_of(config))
