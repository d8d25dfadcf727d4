"""The documents tell what the code does: pages made from it are compared, examples are run."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from conformance import PARTS
from documents import DOCS, PAGES
from thoracle import errors
from thoracle.cli import app
from thoracle.errors import ThoracleError
from thoracle.report import keyobject


@pytest.mark.parametrize("name", PAGES)
def test_a_page_made_from_the_code_is_up_to_date(name: str) -> None:
    page = (DOCS / name).read_text(encoding="utf-8")
    assert page == PAGES[name](), "run `make docs`"


def test_the_conformance_statement_has_every_part_that_is_made() -> None:
    page = (DOCS / "dicom-conformance.md").read_text(encoding="utf-8")
    marked = re.findall(r"<!-- generated: ([^>]+) -->", page)
    assert sorted(marked) == sorted({*PARTS, "parameters"})
    assert page.count("<!-- end -->") == len(marked)


def test_the_conformance_statement_keeps_the_order_of_the_standard() -> None:
    page = (DOCS / "dicom-conformance.md").read_text(encoding="utf-8")
    chapters = re.findall(r"^## (?:(\d)|Annex ([A-Z]))", page, re.MULTILINE)
    assert ["".join(number) for number in chapters] == [*"12345678", *"ABCDE"]


def test_every_created_class_is_in_the_overview() -> None:
    overview = "\n".join(PARTS["overview"]())
    created = {*keyobject._OUR_IMAGES, *keyobject._OUR_OTHERS}
    assert {uid for uid in created if f"| {uid} | yes |" not in overview} == set()


def test_every_command_has_its_line() -> None:
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    command = get_command(app)
    names = set(command.list_commands(None))  # type: ignore[attr-defined]  # it is a group
    assert {name for name in names if f"thoracle {name}" not in page} <= {"version"}


def test_every_error_stands_in_the_tree() -> None:
    tree = errors.__doc__ or ""
    classes: list[type[ThoracleError]] = [ThoracleError, *below(ThoracleError)]
    ours = {one.__name__ for one in classes if one.__module__ == errors.__name__}
    assert {name for name in ours if name not in tree} == set()


def below(base: type[ThoracleError]) -> list[type[ThoracleError]]:
    children = base.__subclasses__()
    return children + [one for child in children for one in below(child)]


@pytest.mark.parametrize("page", sorted(str(one.relative_to(DOCS)) for one in DOCS.rglob("*.md")))
def test_links_between_pages_lead_somewhere(page: str) -> None:
    path = DOCS / page
    targets = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("page", ["README.md", "SECURITY.md", "CONTRIBUTING.md"])
def test_links_from_the_top_lead_somewhere(page: str) -> None:
    root = Path(__file__).parent.parent
    text = (root / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [target for target in targets if not (root / target).exists()] == []
