"""The threat model and the hazard table, made of data: each control with its tests."""

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "docs" / "security"
MADE = "<!-- Made by `make docs` from {}: do not edit. -->"
KINDS = (
    "spoofing",
    "tampering",
    "repudiation",
    "information disclosure",
    "denial of service",
    "elevation of privilege",
)
ABOUT_THREATS = """\
STRIDE over the flows of data: each threat with its control, the tests that prove it, and what
remains. `make security-test` runs these tests. The developers made it; nobody else has reviewed it.
"""
ABOUT_FLOWS = """\
A boundary of trust is crossed wherever an arrow enters or leaves the machine, and by F12: children
work on bytes of strangers.
"""
ABOUT_HAZARDS = """\
In the manner of ISO 14971: what could harm a patient, by which events, what is done against it, and
what remains. Thoracle is research software and no medical device, and this is no risk management
file. Severity is that of the harm. How probable it is, and whether what remains is acceptable, each
site judges for its own use.
"""

Row = dict[str, Any]


def data(name: str) -> Row:
    """Return a file of docs/security/ as data."""
    return tomllib.loads((FOLDER / name).read_text(encoding="utf-8"))


def named_tests(rows: list[Row]) -> list[str]:
    """Return the tests that rows name, each once."""
    return sorted({test for row in rows for test in row["tests"]})


def threat_model() -> str:
    """Return docs/security/threat-model.md."""
    found = data("threats.toml")
    lines = ["# Threat model", "", MADE.format("threats.toml"), "", ABOUT_THREATS]
    lines += [summary(found["threat"], "threats"), ""]
    lines += ["```mermaid", found["drawing"].strip(), "```", "", ABOUT_FLOWS]
    lines += ["| flow | | between | protocol | data |", "|---|---|---|---|---|"]
    lines += [
        f"| {one['id']} | {one['name']} | {one['between']} | {one['protocol']} | {one['data']} |"
        for one in found["flow"]
    ]
    for kind in KINDS:
        lines += ["", f"## {kind.capitalize()}", ""]
        lines += table(one for one in found["threat"] if one["kind"] == kind)
    return "\n".join([*lines, ""])


def table(threats: Iterator[Row]) -> Iterator[str]:
    """Yield the table of some threats."""
    yield "| | flows | threat | control | proved by | what remains |"
    yield "|---|---|---|---|---|---|"
    for one in threats:
        cells = [one["id"], ", ".join(one["flows"]), one["threat"], one["control"], proof(one)]
        yield f"| {' | '.join([*cells, one['rest'] or '-'])} |"


def hazards() -> str:
    """Return docs/security/hazards.md."""
    found = data("hazards.toml")["hazard"]
    lines = ["# Hazards", "", MADE.format("hazards.toml"), "", ABOUT_HAZARDS]
    lines += [summary(found, "hazards"), ""]
    lines += ["| | hazard | cause | harm | severity | control | proved by | what remains |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for one in found:
        cells = [one[key] for key in ("id", "name", "cause", "harm", "severity", "control")]
        lines += [f"| {' | '.join([*cells, proof(one), one['rest'] or '-'])} |"]
    return "\n".join([*lines, ""])


def summary(rows: list[Row], what: str) -> str:
    """Return how many rows there are, and which have no test."""
    without = ", ".join(row["id"] for row in rows if not row["tests"]) or "none"
    tests = len(named_tests(rows))
    return f"{len(rows)} {what}, {tests} tests. Without a test that proves a control: {without}."


def proof(row: Row) -> str:
    """Return the tests of a row as a cell: a link to the file, and the name in words."""
    cells = []
    for test in row["tests"]:
        path, _, name = test.partition("::")
        words = name.removeprefix("test_").replace("_", " ")
        cells.append(f"[{Path(path).stem}](../../{path}): {words}")
    return "<br>".join(cells) or "**no test**"


PAGES = {"security/threat-model.md": threat_model, "security/hazards.md": hazards}

if __name__ == "__main__":  # `make security-test`
    tests = named_tests(data("threats.toml")["threat"])
    command = [sys.executable, "-m", "pytest", *sys.argv[1:], *tests]
    sys.exit(subprocess.run(command, check=False).returncode)
