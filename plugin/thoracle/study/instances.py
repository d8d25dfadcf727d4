"""Statements about what was received, and when a study is complete.

Every writing function starts with a write to the study's row: that is the lock, on SQLite (which
takes the database's) and on PostgreSQL (which takes the row's) alike.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from thoracle.records import Kind
from thoracle.store.tables import analysis, instance, now, result, study, worklist

# ---- files ---------------------------------------------------------------------------------------
# What has become of the files of a study: kept, going (to be unlinked), or gone.

KEPT, GOING, GONE = "kept", "going", "gone"
"""Values of ``file_state``."""


def missing_files(connection: Connection, study_instance_uid: str) -> int:
    """Return of how many images of a study no version is kept."""
    newest = (
        select(instance.c.sop_instance_uid, func.max(instance.c.version).label("version"))
        .where(instance.c.study_instance_uid == study_instance_uid)
        .group_by(instance.c.sop_instance_uid)
        .subquery()
    )
    statement = (
        select(func.count())
        .select_from(instance)
        .join(
            newest,
            and_(
                newest.c.sop_instance_uid == instance.c.sop_instance_uid,
                newest.c.version == instance.c.version,
            ),
        )
        .where(
            instance.c.file_state != KEPT,
            # Objects of ours that came back are no images to read.
            instance.c.sop_instance_uid.not_in(
                select(result.c.sop_instance_uid).where(result.c.kind != Kind.ORIGINAL)
            ),
        )
    )
    return int(connection.execute(statement).scalar_one())


# ---- instances -----------------------------------------------------------------------------------

_NOT_OURS = instance.c.sop_instance_uid.not_in(
    select(result.c.sop_instance_uid).where(result.c.kind != Kind.ORIGINAL)
)


@dataclass(frozen=True, slots=True)
class Description:
    """What the header says for people; as it was sent, and empty where it says nothing."""

    patient_name: str = ""
    modality: str = ""
    study_description: str = ""
    study_date: str = ""
    """DA (PS3.5 Table 6.2-1), if the sender kept to it."""
    study_time: str = ""
    """TM, alike."""
    device: str = ""


@dataclass(frozen=True, slots=True)
class Received:
    """An object that lies complete and fsynced below the data folder."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    patient_id: str
    issuer_of_patient_id: str
    accession_number: str
    priority: int
    """Queue priority of its study: 1 STAT, 100 routine (low is first)."""
    path: str
    """Below the data folder."""
    size: int
    """Bytes of the data set."""
    sha256: str
    """Hexadecimal, of the data set without File Meta Information."""
    calling_ae_title: str
    peer_address: str
    description: Description = Description()


@dataclass(frozen=True, slots=True)
class Plan:
    """One generation of a study, to be analysed once by one bundle."""

    generation: int
    priority: int
    images: int


def lock_study(connection: Connection, received: Received) -> None:
    """Create or touch the study's row, and hold it until the transaction ends."""
    moment = now()
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(study).values(
        study_instance_uid=received.study_instance_uid,
        patient_id=received.patient_id,
        issuer_of_patient_id=received.issuer_of_patient_id,
        accession_number=received.accession_number,
        generation=0,
        first_received_at=moment,
        changed_at=moment,
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[study.c.study_instance_uid],
            set_={
                "changed_at": moment,
                "patient_id": received.patient_id,
                "issuer_of_patient_id": received.issuer_of_patient_id,
                "accession_number": received.accession_number,
            },
        )
    )


def latest(connection: Connection, sop_instance_uid: str) -> Row[Any] | None:
    """Return the newest row of an instance, if there is one."""
    return connection.execute(
        select(instance)
        .where(instance.c.sop_instance_uid == sop_instance_uid)
        .order_by(instance.c.version.desc())
        .limit(1)
    ).first()


def add(
    connection: Connection, received: Received, *, version: int = 1, generation: int | None = None
) -> None:
    """Record an instance; ``generation`` is given when a correction is already covered by one."""
    values: dict[str, object] = asdict(received)
    del values["accession_number"], values["description"]  # kept with the study
    values |= {"version": version, "generation": generation, "received_at": now()}
    connection.execute(insert(instance).values(values))


def keep_again(connection: Connection, row_id: int, received: Received) -> None:
    """Record the new file of an instance that had gone, as received and to be passed on."""
    values = {"path": received.path, "file_state": "kept", "purged_at": None}
    statement = update(instance).where(instance.c.id == row_id)
    connection.execute(statement.values(**values, received_at=now()))
    same = result.c.sop_instance_uid == received.sop_instance_uid
    original = same & (result.c.kind == Kind.ORIGINAL)
    connection.execute(update(result).where(original).values(**values))


def plan(
    connection: Connection,
    study_instance_uid: str,
    bundle_digest: str,
    finding: str,
    content_datetime: str,
    *,
    again: bool = False,
) -> Plan | None:
    """Return the new generation of a study, or ``None`` when nothing new has arrived.

    The images present now become a generation, numbered from 1, unless the latest one already
    has exactly them. With ``again`` they become one all the same. Objects that we made, and an
    archive routed back to us, do not count: each would make the next one, without end.
    """
    connection.execute(
        update(study)
        .where(study.c.study_instance_uid == study_instance_uid)
        .values(changed_at=now())
    )
    row = connection.execute(
        select(study).where(study.c.study_instance_uid == study_instance_uid)
    ).one()
    present = connection.execute(
        select(instance.c.sop_instance_uid, func.min(instance.c.priority))
        .where(instance.c.study_instance_uid == study_instance_uid, _NOT_OURS)
        .group_by(instance.c.sop_instance_uid)
        .order_by(instance.c.sop_instance_uid)
    ).all()
    digest = hashlib.sha256("\n".join(uid for uid, _ in present).encode()).hexdigest()
    changed = bool(present) and (again or digest != row.instances_digest)
    generation = row.generation + changed
    connection.execute(
        update(instance)
        .where(
            instance.c.study_instance_uid == study_instance_uid,
            instance.c.generation.is_(None),
        )
        .values(generation=generation)
    )
    if not changed:
        return None
    connection.execute(
        update(study)
        .where(study.c.study_instance_uid == study_instance_uid)
        .values(generation=generation, instances_digest=digest)
    )
    priority = min(priority for _, priority in present)
    connection.execute(
        insert(analysis).values(
            study_instance_uid=study_instance_uid,
            generation=generation,
            bundle_digest=bundle_digest,
            finding=finding,
            state="planned",
            priority=priority,
            content_datetime=content_datetime,
        )
    )
    return Plan(generation, priority, len(present))


def sources(connection: Connection, study_instance_uid: str, generation: int) -> Sequence[Row[Any]]:
    """Return the rows of a generation's images, by SOP Instance UID.

    Of several versions of one image the newest is given: its header is the corrected one.
    """
    newest = (
        select(instance.c.sop_instance_uid, func.max(instance.c.version).label("version"))
        .where(
            instance.c.study_instance_uid == study_instance_uid,
            instance.c.generation <= generation,
            _NOT_OURS,
        )
        .group_by(instance.c.sop_instance_uid)
        .subquery()
    )
    return connection.execute(
        select(instance)
        .join(
            newest,
            (newest.c.sop_instance_uid == instance.c.sop_instance_uid)
            & (newest.c.version == instance.c.version),
        )
        .order_by(instance.c.sop_instance_uid)
    ).all()


def recorded(
    connection: Connection, study_instance_uid: str, generation: int
) -> dict[str, dict[str, str]]:
    """Return by path what was kept of each image's header when it came, by keyword."""
    row = study_row(connection, study_instance_uid)
    name = connection.execute(
        select(worklist.c.patient_name).where(worklist.c.study_instance_uid == study_instance_uid)
    ).scalar()
    return {
        image.path: {
            "SOPClassUID": image.sop_class_uid,
            "SOPInstanceUID": image.sop_instance_uid,
            "StudyInstanceUID": study_instance_uid,
            "SeriesInstanceUID": image.series_instance_uid,
            "PatientName": name or "",
            "PatientID": image.patient_id or "",
            "IssuerOfPatientID": image.issuer_of_patient_id or "",
            "AccessionNumber": row.accession_number or "",
        }
        for image in sources(connection, study_instance_uid, generation)
    }


def sender(connection: Connection, study_instance_uid: str) -> str:
    """Return the AE title from which the newest image of a study came."""
    return str(
        connection.execute(
            select(instance.c.calling_ae_title)
            .where(instance.c.study_instance_uid == study_instance_uid, _NOT_OURS)
            .order_by(instance.c.id.desc())
            .limit(1)
        ).scalar()
        or ""
    )


def unplanned_studies(connection: Connection, before: str) -> list[str]:
    """Return the studies with images that no generation covers, untouched since ``before``."""
    return list(
        connection.execute(
            select(instance.c.study_instance_uid)
            .join(study)
            .where(instance.c.generation.is_(None), study.c.changed_at < before)
            .distinct()
        ).scalars()
    )


def study_row(connection: Connection, study_instance_uid: str) -> Row[Any]:
    """Return the row of a study that exists."""
    return connection.execute(
        select(study).where(study.c.study_instance_uid == study_instance_uid)
    ).one()


def known_paths(connection: Connection) -> set[str]:
    """Return the paths of all stored instances, below the data folder."""
    return set(connection.execute(select(instance.c.path)).scalars())
