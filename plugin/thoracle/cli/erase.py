"""`thoracle erase`: a patient goes from here, and destinations are told first."""

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from thoracle.cli.options import ConfigOption, database_of, say, settings_of, who
from thoracle.cli.subject import subject_of
from thoracle.errors import ThoracleError
from thoracle.settings import users
from thoracle.wording import number

if TYPE_CHECKING:
    from thoracle.retention.erasure import Erasure, Plan
    from thoracle.retention.subject import Subject
    from thoracle.settings import Settings
    from thoracle.store import trail
    from thoracle.store.database import Database

NOT_DONE = 3
"""Exit code: something is under way, or another person has to go on; nothing is erased yet."""
NOTICE = "The patient's data were erased from the system that made this result."
"""Reason of the withdrawals: that of the erasure is not for everybody."""
WAIT_SECONDS = 120.0
LOOK_SECONDS = 2.0


def erase_command(
    patient: Annotated[str, typer.Option(help="Patient ID.")],
    reason: Annotated[str, typer.Option(help="Reason, kept in the audit. No name, no ID.")],
    issuer: Annotated[
        str | None,
        typer.Option(help="Issuer of the Patient ID; required if the ID has several."),
    ] = None,
    execute: Annotated[
        bool, typer.Option("--execute", help="Erase. Without it, list what would go.")
    ] = False,
    mixed: Annotated[
        bool,
        typer.Option("--mixed", help="Also erase studies that have images of another patient."),
    ] = False,
    notice: Annotated[
        bool,
        typer.Option(
            "--notice/--without-notice",
            help="First withdraw results that destinations have received, or leave them there.",
        ),
    ] = True,
    vacuum: Annotated[
        bool,
        typer.Option("--vacuum/--no-vacuum", help="Rewrite the SQLite file at the end (VACUUM)."),
    ] = True,
    config: ConfigOption = None,
) -> None:
    """Erase a patient: images, results, names, rows. The audit keeps a pseudonym."""
    from thoracle.retention import erasure
    from thoracle.retention.pseudonyms import Pseudonyms

    settings = settings_of(config)
    if not 0 < len(reason.strip()) <= 1024 or not reason.isprintable():
        raise ThoracleError(
            f"--reason: found {len(reason)} characters, required: 1 to 1024, all printable"
        )
    pseudonyms = Pseudonyms.of_file(settings.erasure.key_file)
    database = database_of(settings)
    subject = _subject(database, patient, issuer)
    asked = erasure.Erasure(database, settings, pseudonyms, subject)
    columns = _who(settings)
    plan = asked.plan(sending=notice)
    _show(plan, notice)
    if not execute:
        asked.looked_at(plan, columns)
        say("nothing was changed; with --execute it is erased")
        return
    if plan.mixed and not mixed:
        raise ThoracleError(
            f"found images of another patient in {', '.join(plan.mixed)}, required: --mixed: "
            "these studies go as a whole, and the archive can send the other images again"
        )
    if settings.erasure.second_person and not asked.request(reason, columns):
        say("requested, and recorded; another user of this machine has to run the same command")
        raise typer.Exit(NOT_DONE)
    if notice:
        _withdraw(asked, plan, database, str(columns["user_id"]))
    done = asked.run(reason, columns, sending=notice)
    say(
        f"erased as {plan.pseudonym}: {number(done.files, 'file')}, "
        f"{number(sum(done.rows.values()), 'row')}, {number(done.workflows, 'workflow')}; "
        f"{number(done.events, 'row of the audit keeps', 'rows of the audit keep')} the pseudonym"
    )
    _compact(settings, vacuum=vacuum)


def _subject(database: "Database", patient: str, issuer: str | None) -> "Subject":
    """Return the patient; questions of the audit for the ID alone make no second issuer."""
    from thoracle.retention import subject

    if issuer is None:
        with database.connect() as connection:
            known = subject.issuers_of_images(connection, patient)
        issuer = known.pop() if len(known) == 1 else None
    return subject_of(database, patient, issuer)


def _who(settings: "Settings") -> "trail.Columns":
    """Return who erases; for a second person, by the user of the process and no variable."""
    columns = who("thoracle erase")
    if settings.erasure.second_person:
        columns["user_id"] = users.name_of(os.getuid())[:64]
    return columns


def _show(plan: "Plan", notice: bool) -> None:
    say(f"pseudonym: {plan.pseudonym}")
    for uid in plan.known.studies:
        said = ", with images of another patient" if uid in plan.mixed else ""
        said += ", its result is at a destination" if uid in plan.told else ""
        say(f"study {uid}{said}")
    say("rows: " + (", ".join(f"{rows} {name}" for name, rows in plan.rows.items()) or "none"))
    say(f"rows of the audit that get the pseudonym: {plan.events}")
    if plan.told and notice:
        say("the results are withdrawn first, so that destinations are told")
    for one in plan.forbidden:
        say(f"not yet: {one}")


def _withdraw(asked: "Erasure", plan: "Plan", database: "Database", user: str) -> None:
    """Have the results withdrawn that somebody has, and wait until they are told."""
    from thoracle.pipeline import requests

    if any("legal hold" in one for one in plan.forbidden):
        return  # it is refused at once
    for uid in plan.told:
        try:
            requests.withdraw(database, uid, NOTICE, user)
        except ThoracleError as error:
            raise ThoracleError(
                f"{error}; with --without-notice it is erased, and destinations are not told"
            ) from error
    end = time.monotonic() + WAIT_SECONDS
    while plan.told or plan.forbidden:
        if time.monotonic() > end:
            say(
                "not erased yet: this is under way, or its destination is away; repeat the "
                "command, or give --without-notice"
            )
            for one in (*(f"{uid}: its withdrawal" for uid in plan.told), *plan.forbidden):
                say(f"not yet: {one}")
            raise typer.Exit(NOT_DONE)
        time.sleep(LOOK_SECONDS)
        plan = asked.plan()


def _compact(settings: "Settings", *, vacuum: bool) -> None:
    from thoracle.retention import erasure
    from thoracle.store import sqlite

    for one in sqlite.copies(settings.data_folder):
        say(f"{one}: an old copy of the database: delete it")
    if settings.database.url:
        say("PostgreSQL: its old row versions, log and backups still have them: docs/erasure.md")
        return
    if not erasure.compact(settings, vacuum=vacuum):
        say("the write-ahead log is in use: it is emptied when gateway and pages are restarted")
