"""An erasure in the chain of the audit: what it replaced fits, other changes do not."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, select, text
from sqlalchemy import update as update_rows
from sqlalchemy.exc import DBAPIError

from postgres import postgres
from stored_studies import concluded, received, said
from test_chain import Tamper, fill, verified
from thoracle.audit.verification import verify
from thoracle.errors import SettingsError
from thoracle.records import Outcome
from thoracle.retention import rows as purging
from thoracle.retention.erasure import Erasure, ErasureError
from thoracle.retention.pseudonyms import Pseudonyms, patterns, replacer
from thoracle.retention.subject import Subject
from thoracle.settings import Settings
from thoracle.store import chain, database, erased, trail
from thoracle.store.anchors import Anchor
from thoracle.store.tables import audit_event, instance, verdict
from thoracle.store.tables import study as study_table
from thoracle.study import instances
from thoracle.study.instances import Description

PATIENT, PSEUDONYM = "P-4711", "erased-" + "0" * 32
ROW, AGAIN = 44, 46
"""Of the patient; the second one of a patient who is erased later, too."""


def write(engine: Engine) -> None:
    """Write a trail with two erasures, of which one replaces again what the other one did."""
    fill(engine)
    with engine.begin() as connection:
        for number in range(8):
            detail = {"patients": [[PATIENT, ""], ["P-5", ""]], "number": number}
            values: trail.Columns = {"patient_id": PATIENT, "detail": detail, "seconds": 0.5}
            trail.record(connection, trail.Event.IMAGE_READ, values)
    for patient in (PATIENT, "P-5"):
        with engine.begin() as connection:
            new = {"patient_id": PSEUDONYM, "detail": {"patients": [[PSEUDONYM, patient]]}}
            erased.replace(connection, {ROW: new, AGAIN: new}, {"patient_id": PSEUDONYM})
    fill(engine, 5, seed=2)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("erased")
    engine = database.open_database(database.sqlite_url(folder))
    write(engine)
    engine.dispose()
    return folder / "thoracle.sqlite"


def anchors(written: Path) -> list[Anchor]:
    with sqlite3.connect(written) as connection:
        found = connection.execute("SELECT id, digest FROM audit_event").fetchall()
    return [Anchor(*row) for row in found]


def test_a_trail_with_erasures_fits_and_its_digests_are_those_of_before(
    written: Path, tmp_path: Path
) -> None:
    found = verified(written, tmp_path, lambda _: None, *anchors(written))
    assert found.well, found
    assert found.rows == 40 + 8 + 2 + 5


def update(row: int, what: str) -> Tamper:
    return lambda one: one.execute(f"UPDATE audit_event SET {what} WHERE id = {row}")


@pytest.mark.parametrize(
    ("tamper", "broken"),
    [
        (update(ROW, "patient_id = 'P-4712'"), ROW),
        (update(ROW, "detail = '{}'"), ROW),
        (update(ROW, "digest = digest || 'x'"), ROW + 1),
        (update(ROW - 1, "patient_id = 'erased-x'"), ROW - 1),
        (lambda one: one.execute("DELETE FROM audit_erased WHERE event_id = 50"), ROW),
        (lambda one: one.execute("DELETE FROM audit_erased WHERE event_id = 49"), 49),
        (lambda one: one.execute(f"INSERT INTO audit_erased VALUES ({ROW + 1}, 50, 'x')"), 50),
        (lambda one: one.execute(f"INSERT INTO audit_erased VALUES ({ROW + 1}, 51, 'x')"), 51),
    ],
    ids=["id", "detail", "digest", "other", "unrecorded", "earlier", "forged", "no event"],
)
def test_what_no_erasure_did_is_found(
    written: Path, tmp_path: Path, tamper: Tamper, broken: int
) -> None:
    assert verified(written, tmp_path, tamper).broken_id == broken


@pytest.mark.parametrize(("event", "broken"), [(50, 50), (0, 42), (1, 42), (42, 42)])
def test_a_row_that_was_changed_as_an_erasure_does_it_needs_an_event_behind_it(
    written: Path, tmp_path: Path, event: int, broken: int
) -> None:
    def forge(connection: sqlite3.Connection) -> None:
        """Change a row, and give it a record that fits it: of an erasure that was, or of none."""
        names = ", ".join(chain.COLUMNS)
        connection.execute("UPDATE audit_event SET user_id = 'another' WHERE id = 42")
        content = connection.execute(f"SELECT {names} FROM audit_event WHERE id = 42").fetchone()
        (before,) = connection.execute("SELECT digest FROM audit_event WHERE id = 41").fetchone()
        digest = chain.digest_of(before, content)
        connection.execute("INSERT INTO audit_erased VALUES (42, ?, ?)", (event, digest))

    assert verified(written, tmp_path, forge).broken_id == broken


def attempt(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def refuses(engine: Engine) -> None:
    """Try to change rows outside of an erasure, and with one that is not of now."""
    with engine.connect() as connection:
        head = chain.head(connection)[0]
    record = "INSERT INTO audit_erased VALUES (1, {}, 'x')"
    for before, changes in (
        ("SELECT 1", ("user_id", "digest", "event")),
        (record.format(head), ("user_id", "digest", "event")),
        (record.format(head + 1), ("digest", "event")),
    ):
        for name in changes:
            with pytest.raises(DBAPIError, match="only ever added"):
                attempt(engine, before, f"UPDATE audit_event SET {name} = 'x' WHERE id = 1")


def test_the_triggers_let_an_erasure_alone_change_rows(written: Path, tmp_path: Path) -> None:
    (tmp_path / "thoracle.sqlite").write_bytes(written.read_bytes())
    engine = database.connect(database.sqlite_url(tmp_path))
    refuses(engine)
    engine.dispose()


def test_postgresql_does_the_same() -> None:
    with postgres() as url:
        engine = database.open_database(url)
        write(engine)
        with engine.connect() as connection:
            found = verify(connection)
            row = connection.execute(select(audit_event).where(audit_event.c.id == ROW)).one()
        assert found.well, found
        assert row.patient_id == PSEUDONYM
        refuses(engine)
        engine.dispose()


def test_records_go_with_the_event_that_names_them(written: Path, tmp_path: Path) -> None:
    (tmp_path / "thoracle.sqlite").write_bytes(written.read_bytes())
    engine = database.connect(database.sqlite_url(tmp_path))
    for up_to, records in ((45, 4), (49, 2), (51, 0)):
        with engine.begin() as connection:
            digest, (after, _) = chain.digest_at(connection, up_to), chain.checkpoint(connection)
            rows = purging.set_checkpoint(connection, up_to, "test")
            detail = {"after": after, "up_to": up_to, "rows": rows, "digest": digest}
            trail.record(connection, trail.Event.AUDIT_PURGED, {"detail": detail})
        with engine.begin() as connection:
            purging.delete_events(connection, 1000)
        with engine.connect() as connection:
            kept = connection.execute(text("SELECT count(*) FROM audit_erased")).scalar()
            found = verify(connection)
        assert (kept, found.well) == (records, True), found
    engine.dispose()


# What is deleted, and what takes its place.


def test_what_is_deleted_is_overwritten(written: Path) -> None:
    engine = database.connect(database.sqlite_url(written.parent))
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA secure_delete")).scalar() == 1
    engine.dispose()


def test_a_text_keeps_all_but_the_patient() -> None:
    exact, within = {"P-4711": "X", "12": "X"}, patterns(["P-4711", "12"], ["Müller^Änne"])
    replace = replacer(exact, within, (["P-4711", "N"], "X"))
    assert replace({"a": ["P-4711", "P-47110", "12", "12 of 20"], "n": 12, "none": None}) == {
        "a": ["X", "P-47110", "X", "12 of 20"],
        "n": 12,
        "none": None,
    }
    assert replace("p-4711: Änne Müller, MÜLLER^ÄNNE and Müller-Lüdenscheidt") == (
        "X: X, X and Müller-Lüdenscheidt"
    )
    assert replace([["P-4711", "N"], ["P-4711", "M"]]) == [["X", ""], ["P-4711", "M"]]


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("Smith^Anna^M", ["Anna Smith", "SMITH, Anna", "Anna M. Smith", "smith^anna^m"]),
        ("Smith^Anna Maria^^Dr", ["Anna Smith", "Anna Maria Smith", "Smith, Anna Maria"]),
        ("van der Berg^Jo", ["Jo van der Berg", "van der Berg, Jo"]),
        (
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            ["Tarou YAMADA", "山田太郎", "山田 太郎", "やまだ、たろう"],
        ),
        ("Doe", []),
        ("Cher Bono", ["Cher Bono", "Bono, Cher"]),
        ("Plato", ["Plato", "PLATO"]),
    ],
)
def test_a_name_is_found_as_people_write_it(name: str, texts: list[str]) -> None:
    replace = replacer({}, patterns([], [name]), (["P", ""], PSEUDONYM))
    for text_ in texts:
        assert replace(f"of {text_}: call") == f"of {PSEUDONYM}: call"
    for other in ("Smithson, Anna", "Anna Berg", "Yamada Hanako", "Platonic Doe", "Jo Smith"):
        assert replace(other) == other


def test_the_key_makes_the_same_pseudonym_and_must_be_secret(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    made = Pseudonyms.of_file(key).of("patient", "P-4711", "N")
    assert made == Pseudonyms(b"k" * 32).of("patient", "P-4711", "N")
    others = {Pseudonyms(b"l" * 32).of("patient", "P-4711", "N")}
    others |= {Pseudonyms(b"k" * 32).of("patient", *one) for one in (("P-4711", ""), ("P", "N"))}
    assert made not in others
    assert len(others) == 3
    key.chmod(0o644)
    with pytest.raises(SettingsError, match="found permissions 0644"):
        Pseudonyms.of_file(key)
    key.chmod(0o600)
    key.write_bytes(b"k" * 31)
    with pytest.raises(SettingsError, match="found 31 bytes"):
        Pseudonyms.of_file(key)


# Another patient of the same ID, and two persons.


def test_a_patient_of_the_same_id_and_another_issuer_keeps_everything(tmp_path: Path) -> None:
    keeps_everything(tmp_path, database.open_database(database.sqlite_url(tmp_path)))


def test_so_does_one_on_postgresql(tmp_path: Path) -> None:
    with postgres() as url:
        keeps_everything(tmp_path, database.open_database(url))


def keeps_everything(folder: Path, engine: Engine) -> None:
    settings = Settings(data_folder=folder)
    of = {"NORTH": "1.2.840.77.1", "SOUTH": "1.2.840.77.2"}
    for issuer, study in of.items():
        reading = said(study, Outcome.NEGATIVE, probability=0.1)
        names = {"patient_id": PATIENT, "issuer_of_patient_id": issuer}
        concluded(engine, study, reading, accession_number=f"A-{issuer}", **names)
        values = {"recorded_at": "x", "study_instance_uid": study, "generation": 1}
        values |= {"bundle_digest": "d", "opinion": "agree", "comment": PATIENT, "person": "x"}
        with engine.begin() as connection:
            connection.execute(insert(verdict).values(values))
    with engine.begin() as connection:
        both: trail.Columns = {"detail": {"patients": [[PATIENT, one] for one in of]}}
        trail.record(connection, trail.Event.PATIENTS_DIFFER, both)
        question: trail.Columns = {"patient_id": PATIENT, "detail": {"filter": {"text": PATIENT}}}
        trail.record(connection, trail.Event.AUDIT_READ, question)
    asked = Erasure(engine, settings, Pseudonyms(b"k" * 32), Subject(PATIENT, "NORTH"))
    pseudonym = asked.plan().pseudonym
    asked.run("why", {"user_id": "anna", "detail": {}}, sending=False)
    with engine.connect() as connection:
        assert verify(connection).well
        kept = connection.execute(select(study_table.c.study_instance_uid)).scalars().all()
        events = connection.execute(select(audit_event).order_by(audit_event.c.id)).all()
        opinions = connection.execute(select(verdict.c.study_instance_uid)).scalars().all()
    assert kept == opinions == [of["SOUTH"]]
    with pytest.raises(DBAPIError, match="verdicts are only ever added"):
        attempt(engine, "DELETE FROM verdict")
    said_of = {
        issuer: [one for one in events if one.study_instance_uid == of[issuer]] for issuer in of
    }
    assert {one.patient_id for one in said_of["NORTH"]} == {pseudonym}
    assert {one.patient_id for one in said_of["SOUTH"]} == {PATIENT}
    assert {one.accession_number for one in said_of["SOUTH"]} == {"A-SOUTH"}
    assert not {one.accession_number for one in said_of["NORTH"]} & {"A-NORTH"}
    (differ,) = [one for one in events if one.event == "patients differ"]
    assert differ.detail["patients"] == [[pseudonym, ""], [PATIENT, "SOUTH"]]
    (read,) = [one for one in events if one.event == "audit read"]
    assert read.patient_id == PATIENT  # nobody knows which of the two was meant
    assert [one.event for one in events][-1] == "patient erased"
    engine.dispose()


def finds_a_name_however_it_is_written(folder: Path, engine: Engine) -> None:
    study, named = (
        "1.2.840.77.1",
        Description("Ännasdottir^Anna^Elisabethine", "CR", "", "20261122", "184529"),
    )
    reading = said(study, Outcome.NEGATIVE, probability=0.1)
    concluded(engine, study, reading, patient_id=PATIENT, description=named)
    texts = ["anna ÄNNASDOTTIR called", "of ännasdottir, ANNA", f"of {PATIENT.lower()}", "no name"]
    for one in texts:
        with engine.begin() as connection:
            trail.record(connection, trail.Event.AUDIT_READ, {"detail": {"note": one}})
    settings, subject = Settings(data_folder=folder), Subject(PATIENT, "2.16.840.1")
    asked = Erasure(engine, settings, Pseudonyms(b"k" * 32), subject)
    asked.run("why", {"user_id": "anna", "detail": {}}, sending=False)
    with engine.connect() as connection:
        statement = select(audit_event.c.detail).where(audit_event.c.event == "audit read")
        notes = [one["note"] for one in connection.execute(statement).scalars()]
    pseudonym = asked.plan().pseudonym
    assert notes == [f"{pseudonym} called", f"of {pseudonym}", f"of {pseudonym}", "no name"]
    engine.dispose()


def test_a_name_is_found_however_it_is_written(tmp_path: Path) -> None:
    engine = database.open_database(database.sqlite_url(tmp_path))
    finds_a_name_however_it_is_written(tmp_path, engine)


def test_so_it_is_on_postgresql(tmp_path: Path) -> None:
    with postgres() as url:
        finds_a_name_however_it_is_written(tmp_path, database.open_database(url))


def test_what_comes_and_is_read_meanwhile_is_not_left_without_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between files and rows, all of the engine's work and of the audit are searched."""
    settings, study = Settings(data_folder=tmp_path), "1.2.840.77.1"
    engine = database.open_database(database.sqlite_url(tmp_path))
    concluded(engine, study, said(study, Outcome.NEGATIVE, probability=0.1), patient_id=PATIENT)
    file = tmp_path / "images" / "ab" / "second.dcm"
    file.parent.mkdir(parents=True)
    left = [1]

    def arrive(*_: object) -> int:
        if left:
            left.clear()
            file.write_bytes(PATIENT.encode())
            path = str(file.relative_to(tmp_path))
            with engine.begin() as connection:
                instances.add(connection, received(study, 2, patient_id=PATIENT, path=path))
                connection.execute(update_rows(instance).values(generation=1))
        return 0

    monkeypatch.setattr("thoracle.store.engine.delete_naming", arrive)
    asked = Erasure(engine, settings, Pseudonyms(b"k" * 32), Subject(PATIENT, "2.16.840.1"))
    columns: trail.Columns = {"user_id": "anna", "detail": {}}
    with pytest.raises(ErasureError, match=f"{study}: 1 objects came meanwhile, required: none"):
        asked.run("why", columns, sending=False)
    assert asked.run("why", columns, sending=False).files
    assert not file.exists()
    with engine.connect() as connection:
        assert connection.execute(select(study_table)).all() == []
    engine.dispose()


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Erasure]:
    settings = Settings(data_folder=tmp_path)
    engine = database.open_database(database.sqlite_url(tmp_path))
    yield Erasure(engine, settings, Pseudonyms(b"k" * 32), Subject(PATIENT, ""))
    engine.dispose()


def test_a_second_person_is_another_one_within_thirty_days(
    asked: Erasure, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna: trail.Columns = {"user_id": "anna", "detail": {}}
    berta: trail.Columns = {"user_id": "berta", "detail": {}}
    assert not asked.request("why", anna)
    assert not asked.request("why", anna)
    assert asked.request("why", berta)

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(days=31)

    monkeypatch.setattr("thoracle.retention.erasure.datetime", Later)
    assert not asked.request("why", berta)
