"""Whose images a study has: several patients in one study, or one patient under two identifiers.

A study is of one patient (PS3.3 Section A.1.2.3), and yet an archive that merges or corrects a
patient between two images sends it under both. Nobody can tell from the objects which it is. So
each patient's images are read and reported by themselves, and a person settles it: ``same``, or
``different`` (IHE RAD, Patient Information Reconciliation).
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from thoracle.records import Kind
from thoracle.store.tables import instance, now, reconciliation, result

NOT_OURS = instance.c.sop_instance_uid.not_in(
    select(result.c.sop_instance_uid).where(result.c.kind != Kind.ORIGINAL)
)
"""An object that we made, and an archive routed back to us, is no image that came."""
OPEN, SAME, DIFFERENT = "open", "same", "different"
"""States of a study that is to be reconciled."""
REFUSED = "refused"
"""State of a version that a person said to be of another patient; of one that waits: ``OPEN``."""


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient ID and who issued it; both without the padding that the standard ignores.

    Characters that are composed in one and decomposed in the other are the same (Unicode, NFC).
    """

    patient_id: str
    issuer: str

    @classmethod
    def of(cls, row: Any) -> "Patient":
        """Return the patient of a row, or of an object that was received."""
        return cls(_normal(row.patient_id), _normal(row.issuer_of_patient_id))

    def is_same(self, other: "Patient") -> bool:
        """Return whether two are one; an issuer that one of them does not say is no difference."""
        if self.patient_id != other.patient_id:
            return False
        return self.issuer == other.issuer or not (self.issuer and other.issuer)


def _normal(text: str | None) -> str:
    return unicodedata.normalize("NFC", (text or "").strip(" \0"))


def grouped(rows: Iterable[Any]) -> list[tuple[Patient, list[Any]]]:
    """Return the rows of each patient, in the order of the first of each."""
    groups: list[tuple[Patient, list[Any]]] = []
    for row in rows:
        patient = Patient.of(row)
        for position, (known, members) in enumerate(groups):
            if patient.is_same(known):
                members.append(row)
                if patient.issuer and not known.issuer:
                    groups[position] = (patient, members)
                break
        else:
            groups.append((patient, [row]))
    return groups


def row_of(connection: Connection, study_instance_uid: str) -> Row[Any] | None:
    """Return what is known of a study that was to be reconciled once, or is."""
    return connection.execute(
        select(reconciliation).where(reconciliation.c.study_instance_uid == study_instance_uid)
    ).first()


def is_merged(connection: Connection, study_instance_uid: str) -> bool:
    """Return whether a person said that the patients of a study are the same one."""
    row = row_of(connection, study_instance_uid)
    return row is not None and row.state == SAME


def open_studies(connection: Connection) -> Sequence[Row[Any]]:
    """Return the studies that wait for a person, the longest waiting first."""
    return connection.execute(
        select(reconciliation)
        .where(reconciliation.c.state == OPEN)
        .order_by(reconciliation.c.raised_at)
    ).all()


def patients(connection: Connection, study_instance_uid: str) -> list[Patient]:
    """Return the patients under whom images of a study have come, refused versions left out."""
    rows = connection.execute(
        select(instance.c.patient_id, instance.c.issuer_of_patient_id)
        .where(
            instance.c.study_instance_uid == study_instance_uid,
            instance.c.identity.is_(None) | (instance.c.identity == OPEN),
            NOT_OURS,
        )
        .order_by(instance.c.id)
    ).all()
    return [patient for patient, _ in grouped(rows)]


def named(connection: Connection, study_instance_uid: str) -> list[list[str]]:
    """Return the patients that a person was asked about: of each, ID and issuer."""
    row = row_of(connection, study_instance_uid)
    return [] if row is None else list(row.patients)


def newest(connection: Connection, study_instance_uid: str) -> Sequence[Row[Any]]:
    """Return the newest version of each image of a study, those that wait for a person too.

    They are in the order in which they came; what we made ourselves is left out.
    """
    rows = connection.execute(
        select(instance)
        .where(
            instance.c.study_instance_uid == study_instance_uid,
            instance.c.identity.is_(None) | (instance.c.identity == OPEN),
            NOT_OURS,
        )
        .order_by(instance.c.version)
    ).all()
    found = {row.sop_instance_uid: row for row in rows}
    return sorted(found.values(), key=lambda row: int(row.id))


def open_reconciliation(
    connection: Connection, study_instance_uid: str, found: Sequence[Patient]
) -> bool:
    """Have a person asked whose images a study has; return whether that is new.

    What was settled for these patients stays settled.
    """
    named = [[one.patient_id, one.issuer] for one in found]
    row = row_of(connection, study_instance_uid)
    values = {"state": OPEN, "patients": named, "raised_at": now(), "settled_at": None}
    if row is None:
        connection.execute(
            insert(reconciliation).values(study_instance_uid=study_instance_uid, **values)
        )
        return True
    if all(one in row.patients for one in named) and row.state != SAME:
        return False
    mine = reconciliation.c.study_instance_uid == study_instance_uid
    connection.execute(update(reconciliation).where(mine).values(**values, user_id=None))
    return bool(row.state != OPEN)


def settle(connection: Connection, study_instance_uid: str, state: str, user_id: str) -> None:
    """Record what a person said."""
    mine = reconciliation.c.study_instance_uid == study_instance_uid
    values = {"state": state, "settled_at": now(), "user_id": user_id}
    connection.execute(update(reconciliation).where(mine).values(**values))


def settle_versions(
    connection: Connection, study_instance_uid: str, survivor: Patient | None
) -> None:
    """Have versions that waited count when they are the survivor's, and refuse the others."""
    rows = connection.execute(
        select(instance).where(
            instance.c.study_instance_uid == study_instance_uid, instance.c.identity == OPEN
        )
    ).all()
    for row in rows:
        counts = survivor is not None and Patient.of(row).is_same(survivor)
        connection.execute(
            update(instance)
            .where(instance.c.id == row.id)
            .values(identity=None if counts else REFUSED)
        )
