"""Statements of the erasure of a patient: what there is, what keeps it, and what is deleted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, or_, select, update

from thoracle.records import Kind
from thoracle.retention import holds, study_rows
from thoracle.retention import rows as stored
from thoracle.retention.subject import Subject
from thoracle.store.tables import (
    analysis,
    audit_event,
    instance,
    legal_hold,
    now,
    outbox,
    result,
    study,
    workitem,
    worklist,
)
from thoracle.study.instances import GOING, KEPT
from thoracle.study.published import is_of_analysis


@dataclass(frozen=True)
class Identifiers:
    """What is known under which names: it is looked for where no column says whom it is about."""

    subject: Subject
    studies: tuple[str, ...]
    names: frozenset[str] = frozenset()
    """Patient's Names, as they came."""
    searches: frozenset[str] = frozenset()
    """What the worklist finds the studies by: name, ID and accession number, folded."""
    accessions: frozenset[str] = frozenset()
    instances: frozenset[str] = frozenset()
    """SOP Instance UIDs of images, results and workitems."""


def identifiers(connection: Connection, subject: Subject, studies: Sequence[str]) -> Identifiers:
    """Return all under which a patient's studies are known."""

    def values(column: ColumnElement[Any], of: ColumnElement[Any]) -> frozenset[str]:
        statement = select(column).where(of.in_(studies)).distinct()
        return frozenset(str(one) for one in connection.execute(statement).scalars() if one)

    return Identifiers(
        subject,
        tuple(studies),
        values(worklist.c.patient_name, worklist.c.study_instance_uid),
        values(worklist.c.search, worklist.c.study_instance_uid),
        values(study.c.accession_number, study.c.study_instance_uid)
        | values(worklist.c.accession_number, worklist.c.study_instance_uid)
        | _in_audit(connection, subject),
        frozenset(study_rows.uids(connection, studies, instance, result, workitem)),
    )


def _in_audit(connection: Connection, subject: Subject) -> frozenset[str]:
    """Return the accession numbers in the patient's rows of the audit.

    A rule of retention may have removed the studies.
    """
    column = audit_event.c.accession_number
    statement = select(column).where(subject.named_in(audit_event), column.is_not(None)).distinct()
    return frozenset(str(one) for one in connection.execute(statement).scalars() if one)


def kept_by(connection: Connection, subject: Subject, studies: Sequence[str]) -> list[str]:
    """Return the legal holds that forbid an erasure, in words."""
    numbers = {number for uid in studies for number in holds.of_study(connection, uid)}
    mine = (legal_hold.c.patient_id == subject.patient_id) & or_(
        legal_hold.c.issuer_of_patient_id.is_(None),
        legal_hold.c.issuer_of_patient_id == subject.issuer_of_patient_id,
    )
    statement = select(legal_hold.c.id).where(mine, legal_hold.c.released_at.is_(None))
    numbers |= set(connection.execute(statement).scalars())
    return [f"legal hold {number}" for number in sorted(numbers)]


def under_way(connection: Connection, studies: Sequence[str], *, sending: bool) -> list[str]:
    """Return what is not done yet, in words; with ``sending``, what waits to be sent, too."""
    found = []
    for uid in studies:
        facts = stored.facts(connection, uid)
        if facts.unplanned:
            found.append(f"{uid}: {facts.unplanned} of its images are in no generation yet")
        if any(state == "planned" for state, _, _ in facts.analyses):
            found.append(f"{uid}: its analysis has not ended")
        if facts.performed:
            found.append(f"{uid}: a workitem of a workflow manager has not ended")
        if sending:
            found += [
                f"{uid}: {number} {'deliveries' if kind == 'dicom' else kind + ' messages'} {state}"
                for kind, state, number, _ in facts.sent
                if state in ("waiting", "sent")
            ]
    return found


def told(connection: Connection, studies: Sequence[str]) -> list[str]:
    """Return studies with a result that stands and that somebody has, or may get."""
    statement = (
        select(result.c.study_instance_uid)
        .join(outbox, outbox.c.sop_instance_uid == result.c.sop_instance_uid)
        .join(analysis, is_of_analysis(result))
        .where(
            result.c.study_instance_uid.in_(studies),
            result.c.kind != Kind.ORIGINAL,
            analysis.c.state == "done",
            outbox.c.state.in_(("sent", "delivered")),
        )
        .distinct()
        .order_by(result.c.study_instance_uid)
    )
    return list(connection.execute(statement).scalars())


# ---- what is done ----------------------------------------------------------------------------


def let_go(connection: Connection, studies: Sequence[str]) -> list[str]:
    """Set all files of studies to ``going`` and take back what waits; return the files' paths."""
    waiting = outbox.c.state.in_(("waiting", "held", "sent")) & study_rows.sent(studies)
    connection.execute(
        update(outbox).where(waiting).values(state="withdrawn", next_attempt_at=None)
    )
    paths: set[str] = set()
    for table in (instance, result):
        mine = table.c.study_instance_uid.in_(studies)
        paths |= _going(connection, table, mine)
    paths |= _going(connection, outbox, study_rows.sent(studies) & outbox.c.path.is_not(None))
    return sorted(paths | set(stored.other_forms(connection, paths)))


def _going(connection: Connection, table: Table, mine: ColumnElement[bool]) -> set[str]:
    statement = update(table).where(mine).values(file_state=GOING, purged_at=now())
    return {one for one in connection.execute(statement.returning(table.c.path)).scalars() if one}


def arrived(connection: Connection, studies: Sequence[str]) -> list[str]:
    """Return the studies with files that came after :func:`let_go`, in words."""
    found = []
    for uid in studies:
        number = sum(
            study_rows.count(connection, table, mine & (table.c.file_state == KEPT))
            for table, mine in (
                (instance, instance.c.study_instance_uid == uid),
                (result, result.c.study_instance_uid == uid),
                (outbox, study_rows.sent([uid]) & outbox.c.path.is_not(None)),
            )
        )
        if number:
            found.append(f"{uid}: {number} objects came meanwhile, required: none: run it again")
    return found


def delete_rows(connection: Connection, known: Identifiers, pseudonym: str) -> None:
    """Delete the rows of studies, and what names the patient in holds that were released."""
    study_rows.delete_studies(connection, known.studies)
    held = or_(
        known.subject.named_in(legal_hold),
        legal_hold.c.study_instance_uid.in_(known.studies),
        (legal_hold.c.patient_id == known.subject.patient_id)
        & legal_hold.c.issuer_of_patient_id.is_(None),
    )
    connection.execute(
        update(legal_hold)
        .where(held)
        .values(patient_id=pseudonym, issuer_of_patient_id=None, reason="erased")
    )


# ---- the audit -------------------------------------------------------------------------------


def about(connection: Connection, known: Identifiers) -> Iterable[int]:
    """Return rows of the audit that name a patient, one of the studies or an accession number."""
    columns = audit_event.c
    typed = [known.subject.patient_id, *known.accessions]
    conditions: list[ColumnElement[bool]] = [
        columns.patient_id == known.subject.patient_id,
        columns.study_instance_uid.in_([*known.studies, *typed]),
        columns.accession_number.in_(list(known.accessions)),
    ]
    for condition in conditions:
        yield from connection.execute(select(columns.id).where(condition)).scalars()


def events(connection: Connection, row_ids: Sequence[int]) -> Sequence[Any]:
    """Return what may name a patient in rows of the audit."""
    columns = audit_event.c
    return connection.execute(
        select(
            columns.id,
            columns.patient_id,
            columns.issuer_of_patient_id,
            columns.study_instance_uid,
            columns.accession_number,
            columns.detail,
        ).where(columns.id.in_(row_ids))
    ).all()


def requested_by(connection: Connection, subject: Subject, since: str) -> set[str]:
    """Return who has requested the erasure of a patient since a time."""
    statement = select(audit_event.c.user_id).where(
        subject.named_in(audit_event),
        audit_event.c.event == "erasure requested",
        audit_event.c.recorded_at >= since,
    )
    return {str(one) for one in connection.execute(statement).scalars()}
