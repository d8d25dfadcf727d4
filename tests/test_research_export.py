"""The export for research has what was read and said, and nothing by which anybody is known."""

import csv
import io
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from aging import asked
from browsing import Site
from gateway import Gateway
from ledger import rows
from pacs import Pacs, free_port
from test_proof import OBJECTS
from ward import PERSONS, Ward, of_study

PERSON = "gretchen.reader"
COMMENT = "Frau Annasdottir hustet seit Sonntag"
ANNA = {
    "PatientID": "ID-47110815",
    "IssuerOfPatientID": "NORTHERN-HOSPITAL",
    "PatientName": "Annasdottir^Anna",
    "PatientBirthDate": "19610213",
    "StudyDescription": "Thorax pa, Station Edelweiss",
    "StationName": "RAUM-SIEBEN",
}
IDENTIFYING = {
    "study": ("study_instance_uid", "patient_id", "issuer_of_patient_id", "accession_number"),
    "instance": (
        *("sop_instance_uid", "series_instance_uid", "patient_id", "issuer_of_patient_id"),
        *("calling_ae_title", "peer_address", "path", "sha256", "received_at"),
    ),
    "worklist": (
        *("patient_name", "patient_id", "accession_number", "study_description", "search"),
        *("study_datetime", "device", "received_at"),
    ),
    "verdict": ("sop_instance_uid", "comment", "person", "device", "recorded_at"),
    "result": ("sop_instance_uid", "series_instance_uid", "path", "sha256", "created_at"),
    "outbox": ("peer", "item", "delivered_sop_instance_uid", "detail", "changed_at"),
    "analysis": ("content_datetime", "finished_at"),
    "reading": ("detail",),
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    folder = tmp_path_factory.mktemp("research")
    persons = {**PERSONS, PERSON: ["reader"]}
    with Pacs("ARCHIVE", OBJECTS) as archive:
        gateway = Gateway(folder, archive, web={"port": free_port()})
        with gateway, Site(folder, config=gateway.config, persons=persons) as site:
            ward = Ward(gateway, archive, site)
            ward.studies = {
                "anna": ward.send(*of_study(2, AccessionNumber="ACC-112233", **ANNA)),
                "again": ward.send(*of_study(1, AccessionNumber="ACC-445566", **ANNA)),
                "berta": ward.send(*of_study(1, PatientID="ID-99887766", Modality="DX")),
                "nobody": ward.send(*of_study(1, PatientID="")),
                "no one": ward.send(*of_study(1, PatientID="")),
            }
            study = ward.studies["anna"]
            statement = "SELECT sop_instance_uid FROM result WHERE study_instance_uid = ?"
            report = rows(gateway, f"{statement} AND kind = 'sr'", study)[0]["sop_instance_uid"]
            with site.client(PERSON) as client:
                form = {"opinion": "disagree", "report": report, "comment": COMMENT}
                assert client.post(f"/study/{study}/verdict", data=form).status_code == 303
            yield ward


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_bytes(os.urandom(32))
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def folder(here: Ward, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(here, tmp_path_factory.mktemp("out") / "export", key)


def exported(ward: Ward, target: Path, key: Path, *arguments: str) -> Path:
    asked(ward.gateway, "research-export", str(target), "--key", str(key), *arguments)
    return target


def table(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pyarrow.parquet.read_table(
        folder / "readings.parquet"
    ).to_pylist()
    return found


def test_it_has_a_row_for_each_reading_with_what_was_said(here: Ward, folder: Path) -> None:
    found = table(folder)
    read = rows(here.gateway, "SELECT * FROM reading")
    assert len(found) == len(read) >= 6
    assert sorted(str(one["outcome"]) for one in found) == sorted(one["outcome"] for one in read)
    given = sorted(round(one["probability"], 6) for one in read if one["probability"] is not None)
    assert given
    assert sorted(one["probability"] for one in found if one["probability"] is not None) == given
    assert any(one["feature_sharpness"] for one in found)
    judged = [one for one in found if one["opinion"]]
    assert {one["opinion"] for one in judged} == {"disagree"}
    assert len({one["study"] for one in judged}) == len({one["reader"] for one in judged}) == 1
    assert {len(str(one["month"])) for one in found} == {7}
    text = (folder / "readings.csv").read_text()
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [one["image"] for one in lines] == [one["image"] for one in found]
    exports = here.gateway.events("exported")
    assert exports[0]["detail"]["means"] == "thoracle research-export"


def test_a_patient_is_one_patient_and_who_has_no_id_is_nobody(folder: Path) -> None:
    found = table(folder)
    patients: dict[object, set[object]] = {}
    for one in found:
        patients.setdefault(one["patient"], set()).add(one["study"])
    assert sorted(len(studies) for studies in patients.values()) == [1, 1, 1, 2]


def test_no_identifying_value_of_the_database_stands_in_it(here: Ward, folder: Path) -> None:
    content = b"".join(one.read_bytes() for one in folder.iterdir())
    readable = str(table(folder)).encode()  # Parquet packs its pages
    values = {COMMENT, PERSON, *ANNA.values()}
    for name, columns in IDENTIFYING.items():
        for column in columns:
            values |= {row[column] for row in rows(here.gateway, f"SELECT {column} FROM {name}")}
    for part in ("Annasdottir", "Anna", "Edelweiss", "47110815", "127.0.0.1", "SENDER"):
        values.add(part)
    wanted = {str(one) for one in values if one is not None and len(str(one)) > 3}
    assert len(wanted) > 60
    for one in wanted:
        assert one.encode() not in content, one
        assert one.encode() not in readable, one


def test_the_same_key_makes_the_same_pseudonyms_and_another_others(
    here: Ward, folder: Path, key: Path, tmp_path: Path
) -> None:
    names = ("patient", "study", "image", "device", "reader")
    first = {one[name] for one in table(folder) for name in names} - {""}
    again = table(exported(here, tmp_path / "again", key))
    assert {one[name] for one in again for name in names} - {""} == first
    other = tmp_path / "other"
    other.write_bytes(os.urandom(40))
    other.chmod(0o600)
    found = table(exported(here, tmp_path / "with another", other))
    assert not ({one[name] for one in found for name in names} - {""}) & first


def test_a_key_that_others_may_read_or_that_is_short_is_refused(here: Ward, tmp_path: Path) -> None:
    for content, mode, said in (
        (b"k" * 32, 0o640, "found mode 0640"),
        (b"k" * 31, 0o600, "found 31 bytes"),
    ):
        path = tmp_path / "key"
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        with pytest.raises(subprocess.CalledProcessError) as refused:
            exported(here, tmp_path / "export", path)
        assert said in refused.value.stderr
    assert not (tmp_path / "export").exists()


def test_months_restrict_it_and_a_code_that_is_none_is_left_out(
    here: Ward, key: Path, tmp_path: Path
) -> None:
    store = sqlite3.connect(here.gateway.data_folder / "thoracle.sqlite", timeout=30)
    with closing(store), store:
        store.execute(
            "UPDATE worklist SET modality = '=HYPERLINK' WHERE accession_number LIKE 'ACC%'"
        )
        study = here.studies["berta"]
        store.execute(
            "UPDATE analysis SET finished_at = '2024-03-09T10:00:00.000000Z' "
            "WHERE study_instance_uid = ?",
            (study,),
        )
    old = table(exported(here, tmp_path / "old", key, "--until", "2024-04"))
    assert [one["month"] for one in old] == ["2024-03"]
    new = table(exported(here, tmp_path / "new", key, "--since", "2024-04"))
    assert len(new) >= 5
    assert "HYPERLINK" not in (tmp_path / "new" / "readings.csv").read_text()
