"""What a bundle finds comes from its metadata alone: how it is read, where else it must not be."""

import copy
import json
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bundles import METADATA, PNEUMONIA, second
from sources import BUNDLE, FINDING
from thoracle import wording
from thoracle.classify import bundle, finding
from thoracle.cli import app
from thoracle.errors import BundleError
from thoracle.evaluate import labels
from thoracle.records import Kind, Outcome, SaliencyKind
from thoracle.settings import Classify

NAMED = re.compile(r"covid|840539006|sars.cov", re.IGNORECASE)
NOT_THE_SERVICE = {
    "dataset": "reads the folders of a public data set for training, which have that name",
    "store/migrations": "what databases of earlier versions are about: there was one finding",
}


def test_no_module_of_the_service_names_the_finding_of_the_shipped_bundle() -> None:
    package = Path(str(files("thoracle")))
    named = [
        str(path.relative_to(package))
        for path in sorted(package.rglob("*"))
        if path.is_file()
        and path.suffix in (".py", ".html", ".js", ".css", ".svg", ".txt", ".toml", ".mako")
        and NAMED.search(path.read_text(encoding="utf-8"))
    ]
    others = [one for one in named if not one.startswith(tuple(NOT_THE_SERVICE))]
    assert others == []
    assert [one for one in NOT_THE_SERVICE if not any(name.startswith(one) for name in named)] == []


def without(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(metadata: dict[str, Any]) -> None:
        *above, last = path
        for part in above:
            metadata = metadata[part]
        del metadata[last]

    return change


def having(value: Any, *path: str) -> Callable[[dict[str, Any]], None]:
    def change(metadata: dict[str, Any]) -> None:
        *above, last = path
        for part in above:
            metadata = metadata[part]
        metadata[last] = value

    return change


PRED = ("network_data_format", "outputs", "pred")
ABSENT = {"value": "272519000", "scheme": "SCT", "meaning": "Absent"}
FAULTS: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (without("finding"), "finding: found none, required: an object with channel, code, name"),
    *(
        (without(*path), f"{'.'.join(path)}: found none, required")
        for path in (
            ("finding", "channel"),
            ("finding", "code"),
            ("finding", "code", "meaning"),
            ("finding", "name"),
            ("finding", "short_name"),
            ("finding", "outcomes"),
            ("finding", "outcomes", "indeterminate"),
            ("finding", "outcomes", "negative", "code"),
            ("finding", "outcomes", "positive", "sentence"),
            ("finding", "population"),
            ("finding", "population", "modalities"),
            ("finding", "population", "views"),
            ("finding", "population", "body_part"),
            ("finding", "population", "least_age_years"),
            ("finding", "saliency"),
            (*PRED, "channel_def"),
        )
    ),
    (having("Pneumothorax", "finding", "channel"), "finding.channel: found 'Pneumothorax'"),
    (having({"0": "a", "2": "b"}, *PRED, "channel_def"), "network_data_format.outputs.pred.ch"),
    (having(3, *PRED, "num_channels"), "num_channels: found 3, required: 2"),
    (having("x" * 17, "finding", "short_name"), "finding.short_name: found 'xxxxxxxxxxxxxxxxx'"),
    (having("x" * 17, "finding", "code", "value"), "finding.code.value: found 'xxxxxxx"),
    (having("a\\b", "finding", "name"), "finding.name: found 'a"),
    (having("Name", "finding", "nmae"), "finding.nmae: found an unknown entry, required: one of"),
    (having("18", "finding", "population", "least_age_years"), "least_age_years: found '18'"),
    (having(["LL"], "finding", "population", "views"), "population.views: found LL"),
    (having(["CT"], "finding", "population", "modalities"), "population.modalities: found CT"),
    (having([], "finding", "population", "modalities"), "population.modalities: found []"),
    (having("HAND", "finding", "population", "body_part"), "population.body_part: found HAND"),
    (having("heat", "finding", "saliency"), "finding.saliency: found 'heat'"),
    (
        having(ABSENT, "finding", "outcomes", "positive", "code"),
        "finding.outcomes: found one code for two outcomes",
    ),
    (
        having(ABSENT, "finding", "outcomes", "rejected", "code"),
        "finding.outcomes.rejected.code: found that of another outcome",
    ),
    (
        having({"0": "COVID-19", "1": "not COVID-19"}, *PRED, "channel_def"),
        "finding.saliency: found opacities with channel 0 of 2",
    ),
]


@pytest.mark.parametrize(("change", "said"), FAULTS, ids=[said[:60] for _, said in FAULTS])
def test_metadata_that_do_not_say_what_the_bundle_finds_are_refused_by_the_entry(
    change: Callable[[dict[str, Any]], None], said: str
) -> None:
    metadata = copy.deepcopy(METADATA)
    change(metadata)
    with pytest.raises(BundleError) as refusal:
        finding.read(metadata)
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("configs/metadata.json", {"version": "1.0.0"}, "name: found None, required: text"),
        (
            "configs/metadata.json",
            {"name": "x" * 65, "version": "1"},
            "required: text of 1 to 64 characters",
        ),
        ("models/decision.json", {"threshold": 0.5}, "indeterminate: found none, required"),
        (
            "models/decision.json",
            {"threshold": 0.5, "temperature": 1, "indeterminate": {"lower": 0.4}},
            "indeterminate.upper: found none, required:",
        ),
    ],
)
def test_a_missing_entry_of_a_file_is_named(
    tmp_path: Path, name: str, content: dict[str, Any], said: str
) -> None:
    folder = second(tmp_path)
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(BundleError) as refusal:
        bundle.identify(Classify(bundle=folder, digest=bundle.digest(folder)))
    assert name in str(refusal.value)
    assert said in str(refusal.value)


def test_all_faults_are_told_at_once() -> None:
    metadata = copy.deepcopy(METADATA)
    for path in (("code",), ("outcomes", "negative", "sentence"), ("population", "views")):
        without("finding", *path)(metadata)
    with pytest.raises(BundleError) as refusal:
        finding.read(metadata)
    assert [line.partition(":")[0] for line in str(refusal.value).splitlines()] == [
        "finding.code",
        "finding.outcomes.negative.sentence",
        "finding.population.views",
    ]


def test_the_shipped_metadata_say_what_the_channels_are_called() -> None:
    classes = METADATA["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert classes[str(FINDING.channel)] == METADATA["finding"]["channel"]
    assert FINDING.key == f"{FINDING.code.scheme}:{FINDING.code.value}"
    assert {FINDING.outcomes.of(one).code.meaning for one in Outcome} == {
        "Present",
        "Absent",
        "Undetermined",
    }


def test_an_identity_survives_the_way_through_the_database() -> None:
    assert finding.from_json(json.loads(json.dumps(finding.to_json(BUNDLE)))) == BUNDLE


def test_check_refuses_a_bundle_without_a_finding_by_the_entry(tmp_path: Path) -> None:
    folder = second(tmp_path)
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["finding"]["outcomes"]["negative"]["sentence"]
    path.write_text(json.dumps(metadata))
    config = tmp_path / "thoracle.toml"
    config.write_text(
        f'data_folder = "{tmp_path / "data"}"\n'
        f'[classify]\nbundle = "{folder}"\ndigest = "{bundle.digest(folder)}"\n'
    )
    said = CliRunner().invoke(app, ["check", "--config", str(config)])
    assert said.exit_code != 0
    assert "finding.outcomes.negative.sentence: found none" in " ".join(said.output.split())


def test_a_second_bundle_is_identified_by_its_own_metadata(tmp_path: Path) -> None:
    folder = second(tmp_path)
    identity = bundle.identify(Classify(bundle=folder, digest=bundle.digest(folder)))
    assert identity.finding.key == "SCT:233604007"
    assert identity.finding.name == "Pneumonia"
    assert (identity.decision.lower, identity.decision.upper) == (0.25, 0.75)
    assert not NAMED.search(repr(identity))


def test_labels_are_words_for_the_finding_of_the_bundle(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("path,label\na.png,pneumonia\nb.png,normal\n")
    assert [one.positive for one in labels.read(path, FINDING).rows] == [False, False]
    assert [one.positive for one in labels.read(path, PNEUMONIA).rows] == [True, False]
    positive, negative = labels.words(FINDING)
    assert {"covid", "covid-19"} <= set(positive)
    assert "pneumonia" in negative


@pytest.mark.parametrize(
    "words", [wording.DISCLAIMER, wording.RESEARCH_USE_ONLY, wording.ON_PICTURES, wording.IN_LISTS]
)
def test_a_disclaimer_stands_once(words: str) -> None:
    package = Path(str(files("thoracle")))
    having = [path for path in package.rglob("*.py") if words in path.read_text(encoding="utf-8")]
    assert having == [package / "wording.py"]


def test_each_kind_of_object_and_of_map_has_its_words() -> None:
    assert wording.KINDS.keys() == set(Kind)
    assert wording.MAPS.keys() == set(SaliencyKind) - {SaliencyKind.NONE}
