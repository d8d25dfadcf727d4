"""The statements of retention, holds and exports mean the same on PostgreSQL."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet
import pytest
from sqlalchemy import Engine, delete, insert, select, update
from sqlalchemy.exc import DBAPIError

from postgres import postgres
from radiographs import chest, saved
from test_store import made, plan, received, store
from thoracle.audit import contents, verification
from thoracle.cli import audit_export
from thoracle.outbox import rows as outbox
from thoracle.report import context
from thoracle.retention import holds, research, study_rows, subject
from thoracle.retention import holds as stored_holds
from thoracle.retention.purge import Done, Purge
from thoracle.retention.rows import PurgeKind
from thoracle.retention.subject import Subject
from thoracle.settings import Retention, Settings
from thoracle.store import database, trail
from thoracle.store.object_files import Objects
from thoracle.store.tables import analysis, audit_event, instance, now, result, verdict
from thoracle.study import headers, results
from thoracle.study.results import AnalysisKey

LATER = datetime.now(UTC) + timedelta(days=3000)
KEY = AnalysisKey("1.2.840", 1, "d")


def test_retention_holds_and_exports_on_postgresql(tmp_path: Path) -> None:
    with postgres() as url:
        engine = database.open_database(url)
        store(engine, received(1))
        plan(engine)
        one = made(1)
        with engine.begin() as connection:
            results.add_result(connection, KEY, one)
            outbox.add_object(connection, one.sop_instance_uid, ["pacs"], "sent")
            row = outbox.row_of(connection, "dicom", "pacs", one.sop_instance_uid)
            connection.execute(update(analysis).values(state="done", finished_at=now()))
        (tmp_path / "images").mkdir()
        image = saved(chest(), tmp_path / "images/1")
        said = context.extract(image)
        (tmp_path / one.path).parent.mkdir(exist_ok=True)
        (tmp_path / one.path).write_bytes(os.urandom(8))
        settings = Settings(data_folder=tmp_path, retention=Retention())
        purge = Purge(engine, settings, moment=LATER)
        assert purge.run().studies == {}  # sent, and not proven

        who: trail.Columns = {"user_id": "me", "detail": {"means": "test"}}
        with engine.begin() as connection:
            outbox.set_rows(connection, [row.id], state="delivered")
            number = holds.place(connection, "case", who, patient_id="P1")
            assert stored_holds.of_study(connection, "1.2.840") == [number]
        assert Purge(engine, settings, moment=LATER).run().studies == {}
        with engine.begin() as connection:
            holds.release(connection, number, who)

        rows = list(audit_export.export(engine, tmp_path / "audit", True, None, None))
        assert sum(count for _, count in rows) == 2
        table = pyarrow.parquet.ParquetFile(rows[0][0]).read().to_pylist()
        assert [row["event"] for row in table] == ["legal hold placed", "legal hold released"]
        with engine.connect() as connection:
            assert subject.issuers(connection, "P1") == {""}
            assert subject.studies(connection, Subject("P1", "")) == [("1.2.840", True)]
            assert len(subject.sent(connection, "1.2.840")) == 1
            assert len(subject.events(connection, Subject("P1", ""), ["1.2.840"], 0)) == 2
            assert research.readings(connection, "2026", None, research.FIRST, 10) == []

        done = Purge(engine, settings, moment=LATER).run()
        assert sorted(done.studies.values()) == [1, 1]
        assert (done.files, done.events) == (2, 4)
        assert not any(path.is_file() for path in (tmp_path / "images").iterdir())
        with engine.connect() as connection:
            states = [
                *connection.execute(select(instance.c.file_state)).scalars(),
                *connection.execute(select(result.c.file_state)).scalars(),
            ]
            assert states == ["gone", "gone"]
            assert headers.missing(connection, "1.2.840") == 0
            assert headers.content(connection, "1.2.840", "images/1") == said
            (kept,) = subject.headers(connection, Subject("P1", ""), "1.2.840")
            assert kept["content"] == said
            assert verification.verify(connection).well
            events = connection.execute(select(audit_event.c.event)).scalars().all()
        assert events == ["audit purged"]
        days = Retention(headers_days_after_proof=1)
        shorter = Settings(data_folder=tmp_path, retention=days)
        assert Purge(engine, shorter, moment=LATER).run().studies == {PurgeKind.HEADERS: 1}
        with engine.connect() as connection:
            assert headers.missing(connection, "1.2.840") == 1
        for opinion in ("agree", "disagree"):
            judge(engine, opinion)
            gone = removed(engine, tmp_path, verdicts_days=100)
            assert (gone.studies, gone.rows) == ({PurgeKind.VERDICTS: 1}, 1)
        judge(engine, "agree")
        with pytest.raises(DBAPIError, match="only ever added"), engine.begin() as connection:
            connection.execute(delete(verdict))
        gone = removed(engine, tmp_path, studies_days=365)
        assert (gone.studies, gone.rows) == ({PurgeKind.STUDIES: 1}, 6)
        with engine.connect() as connection:
            assert study_rows.counts(connection, ["1.2.840"]) == {}
            assert verification.verify(connection).well
        assert contents.check(engine, Objects(tmp_path)).faults == ()
        engine.dispose()


def judge(engine: Engine, opinion: str) -> None:
    values = {"study_instance_uid": "1.2.840", "generation": 1, "bundle_digest": "d"}
    row = {**values, "opinion": opinion, "comment": "", "person": "me", "recorded_at": now()}
    with engine.begin() as connection:
        connection.execute(insert(verdict).values(row))


def removed(engine: Engine, folder: Path, **rules: int) -> Done:
    settings = Settings(data_folder=folder, retention=Retention(audit_days=0, **rules))
    return Purge(engine, settings, moment=LATER).run()
