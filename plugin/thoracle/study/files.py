"""What has become of the files of a study: kept, going (to be unlinked), or gone."""

from sqlalchemy import Connection, and_, func, select

from thoracle.records import Kind
from thoracle.store.tables import instance, result

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
