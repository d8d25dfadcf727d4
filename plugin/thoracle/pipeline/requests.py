"""What people ask of the gateway about a study: each looks for what is to be done, and has it done.

The gateway does the work, now or when it next starts; the command line and the pages only ask.
``user`` is who will stand in the audit.
"""

import uuid

from sqlalchemy import Connection, Engine

from thoracle.errors import ThoracleError
from thoracle.pipeline import overview
from thoracle.store import engine
from thoracle.study import headers, instances, reconciliation, results
from thoracle.study.reconciliation import Patient

LONGEST_REASON = 1024
"""Characters; of the standard's texts that viewers show whole, LT has 10240 and ST 1024."""


def withdraw(database: Engine, study: str, reason: str, user: str, *, named: str = "reason") -> str:
    """Have the newest result of a study withdrawn; return the SOP Instance UID of its report.

    Parameters
    ----------
    reason
        In words that the correcting report will show.
    named
        What the caller calls the reason.

    Raises
    ------
    ThoracleError
        The reason is no printable text of 1 to ``LONGEST_REASON`` characters, no result stands,
        or of an image of it not even the header is kept.
    """
    reason = reason.strip()
    if not 0 < len(reason) <= LONGEST_REASON or not reason.isprintable():
        raise ThoracleError(
            f"{named}: found {len(reason)} characters, required: 1 to {LONGEST_REASON}, "
            "all of them printable"
        )
    with database.connect() as connection:
        report = overview.standing_report(connection, study)
        missing = headers.missing(connection, study)
    if report is None:
        raise ThoracleError(f"{study}: found no active result to withdraw")
    if missing:
        raise _gone(study, missing, "all")
    # One withdrawal for a report, however often it is asked for.
    name = f"withdraw:{report}"
    engine.request(database, engine.ANALYSE, "withdraw", name, study, reason, user)
    return report


def _gone(study: str, missing: int, required: str, besides: str = "") -> ThoracleError:
    return ThoracleError(
        f"{study}: found {missing} images that are no longer kept, required: {required}: have "
        f"the archive send them again, then repeat the request{besides}"
    )


def reanalyse(database: Engine, study: str, user: str) -> None:
    """Have a study read again.

    Raises
    ------
    ThoracleError
        There is no such study, or an image of it is no longer kept.
    """
    with database.connect() as connection:
        if not overview.studies(connection, 1, study):
            raise ThoracleError(f"{study}: found no such study, required: one that was received")
        if missing := instances.missing_files(connection, study):
            besides = _without_images(connection, study)
            raise _gone(study, missing, "the pixels of all, to read them", besides)
    name = f"reanalyse:{study}:{uuid.uuid4()}"
    engine.request(database, engine.INTAKE, "reanalyse", name, study, user)


def patients(database: Engine, study: str) -> list[Patient]:
    """Return the patients under whom images of a study have come.

    Raises
    ------
    ThoracleError
        There is no such study.
    """
    with database.connect() as connection:
        found = reconciliation.patients(connection, study)
    if not found:
        raise ThoracleError(f"{study}: found no image of it, required: a study that was received")
    return found


def reconcile(database: Engine, study: str, survivor: Patient | None, user: str) -> None:
    """Settle whose images a study has: all the survivor's, or (``None``) those of several patients.

    Raises
    ------
    ThoracleError
        The study waits for no such answer, or the survivor is none of those found in it.
    """
    with database.connect() as connection:
        row = reconciliation.row_of(connection, study)
        found = reconciliation.patients(connection, study)
    if row is None or row.state != reconciliation.OPEN:
        raise ThoracleError(f"{study}: found images of one patient only, nothing to reconcile")
    if survivor is not None and not any(survivor.is_same(one) for one in found):
        raise ThoracleError(f"{study}: found no image of this patient, required: one of those")
    decision = reconciliation.DIFFERENT if survivor is None else reconciliation.SAME
    named = survivor or Patient("", "")
    name = f"reconcile:{study}:{uuid.uuid4()}"
    values = (study, decision, named.patient_id, named.issuer, user)
    engine.request(database, engine.ANALYSE, "reconcile", name, *values)


def _without_images(connection: Connection, study: str) -> str:
    """Return what can be done although images have gone, as the end of a sentence."""
    stands = overview.standing_report(connection, study) is not None
    if stands and not headers.missing(connection, study):
        return "; withdrawing its result needs no images"
    return ""


def release(database: Engine, study: str, user: str) -> None:
    """Have the result of a study sent that a rule holds.

    Raises
    ------
    ThoracleError
        None is held.
    """
    with database.connect() as connection:
        held = results.held(connection, study)
    if held is None:
        raise ThoracleError(f"{study}: found no held result to release")
    name = f"release:{study}:{held.generation}:{held.bundle_digest}"
    engine.request(database, engine.INTAKE, "release", name, study, user)


def retry(database: Engine, study: str, user: str) -> int:
    """Have sent again what a destination refused or what was given up; return how much that is.

    Raises
    ------
    ThoracleError
        There is nothing of the kind.
    """
    with database.connect() as connection:
        dead = overview.dead(connection, study)
    if dead == 0:
        raise ThoracleError(f"{study}: found nothing refused or given up to retry")
    engine.request(database, engine.INTAKE, "retry", f"retry:{study}:{uuid.uuid4()}", study, user)
    return dead
