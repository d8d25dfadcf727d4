"""Rules say what goes where; what they say of a study is always explained, and never loops."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from documents import DOCS
from route_decisions import EVERYTHING, configured, decide, fires
from sources import BUNDLE, NOON, cr, dx, positive
from thoracle import settings
from thoracle.cli import app, machine
from thoracle.errors import ThoracleError
from thoracle.records import Image, Kind, Outcome, Reading, Reason, Saliency
from thoracle.report import header
from thoracle.report.result_set import Picture, build
from thoracle.routing import rules as routing_rules
from thoracle.routing.rules import NOTHING, Sends, StudyResult
from thoracle.settings import Report

REJECTED = StudyResult(Outcome.REJECTED, None, Reason.NOT_CHEST, "covid_cxr", "0.1.0")


def ours() -> Dataset:
    """Return a report of ours, as it would come back."""
    source = dx()
    report = Dataset()
    report.SOPInstanceUID = "2.25.9"
    report.StudyInstanceUID = source.StudyInstanceUID
    report.Manufacturer = "Thoracle"
    report.Modality = "SR"
    return report


# ---- where things go -------------------------------------------------------------------------


def test_without_rules_every_destination_gets_its_kinds() -> None:
    chosen = configured()
    restricted = chosen.destination[1].model_copy(update={"kinds": ("sr",)})
    chosen = chosen.model_copy(update={"destination": (chosen.destination[0], restricted)})
    decision = decide(chosen)
    assert decision.sends == Sends({"pacs": EVERYTHING, "second": (Kind.SR,)}, (), ())


def test_a_destination_that_a_rule_names_gets_only_what_rules_send_there() -> None:
    rule = {"when": 'result.outcome == "positive"', "send": ["second"], "kinds": ["sr", "ko"]}
    chosen = configured(rule)
    assert decide(chosen).sends.kinds == {"pacs": EVERYTHING, "second": (Kind.SR, Kind.KO)}
    assert decide(chosen, result=REJECTED).sends.kinds == {"pacs": EVERYTHING}


def test_what_the_rules_that_fire_send_unites_and_the_most_urgent_priority_counts() -> None:
    chosen = configured(
        {"send": ["second"], "kinds": ["ko"], "priority": "backlog"},
        {"send": ["second"], "kinds": ["sr"], "priority": "stat"},
        {"send": ["second"], "kinds": [], "originals": True, "priority": "routine"},
        {"when": "false", "send": ["second"], "kinds": ["pr"]},
    )
    decision = decide(chosen)
    assert decision.sends.kinds["second"] == (Kind.SR, Kind.KO)
    assert decision.sends.originals == ("second",)
    assert decision.priority == "stat"


def test_a_receiver_that_a_rule_names_is_told_only_when_it_fires() -> None:
    ris = {"host": "127.0.0.1", "port": 2575}
    hl7 = [{"name": "ris", **ris}, {"name": "ward", **ris}]
    chosen = configured({"when": 'result.outcome == "positive"', "notify": ["ward"]}, hl7=hl7)
    assert decide(chosen).sends.notify == ("ris", "ward")
    assert decide(chosen, result=REJECTED).sends.notify == ("ris",)


@pytest.mark.parametrize("stop", ["hold", "shadow"])
def test_holding_back_wins_over_sending(stop: str) -> None:
    chosen = configured({"send": ["second"], "originals": True}, {stop: True})
    decision = decide(chosen)
    assert (decision.held, decision.shadow) == (stop == "hold", stop == "shadow")
    assert decision.sends == NOTHING
    assert decision.planned.kinds == {"pacs": EVERYTHING, "second": EVERYTHING}


@pytest.mark.parametrize("stop", ["hold", "shadow"])
def test_what_may_have_to_be_held_back_is_held(stop: str) -> None:
    decision = decide(configured({"when": "PatientAge < 16", stop: True}), dx(PatientBirthDate=""))
    assert decision.held_by == ("rule0",)
    assert not decision.shadow
    assert not decision.fired


def test_rules_of_the_same_name_are_all_asked() -> None:
    chosen = configured({"name": "a", "hold": True}, {"name": "a", "when": "false", "hold": True})
    assert decide(chosen).held


def test_before_the_analysis_rules_about_the_result_wait() -> None:
    chosen = configured(
        {"when": "result.probability > 0.9", "hold": True},
        {"when": 'Modality == "DX"', "priority": "stat"},
    )
    decision = decide(chosen, result=None)
    assert decision.waiting == ("rule0",)
    assert (decision.priority, decision.held, decision.failed) == ("stat", False, ())


def test_a_rejected_study_has_a_reason_and_no_probability() -> None:
    assert fires('result.outcome == "rejected" && result.reason == "NOT-CHEST"', result=REJECTED)
    decision = decide(
        configured({"when": "result.probability > 0.9", "send": ["second"]}), result=REJECTED
    )
    assert decision.failed[0].problem == "found no value of result.probability, required: one"


def test_the_result_of_a_study_is_that_of_its_most_telling_image() -> None:
    rejected = Reading("1", "2", Outcome.REJECTED, Reason.NOT_FRONTAL, "lateral")
    result = StudyResult.of([rejected, positive(dx())], BUNDLE)
    assert (result.outcome, result.probability, result.reason) == (Outcome.POSITIVE, 0.91, None)
    assert StudyResult.of([rejected], BUNDLE).reason is Reason.NOT_FRONTAL


def test_why_a_rule_fired_names_the_values_that_it_used() -> None:
    when = 'Modality == "CR" && known.PatientAge && StudyDescription.contains("Chest")'
    fired = decide(configured({"when": when, "hold": True}), dx(1), cr(2)).fired[0]
    assert fired.values == {
        "Modality": "CR",
        "StudyDescription": "Chest",
        "known.PatientAge": True,
    }
    assert fired.when == when


# ---- no loops --------------------------------------------------------------------------------


def test_originals_never_go_back_to_their_sender() -> None:
    chosen = configured({"send": ["pacs", "second"], "originals": True})
    decision = decide(chosen, sender="SECOND")
    assert decision.sends.originals == ("pacs",)
    assert decision.sender == ("second",)
    assert decision.sends.kinds == {"pacs": EVERYTHING, "second": EVERYTHING}
    assert decide(chosen, sender=" SECOND ").sends.originals == ("pacs",)


def test_what_thoracle_made_is_never_sent_as_an_original_and_fires_no_rule() -> None:
    chosen = configured(
        {"when": 'Modality == "SR"', "hold": True}, {"send": ["second"], "originals": True}
    )
    decision = decide(chosen, dx(), ours())
    assert not decision.held
    assert decision.images == (str(dx().SOPInstanceUID),)
    assert decide(chosen, ours()).sends.originals == ()


def test_each_kind_of_object_that_is_made_is_known_as_ours() -> None:
    grid = np.zeros((14, 14), np.float32)
    grid[4:8, 4:8] = 1
    picture = Picture(Image(np.zeros((1, 2000, 1800), np.float32)), Saliency(grid))
    source = dx()
    made = build(
        [source],
        [positive(source)],
        {source.SOPInstanceUID: picture},
        BUNDLE,
        content_datetime=NOON,
        settings=Report(),
    )
    assert {kind for kind, _ in made} == set(EVERYTHING)
    chosen = configured({"send": ["second"], "originals": True})
    for _, ds in made:
        assert decide(chosen, ds).images == ()


def test_an_image_of_which_nobody_can_say_who_made_it_is_not_sent_on() -> None:
    broken = dx()
    broken.add_new("ContributingEquipmentSequence", "LO", "no sequence")
    chosen = configured({"send": ["second"], "originals": True, "when": 'Modality == "DX"'})
    decision = decide(chosen, broken)
    assert decision.images == ()
    assert [one.rule for one in decision.fired] == ["rule0"]


# ---- check -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "fault"),
    [
        ([{"send": ["secnd"]}], "send: found secnd, required: the name of a destination: pacs"),
        ([{"notify": ["ris"]}], "notify: found ris, required: the name of a receiver"),
        ([{"when": "1 > 2", "hold": True}], "when is always false, required: a condition"),
        ([{"when": "false && Rows > 1", "hold": True}], "when is always false"),
        ([{"send": ["pacs"]}, {"shadow": True}], "never sends, for rule rule1 shadows every"),
        ([{}], "found no action, required: one of send"),
        ([{"hold": True, "originals": True}], "found kinds or originals without send"),
        ([{"shadow": True, "send": ["pacs"]}], "found send or notify beside shadow"),
        ([{"send": ["pacs"], "kinds": []}], "send: found no kind that pacs gets"),
        (
            [{"name": "a", "hold": True}, {"name": "a", "hold": True}],
            "found 2 rules of this name, required: different names",
        ),
    ],
)
def test_a_faulty_rule_is_found(rules: list[dict[str, Any]], fault: str) -> None:
    found = [text for _, text in routing_rules.faults(configured(*rules))]
    assert any(text.startswith(fault) for text in found), found


def test_rules_without_fault_are_found_to_be_well() -> None:
    chosen = configured(
        {"when": "PatientAge < 16", "hold": True},
        {"send": ["second"], "kinds": [], "originals": True},
    )
    assert list(routing_rules.faults(chosen)) == []
    assert [one.well for one in machine._rules(chosen)] == [True, True]


# ---- explain ---------------------------------------------------------------------------------


def explain(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["route", "explain", *arguments])
    if isinstance(result.exception, ThoracleError):
        return str(result.exception)
    assert result.exit_code == 0, result.output
    return result.output


def test_explain_reads_a_real_radiograph() -> None:
    said = json.loads(explain(str(get_testdata_file("RG1_UNCR.dcm", download=False)), "--json"))
    assert len(said["images"]) == 1


@pytest.mark.parametrize("said", ["positive", "posittive:0.9", "rejected:NONE", "negative:x"])
def test_a_result_that_is_none_is_refused(said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(header.encode(dx()))
    assert f"--result: found '{said}', required:" in explain(str(path), "--result", said)


def test_explain_takes_dicom_files_of_one_study(tmp_path: Path) -> None:
    for name, image in {"a": dx(), "b": dx(2, StudyInstanceUID="2.25.2")}.items():
        (tmp_path / name).write_bytes(header.encode(image))
    paths = [str(tmp_path / name) for name in "ab"]
    assert "found images of 2 studies, required: one study" in explain(*paths)
    (tmp_path / "a").write_text("text")
    assert "required: a DICOM file" in explain(paths[0])


# ---- the documentation -----------------------------------------------------------------------

IMAGES = {
    "chest.dcm": dx(StationAETitle="ROOM1"),
    "room2.dcm": dx(StationAETitle="ROOM2"),
    "child.dcm": dx(PatientBirthDate="20180101", StationAETitle="ROOM1"),
    "portable.dcm": dx(SeriesDescription="Chest portable ICU", StationAETitle="ROOM1"),
    "unknown.dcm": dx(PatientBirthDate=None, StationAETitle="ROOM1"),
}
"""The files that the examples of docs/routing.md name."""


def test_the_examples_of_the_page_say_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, image in IMAGES.items():
        (tmp_path / name).write_bytes(header.encode(image))
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "routing.md").read_text(encoding="utf-8")
    destinations, shown = "", 0
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        if language == "toml":
            destinations = text if "[[destination]]" in text else destinations
            rules = "" if text is destinations else text
            (tmp_path / "thoracle.toml").write_text(destinations + rules)
            assert list(routing_rules.faults(settings.load(tmp_path / "thoracle.toml"))) == []
        for command, output in re.findall(
            r"^\$ thoracle route explain (.*)\n((?:[^$].*\n)*)", text, re.MULTILINE
        ):
            assert explain(*command.split(), "-c", "thoracle.toml") == output
            shown += 1
    assert shown >= 6
