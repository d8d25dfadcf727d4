"""What is installed is what is in the tree."""

import re
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
    required = [*PROJECT["project"]["dependencies"], *(one for group in groups for one in group)]
    names = {normal(re.split(r"[\[<>=~ ]", one)[0]) for one in required}
    assert names <= pinned, names - pinned


def normal(name: str) -> str:
    """Return a distribution's name in its normal form."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_version_is_said_once_for_all() -> None:
    from thoracle import __version__

    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert PROJECT["project"]["version"] == __version__
    assert f"## {__version__} " in changelog
