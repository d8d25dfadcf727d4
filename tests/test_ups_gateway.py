"""Workitems of a whole gateway: made for a study, claimed, replaced, held by rules, and told of."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from gateway import Gateway, destination
from ledger import concluded, eventually, rows
from pacs import Pacs
from radiographs import chest
from sender import send
from thoracle.errors import SettingsError
from thoracle.routing import rules as routing_rules
from thoracle.settings import parse
from thoracle.ups.states import GLOBAL_SUBSCRIPTION
from workflow import Reader, Station, data, everything

ALL = ["positive", "negative", "indeterminate", "rejected"]


def gateway_of(folder: Path, station: Station, *archives: Any, **more: Any) -> Gateway:
    subscriber = {"ae_title": station.ae_title, "host": "127.0.0.1", "port": station.port}
    lists = {"subscriber": [subscriber], **more.pop("lists", {})}
    return Gateway(folder, *archives, lists=lists, ups={"offer": True, "outcomes": ALL}, **more)


def workitems_of(gateway: Gateway, study: str) -> list[dict[str, Any]]:
    statement = "SELECT * FROM workitem WHERE study_instance_uid = ? ORDER BY created_at"
    return rows(gateway, statement, study)


def test_a_study_becomes_a_workitem_that_a_reader_finds_claims_and_completes(
    tmp_path: Path,
) -> None:
    with Station() as station, Pacs() as pacs, gateway_of(tmp_path, station, pacs) as gateway:
        with Reader(gateway.port) as reader:
            assert reader.subscribe("STATION") == 0
        image = chest(PatientName="Müller^Änne", SpecificCharacterSet="ISO_IR 100")
        study = image.StudyInstanceUID
        assert send(gateway.port, image).status == 0
        concluded(gateway, study)
        delivered = "SELECT 1 FROM outbox WHERE state = 'delivered' AND peer = 'pacs'"
        eventually(lambda: rows(gateway, delivered))
        with Reader(gateway.port) as reader:
            identifier = everything()
            identifier.SpecificCharacterSet = "ISO_IR 192"
            identifier.PatientName = "müller*"
            identifier.ReferencedRequestSequence = []
            (found,) = reader.find(identifier)
            uid = found.SOPInstanceUID
            assert f"workitem {uid} SCHEDULED" in gateway.run("status", study)
            assert found.SpecificCharacterSet == "ISO_IR 192"
            assert found.PatientName == "Müller^Änne"
            assert found.ProcedureStepLabel.startswith("Chest XR - AI: COVID-19 ")
            assert found.ProcedureStepLabel.endswith(" % (research)")
            assert found.ScheduledProcedureStepPriority == "HIGH"
            assert found.ReferencedRequestSequence[0].AccessionNumber == "A1"
            inputs = {
                reference.ReferencedSOPInstanceUID: [
                    one.RetrieveAETitle for one in item.get("DICOMRetrievalSequence", [])
                ]
                for item in found.InputInformationSequence
                for reference in item.ReferencedSOPSequence
            }
            (report,) = pacs.kept
            assert inputs[image.SOPInstanceUID] == []
            assert inputs[report] == ["PACS"]
            assert reader.claim(uid) == 0
            gateway.kill()
            gateway.start()
            lock = reader.transaction_uid
        with Reader(gateway.port) as reader:
            reader.transaction_uid = lock
            assert reader.complete(uid) == 0
        assert f"workitem {uid} COMPLETED by READER" in gateway.run("status", study)
        assert lock not in gateway.run("status", "--json", study)
        station.wait(uid, [(1, "SCHEDULED"), (1, "IN PROGRESS"), (1, "COMPLETED")])
        eventually(lambda: (4, "") in station.of(GLOBAL_SUBSCRIPTION))
        reviewed = "SELECT reviewed_at, verdict FROM worklist WHERE study_instance_uid = ?"
        (row,) = rows(gateway, reviewed, study)
        assert row["reviewed_at"]
        assert row["verdict"] is None
        assert datetime.fromisoformat(row["reviewed_at"])


def test_a_station_that_is_away_hears_everything_later_and_in_order(tmp_path: Path) -> None:
    station = Station()
    with gateway_of(tmp_path, station) as gateway:
        with Reader(gateway.port) as reader:
            assert reader.subscribe("STATION") == 0
        image = chest()
        assert send(gateway.port, image).status == 0
        concluded(gateway, image.StudyInstanceUID)
        with Reader(gateway.port) as reader:
            (found,) = reader.find()
            uid = found.SOPInstanceUID
            assert reader.claim(uid) == 0
            assert reader.cancel(uid) == 0
        tried = "SELECT 1 FROM outbox WHERE kind = 'ups' AND attempts > 0"
        eventually(lambda: rows(gateway, tried))
        station.status = lambda number: 0x0110 if number == 0 else 0x0000
        with station:
            heard = [(1, "SCHEDULED"), (1, "IN PROGRESS"), (3, ""), (1, "CANCELED")]
            station.wait(uid, heard)


def test_a_new_image_replaces_the_workitem_and_one_in_progress_is_named(tmp_path: Path) -> None:
    with Station() as station, gateway_of(tmp_path, station) as gateway:
        first = chest()
        study = first.StudyInstanceUID

        def add() -> list[dict[str, Any]]:
            before = len(workitems_of(gateway, study))
            image = first if before == 0 else chest(StudyInstanceUID=study)
            assert send(gateway.port, image).status == 0
            return (
                eventually(
                    lambda: (
                        (found := workitems_of(gateway, study)) and len(found) > before and found
                    )
                )
                or []
            )

        (one,) = add()
        old, two = add()
        assert (old["state"], two["state"]) == ("CANCELED", "SCHEDULED")
        with Reader(gateway.port) as reader:
            ds = reader.get(one["sop_instance_uid"])[1]
            assert ds is not None
            progress = ds.ProcedureStepProgressInformationSequence[0]
            reason = progress.ProcedureStepDiscontinuationReasonCodeSequence[0]
            assert (reason.CodeValue, reason.CodingSchemeDesignator) == ("110528", "DCM")
            assert reader.claim(two["sop_instance_uid"]) == 0
            _, kept, three = add()
            assert (kept["state"], three["state"]) == ("IN PROGRESS", "SCHEDULED")
            (found,) = reader.find(
                data(ProcedureStepState="SCHEDULED", ReplacedProcedureStepSequence=[])
            )
            replaced = found.ReplacedProcedureStepSequence[0]
            assert replaced.ReferencedSOPInstanceUID == two["sop_instance_uid"]
        eventually(lambda: gateway.run("withdraw", study, "--reason", "test"))
        eventually(lambda: workitems_of(gateway, study)[2]["state"] == "CANCELED")
        assert workitems_of(gateway, study)[1]["state"] == "IN PROGRESS"


def test_rules_say_for_which_studies_there_is_a_workitem(tmp_path: Path) -> None:
    rules = [
        {"name": "men", "when": 'PatientSex == "M"', "notify": ["ups"]},
        {"name": "held", "when": 'PatientID == "HELD"', "hold": True, "notify": ["ups"]},
        {"name": "shadow", "when": 'PatientID == "SHADOW"', "shadow": True},
    ]
    with (
        Station() as station,
        gateway_of(tmp_path, station, destination(Pacs("NONE")), lists={"rule": rules}) as gateway,
    ):
        images = {
            "none": chest(PatientSex="F"),
            "man": chest(PatientSex="M"),
            "held": chest(PatientSex="F", PatientID="HELD"),
            "shadow": chest(PatientSex="M", PatientID="SHADOW"),
        }
        for image in images.values():
            assert send(gateway.port, image).status == 0
            concluded(gateway, image.StudyInstanceUID)
        found = {
            name: [row["state"] for row in workitems_of(gateway, image.StudyInstanceUID)]
            for name, image in images.items()
        }
        assert found == {"none": [], "man": ["SCHEDULED"], "held": ["HELD"], "shadow": []}
        with Reader(gateway.port) as reader:
            (seen,) = reader.find()
            assert seen.StudyInstanceUID == images["man"].StudyInstanceUID
            held = images["held"].StudyInstanceUID
            uid = workitems_of(gateway, held)[0]["sop_instance_uid"]
            assert reader.claim(uid) == 0xC307
            gateway.run("release", held)
            eventually(lambda: workitems_of(gateway, held)[0]["state"] == "SCHEDULED")
            assert reader.claim(uid) == 0


def test_a_rule_cannot_name_workitems_that_are_not_offered() -> None:
    rule = {"name": "r", "when": "true", "notify": ["ups"]}
    assert list(routing_rules.faults(parse({"rule": [rule], "ups": {"offer": True}}))) == []
    (fault,) = routing_rules.faults(parse({"rule": [rule]}))
    assert fault == ("r", "notify: found ups while ups.offer is false, required: true")
    hl7 = {"name": "ups", "host": "h", "port": 1}
    with pytest.raises(
        SettingsError, match="name: found ups among the receivers, required: another name"
    ):
        parse({"hl7": [hl7]})
