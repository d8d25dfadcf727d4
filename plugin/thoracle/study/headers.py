"""Statements about headers: what corrections need of images, kept when their files go."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, insert, or_, select

from thoracle.store.tables import analysis, header, instance, now, study
from thoracle.study import instances, results
from thoracle.study.instances import KEPT


def _sources(connection: Connection, study_instance_uid: str) -> Sequence[Row[Any]]:
    """Return the images of the result that stands; none when none stands."""
    report = results.standing(connection, study_instance_uid)
    if report is None:
        return ()
    return instances.sources(connection, study_instance_uid, report.generation)


def wanted(connection: Connection, study_instance_uid: str) -> list[Row[Any]]:
    """Return the images of a study, with files, of which a correction would need the header."""
    return [row for row in _sources(connection, study_instance_uid) if row.file_state == KEPT]


def keep(connection: Connection, row: Row[Any], content: bytes) -> None:
    """Keep the header of an image, in place of that of an earlier version."""
    connection.execute(delete(header).where(header.c.sop_instance_uid == row.sop_instance_uid))
    connection.execute(
        insert(header).values(
            sop_instance_uid=row.sop_instance_uid,
            version=row.version,
            study_instance_uid=row.study_instance_uid,
            content=content,
            kept_at=now(),
        )
    )


def content(connection: Connection, study_instance_uid: str, path: str) -> bytes | None:
    """Return the header of the image of a study that had this file, if it is kept."""
    return connection.execute(
        select(header.c.content)
        .join(
            instance,
            (instance.c.sop_instance_uid == header.c.sop_instance_uid)
            & (instance.c.version == header.c.version),
        )
        .where(header.c.study_instance_uid == study_instance_uid, instance.c.path == path)
    ).scalar()


def missing(connection: Connection, study_instance_uid: str) -> int:
    """Return of how many images of the result that stands neither file nor header is kept."""
    rows = _sources(connection, study_instance_uid)
    if all(row.file_state == KEPT for row in rows):
        return 0
    of_study = header.c.study_instance_uid == study_instance_uid
    statement = select(header.c.sop_instance_uid, header.c.version).where(of_study)
    known = {tuple(row) for row in connection.execute(statement)}
    return sum(
        row.file_state != KEPT and (row.sop_instance_uid, row.version) not in known for row in rows
    )


def studies(
    connection: Connection, before: str, withdrawn_before: str, after: str, limit: int
) -> list[str]:
    """Return studies behind ``after`` with headers, untouched since ``before``.

    Those of which a result was withdrawn may be later, if before ``withdrawn_before``.
    """
    withdrawn = select(analysis.c.study_instance_uid).where(analysis.c.state == "withdrawn")
    of_withdrawn = study.c.study_instance_uid.in_(withdrawn)
    statement = (
        select(study.c.study_instance_uid)
        .where(
            study.c.study_instance_uid > after,
            study.c.study_instance_uid.in_(select(header.c.study_instance_uid)),
            or_(
                study.c.changed_at < before,
                and_(study.c.changed_at < withdrawn_before, of_withdrawn),
            ),
        )
        .order_by(study.c.study_instance_uid)
        .limit(limit)
    )
    return list(connection.execute(statement).scalars())


def count(connection: Connection, study_instance_uid: str) -> int:
    """Return how many headers of a study are kept."""
    statement = select(func.count()).select_from(header)
    here = header.c.study_instance_uid == study_instance_uid
    return int(connection.execute(statement.where(here)).scalar_one())


def delete_headers(connection: Connection, study_instance_uid: str) -> None:
    """Delete the headers of a study."""
    connection.execute(delete(header).where(header.c.study_instance_uid == study_instance_uid))
