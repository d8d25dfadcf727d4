"""Statements about what was received, and when a study is complete.

Every writing function starts with a write to the study's row: that is the lock, on SQLite (which
takes the database's) and on PostgreSQL (which takes the row's) alike.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Insert, Row, and_, bindparam, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from thoracle.records import Kind
from thoracle.store import workflows
from thoracle.store.object_files import Digest
from thoracle.store.tables import analysis, instance, now, result, study, worklist
from thoracle.study.reconciliation import NOT_OURS, Patient, grouped

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
    patient_birth_date: str = ""
    """DA, alike."""
    patient_sex: str = ""
    patient_age: str = ""
    """AS (PS3.5 Table 6.2-1), alike."""


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
    connection.execute(
        _lock(connection.dialect.name),
        {
            "study_instance_uid": received.study_instance_uid,
            "patient_id": received.patient_id,
            "issuer_of_patient_id": received.issuer_of_patient_id,
            "accession_number": received.accession_number,
            "generation": 0,
            "first_received_at": moment,
            "changed_at": moment,
        },
    )


@cache
def _lock(dialect_name: str) -> Insert:
    dialect = postgresql if dialect_name == "postgresql" else sqlite
    statement: postgresql.Insert | sqlite.Insert = dialect.insert(study)
    taken_over = ("changed_at", "accession_number")
    return statement.on_conflict_do_update(
        index_elements=[study.c.study_instance_uid],
        set_={name: statement.excluded[name] for name in taken_over},
    )


def take_over_patient(connection: Connection, received: Received) -> bool:
    """Return whether an image is of the patient of its study, and take over what it says of it.

    Another patient's image does not change whose study it is: that is for a person to settle.
    """
    row = study_row(connection, received.study_instance_uid)
    patient = Patient.of(received)
    if not patient.is_same(Patient.of(row)):
        return False
    if patient.issuer or not row.issuer_of_patient_id:
        set_patient(connection, received.study_instance_uid, patient)
    return True


def set_patient(connection: Connection, study_instance_uid: str, patient: Patient) -> None:
    """Set whose study it is."""
    connection.execute(
        update(study)
        .where(study.c.study_instance_uid == study_instance_uid)
        .values(patient_id=patient.patient_id, issuer_of_patient_id=patient.issuer)
    )


def latest(connection: Connection, sop_instance_uid: str) -> Row[Any] | None:
    """Return the newest row of an instance, if there is one."""
    return connection.execute(_LATEST, {"uid": sop_instance_uid}).first()


_LATEST = (
    select(instance)
    .where(instance.c.sop_instance_uid == bindparam("uid"))
    .order_by(instance.c.version.desc())
    .limit(1)
)
"""Built once, as are others that each image needs: to build one costs as much as to run it."""


def latest_version(connection: Connection, sop_instance_uid: str) -> int:
    """Return the number of the newest version of an image, 0 when there is none."""
    mine = instance.c.sop_instance_uid == sop_instance_uid
    return int(connection.execute(select(func.max(instance.c.version)).where(mine)).scalar() or 0)


def add(
    connection: Connection,
    received: Received,
    *,
    version: int = 1,
    generation: int | None = None,
    frames_sha256: str | None = None,
    identity: str | None = None,
) -> None:
    """Record an instance; ``generation`` is given when a correction is already covered by one."""
    values: dict[str, object] = asdict(received)
    del values["accession_number"], values["description"]  # kept with the study
    values |= {"version": version, "generation": generation, "received_at": now()}
    values |= {"frames_sha256": frames_sha256, "identity": identity}
    connection.execute(_ADD, values)


_ADD = insert(instance)


def add_corrected(
    connection: Connection, path: str, made: dict[str, Any], patient: Patient
) -> None:
    """Record a new version of the image at ``path``: ``made`` is its path, size and sha256."""
    row = connection.execute(select(instance).where(instance.c.path == path)).one()
    values = {**row._mapping, **made}
    del values["id"]
    values |= {
        "version": latest_version(connection, row.sop_instance_uid) + 1,
        "patient_id": patient.patient_id,
        "issuer_of_patient_id": patient.issuer,
        "received_at": now(),
    }
    connection.execute(insert(instance).values(values))


def digest(connection: Connection, study_instance_uid: str, path: str) -> Digest | None:
    """Return the digest of an image of a study, by its path."""
    statement = select(instance.c.sha256, instance.c.size).where(
        instance.c.study_instance_uid == study_instance_uid, instance.c.path == path
    )
    row = connection.execute(statement).first()
    return None if row is None else Digest(row.sha256, row.size)


def replace_file(connection: Connection, row_id: int, received: Received) -> None:
    """Record the new file of an instance that had gone, as received and to be passed on."""
    values = {"path": received.path, "file_state": "kept", "purged_at": None}
    statement = update(instance).where(instance.c.id == row_id)
    connection.execute(statement.values(**values, received_at=now()))
    same = result.c.sop_instance_uid == received.sop_instance_uid
    original = same & (result.c.kind == Kind.ORIGINAL)
    connection.execute(update(result).where(original).values(**values))


def set_frames(
    connection: Connection, study_instance_uid: str, sop_instance_uid: str, frames_sha256: str
) -> None:
    """Record the digest of an image's decoded frames, which all its versions have alike."""
    connection.execute(
        update(instance)
        .where(
            instance.c.study_instance_uid == study_instance_uid,
            instance.c.sop_instance_uid == sop_instance_uid,
            instance.c.frames_sha256.is_(None),
            instance.c.identity.is_(None),
        )
        .values(frames_sha256=frames_sha256)
    )


def plan(
    connection: Connection,
    study_instance_uid: str,
    bundle_digest: str,
    finding: str,
    content_datetime: str,
    *,
    again: bool = False,
) -> list[Plan]:
    """Return the new generations of a study, one for each patient whose images are to be read.

    The images present now become a generation, numbered from 1, unless the latest one already
    has exactly them, in versions that are read alike: then there is none. With ``again`` they
    become one all the same. Objects that we made, and an archive routed back to us, do not count:
    each would make the next one, without end. Of several patients those get a generation of whom
    something new has come.
    """
    connection.execute(
        update(study)  # holds the row, and is no change of the study
        .where(study.c.study_instance_uid == study_instance_uid)
        .values(generation=study.c.generation)
    )
    row = study_row(connection, study_instance_uid)
    versions = connection.execute(
        select(instance)
        .where(
            instance.c.study_instance_uid == study_instance_uid,
            instance.c.identity.is_(None),
            NOT_OURS,
        )
        .order_by(instance.c.sop_instance_uid, instance.c.version)
    ).all()
    newest = {one.sop_instance_uid: one for one in versions}
    priorities: dict[str, int] = {}
    for one in versions:
        uid = one.sop_instance_uid
        priorities[uid] = min(one.priority, priorities.get(uid, one.priority))
    digest = hashlib.sha256("\n".join(newest).encode()).hexdigest()
    new = {one.sop_instance_uid for one in versions if one.generation is None}
    plans: list[Plan] = []
    if newest and (again or new or digest != row.instances_digest):
        for patient, members in grouped(newest.values()):
            uids = [one.sop_instance_uid for one in members]
            if again or not new or new.intersection(uids):
                priority = min(priorities[uid] for uid in uids)
                made = Plan(row.generation + 1 + len(plans), priority, len(uids))
                plans.append(made)
                values = (study_instance_uid, bundle_digest, finding, content_datetime)
                _plan(connection, *values, made, patient)
                _cover(connection, study_instance_uid, made.generation, uids)
    _cover(connection, study_instance_uid, row.generation + len(plans))
    if plans:
        connection.execute(
            update(study)
            .where(study.c.study_instance_uid == study_instance_uid)
            .values(generation=plans[-1].generation, instances_digest=digest, changed_at=now())
        )
    return plans


def _plan(
    connection: Connection,
    study_instance_uid: str,
    bundle_digest: str,
    finding: str,
    content_datetime: str,
    made: Plan,
    patient: Patient,
) -> None:
    connection.execute(
        insert(analysis).values(
            study_instance_uid=study_instance_uid,
            generation=made.generation,
            bundle_digest=bundle_digest,
            finding=finding,
            state="planned",
            priority=made.priority,
            content_datetime=content_datetime,
            patient_id=patient.patient_id,
            issuer_of_patient_id=patient.issuer,
        )
    )


def _cover(
    connection: Connection,
    study_instance_uid: str,
    generation: int,
    sop_instance_uids: Sequence[str] | None = None,
) -> None:
    """Set the generation of versions that have none: of these images, or of all."""
    statement = update(instance).where(
        instance.c.study_instance_uid == study_instance_uid, instance.c.generation.is_(None)
    )
    if sop_instance_uids is not None:
        statement = statement.where(instance.c.sop_instance_uid.in_(sop_instance_uids))
    connection.execute(statement.values(generation=generation))


def patient_of(connection: Connection, study_instance_uid: str, generation: int) -> Patient | None:
    """Return whose images a generation has; ``None`` for one of a version that did not keep it."""
    row = connection.execute(
        select(analysis.c.patient_id, analysis.c.issuer_of_patient_id).where(
            analysis.c.study_instance_uid == study_instance_uid,
            analysis.c.generation == generation,
            analysis.c.patient_id.is_not(None),
        )
    ).first()
    return None if row is None else Patient.of(row)


def sources(connection: Connection, study_instance_uid: str, generation: int) -> Sequence[Row[Any]]:
    """Return the rows of a generation's images, by SOP Instance UID: those of its patient.

    Of several versions of one image the newest is given: its header is the corrected one.
    """
    rows = connection.execute(
        select(instance)
        .where(
            instance.c.study_instance_uid == study_instance_uid,
            instance.c.generation <= generation,
            instance.c.identity.is_(None),
            NOT_OURS,
        )
        .order_by(instance.c.sop_instance_uid, instance.c.version)
    ).all()
    newest = list({row.sop_instance_uid: row for row in rows}.values())
    patient = patient_of(connection, study_instance_uid, generation)
    if patient is None:
        return newest
    # None are left when they have been merged into another patient since.
    return [row for row in newest if Patient.of(row).is_same(patient)] or newest


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


def came_elsewhere(connection: Connection, study_instance_uid: str, mark: str, since: str) -> bool:
    """Return whether another gateway stored an image of a study since a moment.

    ``mark`` ends the names of the files of the one that asks.
    """
    found = select(instance.c.id).where(
        instance.c.study_instance_uid == study_instance_uid,
        instance.c.received_at >= since,
        instance.c.path.not_like(f"%-{mark}.dcm"),
    )
    return connection.execute(found.limit(1)).first() is not None


def sender(connection: Connection, study_instance_uid: str) -> str:
    """Return the AE title from which the newest image of a study came."""
    return str(
        connection.execute(
            select(instance.c.calling_ae_title)
            .where(instance.c.study_instance_uid == study_instance_uid, NOT_OURS)
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
    return connection.execute(_STUDY, {"uid": study_instance_uid}).one()


_STUDY = select(study).where(study.c.study_instance_uid == bindparam("uid"))


def known_paths(connection: Connection) -> set[str]:
    """Return the paths of all stored instances, and of those that workflows are about to row."""
    made = workflows.images_made(connection)  # first: what gets its row meanwhile is in the other
    return made | set(connection.execute(select(instance.c.path)).scalars())
