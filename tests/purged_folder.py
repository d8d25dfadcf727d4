"""A data folder that is purged: how, and what has to hold of it afterwards."""

import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

from thoracle.audit import verification
from thoracle.report import context
from thoracle.retention.purge import Done, Purge
from thoracle.settings import Retention, Settings
from thoracle.store import anchors, database


def purged(folder: Path, moment: datetime | None = None, **rules: int) -> Done:
    given = Settings(data_folder=folder, retention=Retention(**rules))
    engine = database.open_database(database.sqlite_url(folder))
    done = Purge(engine, given, moment=moment).run()
    engine.dispose()
    return done


def file_states(folder: Path, study: str) -> set[str]:
    statement = (
        "SELECT file_state FROM instance WHERE study_instance_uid = :uid "
        "UNION SELECT file_state FROM result WHERE study_instance_uid = :uid"
    )
    with closing(sqlite3.connect(folder / "thoracle.sqlite")) as store:
        return {row[0] for row in store.execute(statement, {"uid": study})}


def consistent(folder: Path) -> None:
    """Assert that each row that says so has its file, that others have none, and the chain.

    Of each image that has none there is the header, while a result stands.
    """
    with closing(sqlite3.connect(folder / "thoracle.sqlite")) as store:
        images = store.execute(
            "SELECT sop_instance_uid FROM instance WHERE file_state <> 'kept' AND "
            "study_instance_uid NOT IN "
            "(SELECT study_instance_uid FROM analysis WHERE state = 'withdrawn')"
        )
        kept = dict(store.execute("SELECT sop_instance_uid, content FROM header"))
        for (uid,) in images:
            assert context.read(kept[uid]).SOPInstanceUID == uid
        for table in ("instance", "result"):
            for path, state in store.execute(f"SELECT path, file_state FROM {table}"):
                if state != "going":
                    assert (folder / path).exists() is (state == "kept")
        assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    engine = database.open_database(database.sqlite_url(folder))
    with engine.connect() as connection:
        assert verification.verify(
            connection, anchors.read_anchors(folder / anchors.ANCHORS_FILE)
        ).well
    engine.dispose()
