"""Our workitems as DCMTK sees them: found, read, claimed, ended and told of, by C++ of others."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import select

import sources
from dcmtk_ups import SERVICES, SYNTAXES, Answer, Client, Station, program
from gateway import Gateway
from ledger import concluded, eventually, rows
from pacs import Pacs
from peers import require
from radiographs import chest
from sender import send
from thoracle.store.tables import workitem
from thoracle.ups.states import GLOBAL_SUBSCRIPTION
from workitem_listener import NOBODY, Listener

PUSH = "1.2.840.10008.5.1.4.34.6.1"
FIRST, SECOND = "2.25.1", "2.25.2"
"""Transaction UIDs of two who claim."""
DONE = "UnifiedProcedureStepPerformedProcedureSequence[0]."
PERFORMED = (
    f"{DONE}PerformedStationNameCodeSequence[0].CodeValue=DCMTK",
    f"{DONE}PerformedStationNameCodeSequence[0].CodingSchemeDesignator=99TEST",
    f"{DONE}PerformedStationNameCodeSequence[0].CodeMeaning=DCMTK",
    f"{DONE}PerformedWorkitemCodeSequence[0].CodeValue=110005",
    f"{DONE}PerformedWorkitemCodeSequence[0].CodingSchemeDesignator=DCM",
    f"{DONE}PerformedWorkitemCodeSequence[0].CodeMeaning=Interpretation",
    f"{DONE}PerformedProcedureStepStartDateTime=20261124120000+0000",
    f"{DONE}PerformedProcedureStepEndDateTime=20261124120100+0000",
    f"{DONE}OutputInformationSequence",
)
PROGRESS = "ProcedureStepProgressInformationSequence[0]."
REASON = f"{PROGRESS}ProcedureStepDiscontinuationReasonCodeSequence[0]."
CANCELLATION = (
    f"{PROGRESS}ProcedureStepCancellationDateTime=20261124120000+0000",
    f"{REASON}CodeValue=110513",
    f"{REASON}CodingSchemeDesignator=DCM",
    f"{REASON}CodeMeaning=Discontinued for unspecified reason",
)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    program()


@pytest.fixture
def client(listener: Listener, tmp_path: Path) -> Client:
    return Client(listener.port, tmp_path)


def found(answers: list[Answer]) -> set[str]:
    """Return the workitems of a C-FIND that ended well."""
    *matches, last = answers
    assert last.status == 0x0000
    assert {one.status for one in matches} <= {0xFF00}
    assert {one.ds.SOPClassUID for one in matches} <= {PUSH}
    return {str(one.ds.SOPInstanceUID) for one in matches}


def status_of(answer: Answer, uid: str) -> int:
    """Return the status of an answer that names the workitem it is about."""
    assert (answer.sop_class_uid, answer.sop_instance_uid) == (PUSH, uid)
    return answer.status


def run(tool: str, *arguments: str) -> str:
    """Return what a tool of DCMTK prints, which must have nothing to warn of."""
    command = [require(tool, "dcmtk"), *arguments]
    ended = subprocess.run(command, capture_output=True, check=True, text=True)
    assert ended.stderr == ""
    return ended.stdout


def outline(path: Path) -> list[str]:
    """Return tag, VR and value of each element of a file, as dcmdump has them."""
    lines = run("dcmdump", "-q", "-Un", "+L", str(path)).splitlines()
    elements = [re.match(r"( *\(0...,....\) ..) (?:\[(.*)\] +#)?", one) for one in lines]
    return [f"{one[1]} {one[2] or ''}" for one in elements if one]


# ---- C-FIND ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("service", "syntax"), list(zip(SERVICES, SYNTAXES, strict=True)))
def test_dcmtk_finds_workitems_by_state_priority_and_patient(
    listener: Listener, client: Client, service: str, syntax: str
) -> None:
    one, two = listener.offer(), listener.offer(ScheduledProcedureStepPriority="LOW")
    three = listener.offer(PatientID="P-3", PatientName="Roe^Richard")
    assert client.change(two, "IN PROGRESS", FIRST) == 0

    def ask(*keys: str) -> set[str]:
        return found(client.find(*keys, service=service, syntax=syntax))

    assert ask("ProcedureStepState=") == {one, two, three}
    assert ask("ProcedureStepState=SCHEDULED") == {one, three}
    assert ask("ProcedureStepState=IN PROGRESS") == {two}
    assert ask("ScheduledProcedureStepPriority=HIGH") == {one, three}
    assert ask("ProcedureStepState=SCHEDULED", "PatientID=P-3") == {three}
    assert ask("PatientName=roe^r*", "PatientID=") == {three}
    assert ask("PatientName=nobody") == set()
    assert ask(f"SOPInstanceUID={one}\\{two}") == {one, two}
    assert ask("ScheduledProcedureStepStartDateTime=20261124101500+0000-") == {one, two, three}
    assert ask("ScheduledProcedureStepStartDateTime=-20261124101459+0000") == set()
    assert ask("ScheduledWorkitemCodeSequence[0].CodeValue=110005") == {one, two, three}
    assert ask("ScheduledWorkitemCodeSequence[0].CodeValue=110003") == set()


def test_dcmtk_asks_in_greek_and_gets_unicode(listener: Listener, client: Client) -> None:
    uid = listener.offer(sources.named(sources.GREEK, StudyInstanceUID=generate_uid()))
    listener.offer()
    character_set, name, _ = sources.GREEK
    keys = [
        f"SpecificCharacterSet={character_set}".encode(),
        f"PatientName={name}".encode("iso8859_7"),
    ]
    match, _ = client.find(*keys)
    assert match.ds.SOPInstanceUID == uid
    assert match.ds.SpecificCharacterSet == "ISO_IR 192"
    assert f"(0010,0010) PN {name}" in outline(match.path)


def test_dcmtk_cancels_a_search_while_matches_come(listener: Listener, client: Client) -> None:
    for _ in range(300):
        listener.offer()
    *matches, last = client.stop("PatientName=")
    assert last.status == 0xFE00
    assert 5 <= len(matches) < 300


def test_an_answer_to_dcmtk_has_what_was_asked_for_in_the_order_of_its_tags(
    listener: Listener, client: Client
) -> None:
    image = sources.dx(StudyInstanceUID=generate_uid(), SOPInstanceUID=generate_uid())
    uid = listener.offer(image)
    match, _ = client.find(
        "ScheduledWorkitemCodeSequence[0].CodeMeaning=",
        "ProcedureStepLabel=*AI*",
        "PatientID=",
        "AccessionNumber=",
        "InputInformationSequence[0].ReferencedSOPSequence",
        "ReplacedProcedureStepSequence",
    )
    assert outline(match.path) == [
        f"(0008,0016) UI {PUSH}",
        f"(0008,0018) UI {uid}",
        "(0008,0050) SH ",
        "(0010,0020) LO A-1",
        "(0040,4018) SQ ",
        "    (0008,0104) LO Interpretation",
        "(0040,4021) SQ ",
        "    (0008,1199) SQ ",
        f"        (0008,1150) UI {image.SOPClassUID}",
        f"        (0008,1155) UI {image.SOPInstanceUID}",
        "(0074,1204) LO Chest XR - AI: COVID-19 positive 91 % (research)",
        "(0074,1224) SQ ",
    ]


# ---- N-GET -------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_what_dcmtk_reads_and_writes_as_json_is_what_is_kept(
    listener: Listener, client: Client, syntax: str
) -> None:
    uid = listener.offer(sources.named(sources.GREEK, StudyInstanceUID=generate_uid()))
    answer = client.get(uid, syntax=syntax)
    assert status_of(answer, uid) == 0
    seen = Dataset.from_json(json.loads(run("dcm2json", str(answer.path))))
    with listener.database.connect() as connection:
        kept = Dataset.from_json(connection.execute(select(workitem.c.attributes)).scalar_one())
    kept.SpecificCharacterSet = "ISO_IR 192"
    kept.ProcedureStepState = "SCHEDULED"
    (place,) = seen.InputInformationSequence
    assert place.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "2.25.1001.1.1"
    kept.InputInformationSequence = [place]
    assert seen == kept


def test_dcmtk_reads_the_attributes_that_it_names(listener: Listener, client: Client) -> None:
    uid = listener.offer()
    answer = client.get(uid, "ProcedureStepState", "PatientName", "TransactionUID")
    assert status_of(answer, uid) == 0
    assert outline(answer.path) == ["(0010,0010) PN Roe^Jane", "(0074,1000) CS SCHEDULED"]
    assert client.get(NOBODY).status == 0xC307


# ---- N-SET and N-ACTION ------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_dcmtk_claims_works_and_completes_and_another_is_kept_out(
    listener: Listener, client: Client, tmp_path: Path, syntax: str
) -> None:
    uid = listener.offer()
    other = Client(listener.port, tmp_path, "OTHER")
    half = f"{PROGRESS}ProcedureStepProgress=50"
    assert client.set(uid, f"TransactionUID={FIRST}", half).status == 0xC310
    assert client.change(uid, "COMPLETED", FIRST) == 0xC310
    assert client.change(uid, "IN PROGRESS", FIRST, syntax) == 0
    assert other.change(uid, "IN PROGRESS", SECOND) == 0xC301
    assert client.change(uid, "IN PROGRESS", FIRST) == 0xC302
    assert other.set(uid, f"TransactionUID={SECOND}", half).status == 0xC301
    assert status_of(client.set(uid, f"TransactionUID={FIRST}", half, syntax=syntax), uid) == 0
    seen = outline(client.get(uid, "ProcedureStepProgressInformationSequence").path)
    assert seen[-1].strip() == "(0074,1004) DS 50"
    early = client.act(
        uid, 1, "ProcedureStepState=COMPLETED", f"TransactionUID={FIRST}", service="pull"
    )
    assert status_of(early, uid) == 0xC304
    assert early.comment == "UnifiedProcedureStepPerformedProcedureSequence"
    performed = client.set(uid, f"TransactionUID={FIRST}", *PERFORMED, syntax=syntax)
    assert performed.status == 0
    assert other.change(uid, "COMPLETED", SECOND) == 0xC301
    assert client.change(uid, "COMPLETED", FIRST, syntax) == 0
    assert client.change(uid, "COMPLETED", FIRST) == 0xB306
    assert client.set(uid, f"TransactionUID={FIRST}", half).status == 0xC300
    assert listener.changes(uid) == [
        ("workitem created", None, None, "SCHEDULED"),
        ("workitem changed", "DCMTK", "SCHEDULED", "IN PROGRESS"),
        ("workitem changed", "DCMTK", "IN PROGRESS", "IN PROGRESS"),
        ("workitem changed", "DCMTK", "IN PROGRESS", "IN PROGRESS"),
        ("workitem changed", "DCMTK", "IN PROGRESS", "COMPLETED"),
    ]


@pytest.mark.parametrize(
    ("sent", "kept"), [("50", "50"), ("12.5", "12.5"), (".333333333333333", "0.33333333333333")]
)
def test_a_decimal_string_of_dcmtk_stays_one_of_sixteen_characters(
    listener: Listener, client: Client, sent: str, kept: str
) -> None:
    uid = listener.offer()
    assert client.change(uid, "IN PROGRESS", FIRST) == 0
    progress = f"{PROGRESS}ProcedureStepProgress={sent}"
    assert client.set(uid, f"TransactionUID={FIRST}", progress).status == 0
    answer = client.get(uid, "ProcedureStepProgressInformationSequence")
    assert outline(answer.path)[-1].strip() == f"(0074,1004) DS {kept}"


def test_dcmtk_claims_and_cancels(listener: Listener, client: Client) -> None:
    uid = listener.offer()
    assert client.change(uid, "IN PROGRESS", FIRST) == 0
    assert client.change(uid, "CANCELED", FIRST) == 0xC304
    assert client.set(uid, f"TransactionUID={FIRST}", *CANCELLATION).status == 0
    assert client.change(uid, "CANCELED", FIRST) == 0
    assert client.change(uid, "CANCELED", FIRST) == 0xB304
    assert found(client.find("ProcedureStepState=CANCELED")) == {uid}


def test_dcmtk_asks_to_cancel_what_nobody_has_begun_and_what_another_is_at(
    listener: Listener, client: Client
) -> None:
    idle, busy, done = listener.offer(), listener.offer(), listener.offer()
    reason = "ReasonForCancellation=read already"
    assert status_of(client.act(idle, 2, reason), idle) == 0
    assert found(client.find("ProcedureStepState=CANCELED")) == {idle}
    assert client.act(idle, 2).status == 0xB304
    assert client.change(busy, "IN PROGRESS", FIRST) == 0
    assert client.act(busy, 2).status == 0xC312
    subscription = ("ReceivingAE=STATION", "DeletionLock=FALSE")
    assert client.act(busy, 3, *subscription).status == 0
    assert client.act(busy, 2, reason).status == 0
    assert [kind for uid, kind, _ in listener.reports("STATION") if uid == busy] == [1, 2]
    assert client.change(done, "IN PROGRESS", FIRST) == 0
    assert client.set(done, f"TransactionUID={FIRST}", *PERFORMED).status == 0
    assert client.change(done, "COMPLETED", FIRST) == 0
    assert client.act(done, 2).status == 0xC311
    assert client.act(NOBODY, 2).status == 0xC307


def test_the_class_of_the_context_is_no_class_of_a_workitem(
    listener: Listener, client: Client
) -> None:
    uid = listener.offer()
    values = ("ProcedureStepState=IN PROGRESS", f"TransactionUID={FIRST}")
    assert client.act_by_class_of_context(uid, 1, *values) == 0x0118
    assert found(client.find("ProcedureStepState=SCHEDULED")) == {uid}


# ---- N-EVENT-REPORT, and the gateway -----------------------------------------------------------


def test_dcmtk_reads_a_study_from_its_images_to_the_last_event_report(tmp_path: Path) -> None:
    image = chest(PatientName="Müller^Änne", SpecificCharacterSet="ISO_IR 100")
    study = str(image.StudyInstanceUID)
    with Station(tmp_path / "station") as station, Pacs() as pacs:
        table = {"ae_title": station.ae_title, "host": "127.0.0.1", "port": station.port}
        outcomes = ["positive", "negative", "indeterminate", "rejected"]
        with Gateway(
            tmp_path,
            pacs,
            lists={"subscriber": [table]},
            ups={"offer": True, "outcomes": outcomes},
        ) as gateway:
            client = Client(gateway.port, tmp_path)
            to_all = ("ReceivingAE=STATION", "DeletionLock=TRUE")
            answer = client.act(GLOBAL_SUBSCRIPTION, 3, *to_all)
            assert status_of(answer, GLOBAL_SUBSCRIPTION) == 0
            assert send(gateway.port, image).status == 0
            concluded(gateway, study)
            delivered = "SELECT 1 FROM outbox WHERE state = 'delivered' AND peer = 'pacs'"
            eventually(lambda: rows(gateway, delivered))
            match, _ = client.find(
                "SpecificCharacterSet=ISO_IR 192",
                "ProcedureStepState=SCHEDULED",
                "PatientName=Müller*",
                f"InputInformationSequence[0].StudyInstanceUID={study}",
                "InputInformationSequence[0].ReferencedSOPSequence",
                "InputInformationSequence[0].DICOMRetrievalSequence",
            )
            uid = str(match.ds.SOPInstanceUID)
            (report,) = pacs.kept
            places = {
                reference.ReferencedSOPInstanceUID: [
                    one.RetrieveAETitle for one in item.DICOMRetrievalSequence
                ]
                for item in match.ds.InputInformationSequence
                for reference in item.ReferencedSOPSequence
            }
            # The picture of the result is not for this archive.
            assert {uid: where for uid, where in places.items() if where} == {report: ["PACS"]}
            assert places[image.SOPInstanceUID] == []
            assert client.change(uid, "IN PROGRESS", FIRST) == 0
            lock = f"TransactionUID={FIRST}"
            assert client.set(uid, lock, f"{PROGRESS}ProcedureStepProgress=50").status == 0
            assert client.act(uid, 2, "ReasonForCancellation=too late").status == 0
            assert client.set(uid, lock, *PERFORMED).status == 0
            assert client.change(uid, "COMPLETED", FIRST) == 0
            assert f"workitem {uid} COMPLETED by DCMTK" in gateway.run("status", study)
            heard = station.wait(uid, 5)
            before = len(station.of(GLOBAL_SUBSCRIPTION))
            gateway.kill()
            gateway.start()
            *_, (kind, restarted) = station.wait(GLOBAL_SUBSCRIPTION, before + 1)
            assert client.act(GLOBAL_SUBSCRIPTION, 4, "ReceivingAE=STATION").status == 0
    told = [(kind, str(ds.get("ProcedureStepState", ""))) for kind, ds in heard]
    assert told == [
        (1, "SCHEDULED"),
        (1, "IN PROGRESS"),
        (3, ""),
        (2, ""),
        (1, "COMPLETED"),
    ]
    assert heard[2][1].ProcedureStepProgressInformationSequence[0].ProcedureStepProgress == 50
    assert heard[3][1].ReasonForCancellation == "too late"
    assert heard[3][1].RequestingAE == "DCMTK"
    assert (kind, restarted.SCPStatus) == (4, "RESTARTED")
