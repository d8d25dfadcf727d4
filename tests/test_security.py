"""The papers about security say what the code does: each test that they name exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from security_pages import FOLDER, KINDS, data, named_tests
from thoracle.store import running

ROOT = Path(__file__).parent.parent
THREATS = data("threats.toml")
HAZARDS = data("hazards.toml")["hazard"]


def test_every_test_that_is_named_exists() -> None:
    """Collected by pytest itself, which refuses a name that it does not find."""
    pages = [path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")]
    written = {one for page in pages for one in re.findall(r"tests/test_\w+\.py::test_\w+", page)}
    names = sorted({*named_tests(THREATS["threat"]), *named_tests(HAZARDS), *written})
    assert len(names) > 200
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    found = subprocess.run(
        [*command, *names], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert found.returncode == 0, found.stdout[-4000:]
    collected = {line.partition("[")[0] for line in found.stdout.splitlines() if "::" in line}
    assert set(names) - collected == set()


@pytest.mark.parametrize("rows", [THREATS["threat"], THREATS["flow"], HAZARDS])
def test_an_id_is_there_once(rows: list[dict[str, str]]) -> None:
    ids = [row["id"] for row in rows]
    assert sorted(ids) == sorted(set(ids))


def test_every_flow_is_drawn_and_has_a_threat() -> None:
    flows = {flow["id"] for flow in THREATS["flow"]}
    assert set(re.findall(r"-- (F\d+) -", THREATS["drawing"])) == flows
    assert {flow for threat in THREATS["threat"] for flow in threat["flows"]} == flows
    assert {threat["kind"] for threat in THREATS["threat"]} == set(KINDS)


def test_a_known_anomaly_that_is_referred_to_is_listed() -> None:
    listed = (FOLDER / "known-anomalies.md").read_text(encoding="utf-8")
    texts = [one["rest"] for one in [*THREATS["threat"], *HAZARDS]]
    named = {one for text in texts for one in re.findall(r"nown anomaly (A\d+)", text)}
    assert {one for one in named if f"| {one} |" not in listed} == set()


def test_a_new_data_folder_is_for_its_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "thoracle"
    with running.hold(folder, "gateway.lock"):
        assert folder.stat().st_mode & 0o777 == 0o700
