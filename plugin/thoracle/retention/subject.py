"""Statements about one patient: all that is kept about them, and nothing about anybody else.

A Patient ID means somebody only together with its issuer. Images of two patients can stand in one
study, by mistake: what is said of such a study as a whole may be about the other one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, func, or_, select

from thoracle.store.tables import (
    analysis,
    audit_event,
    commitment,
    header,
    instance,
    legal_hold,
    outbox,
    performance,
    reading,
    result,
    study,
    verdict,
    workitem,
    worklist,
)

BATCH = 1000


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom it is about."""

    patient_id: str
    issuer_of_patient_id: str
    """Empty: the ID came without one."""

    def named_in(self, table: Table) -> ColumnElement[bool]:
        """Return the condition under which a row names this patient."""
        issuer = func.coalesce(table.c.issuer_of_patient_id, "")
        return and_(table.c.patient_id == self.patient_id, issuer == self.issuer_of_patient_id)


def issuers(connection: Connection, patient_id: str) -> set[str]:
    """Return the issuers with which a Patient ID has come; empty text where it had none."""
    found: set[str] = set()
    for table in (study, instance, audit_event):
        issuer = func.coalesce(table.c.issuer_of_patient_id, "")
        statement = select(issuer).where(table.c.patient_id == patient_id).distinct()
        found |= set(connection.execute(statement).scalars())
    return found


def issuers_of_images(connection: Connection, patient_id: str) -> set[str]:
    """Return the issuers with which a Patient ID has come in images that are known here."""
    issuer = func.coalesce(instance.c.issuer_of_patient_id, "")
    statement = select(issuer).where(instance.c.patient_id == patient_id).distinct()
    return set(connection.execute(statement).scalars())


def studies(connection: Connection, subject: Subject) -> list[tuple[str, bool]]:
    """Return the studies of a patient, and of each whether it is of them alone."""
    found: set[str] = set()
    for table in (study, instance):
        statement = select(table.c.study_instance_uid).where(subject.named_in(table))
        found |= set(connection.execute(statement).scalars())
    return [(uid, not _others(connection, subject, uid)) for uid in sorted(found)]


def _others(connection: Connection, subject: Subject, uid: str) -> bool:
    for table in (study, instance):
        statement = select(table.c.study_instance_uid).where(
            table.c.study_instance_uid == uid,
            ~func.coalesce(subject.named_in(table), False),
        )
        if connection.execute(statement.limit(1)).first() is not None:
            return True
    return False


def images(connection: Connection, subject: Subject, uid: str) -> list[dict[str, Any]]:
    """Return the rows of a patient's images in a study."""
    here = instance.c.study_instance_uid == uid
    return _rows(connection, instance, here & subject.named_in(instance))


def headers(connection: Connection, subject: Subject, uid: str) -> list[dict[str, Any]]:
    """Return what is kept of a patient's images in a study that have gone; files as ``content``."""
    mine = select(instance.c.sop_instance_uid).where(
        instance.c.study_instance_uid == uid, subject.named_in(instance)
    )
    return _rows(connection, header, header.c.sop_instance_uid.in_(mine))


def results(connection: Connection, uid: str) -> list[dict[str, Any]]:
    """Return the rows of the objects that were made of a study, or passed on."""
    return _rows(connection, result, result.c.study_instance_uid == uid)


def sent(connection: Connection, uid: str) -> list[dict[str, Any]]:
    """Return the rows of the outbox about a study; of a message, the file as ``path``."""
    made = select(result.c.sop_instance_uid).where(result.c.study_instance_uid == uid)
    return _rows(connection, outbox, outbox.c.sop_instance_uid.in_(made))


def readings(
    connection: Connection, uid: str, sop_instance_uids: Sequence[str]
) -> list[dict[str, Any]]:
    """Return what was said of these images of a study."""
    mine = reading.c.sop_instance_uid.in_(sop_instance_uids)
    return _rows(connection, reading, (reading.c.study_instance_uid == uid) & mine)


def whole(connection: Connection, uid: str) -> dict[str, list[dict[str, Any]]]:
    """Return what is kept of a study as a whole, by table."""
    found = {
        table.name: _rows(connection, table, table.c.study_instance_uid == uid)
        for table in (
            *(study, worklist, analysis, verdict, commitment),
            *(workitem, performance, legal_hold),
        )
    }
    for row in (*found["workitem"], *found["performance"]):
        del row["transaction_uid"]  # a lock: it is told to nobody
    return found


def holds(connection: Connection, subject: Subject) -> list[dict[str, Any]]:
    """Return the legal holds on a patient."""
    return _rows(connection, legal_hold, subject.named_in(legal_hold))


def _rows(
    connection: Connection, table: Table, condition: ColumnElement[bool]
) -> list[dict[str, Any]]:
    statement = select(table).where(condition).order_by(*table.primary_key)
    return [dict(row) for row in connection.execute(statement).mappings()]


def events(
    connection: Connection, subject: Subject, alone: Sequence[str], after: int
) -> list[dict[str, Any]]:
    """Return rows of the audit behind an id about a patient, at most ``BATCH``, by id.

    Parameters
    ----------
    alone
        Studies that are of this patient alone: rows about them that name no patient count, too.
    """
    nobody = func.coalesce(audit_event.c.patient_id, "") == ""
    of_study = audit_event.c.study_instance_uid.in_(alone) & nobody
    return [
        _without_others(dict(row), subject)
        for row in connection.execute(
            select(audit_event)
            .where(audit_event.c.id > after, or_(subject.named_in(audit_event), of_study))
            .order_by(audit_event.c.id)
            .limit(BATCH)
        ).mappings()
    ]


def _without_others(row: dict[str, Any], subject: Subject) -> dict[str, Any]:
    """Return an event of a study with several patients without the IDs of the other ones."""
    if "patients" in row["detail"]:
        mine = [subject.patient_id, subject.issuer_of_patient_id]
        patients = [one if one == mine else "another patient" for one in row["detail"]["patients"]]
        row["detail"] = {**row["detail"], "patients": patients}
    return row


def all_events(connect: Any, subject: Subject, alone: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield all of them, each piece read in a transaction of its own.

    ``connect`` opens a connection.
    """
    after = 0
    while True:
        with connect() as connection:
            found = events(connection, subject, alone, after)
        yield from found
        if len(found) < BATCH:
            return
        after = found[-1]["id"]
