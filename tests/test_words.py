"""What a person reads is the English of the field: phrases that were edited do not come back."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHOWN = [
    *(ROOT / "plugin/thoracle/web/templates").glob("*.html"),
    *(ROOT / "plugin/thoracle/cli").glob("*.py"),
    *(ROOT / "plugin/thoracle/settings").glob("*.py"),
    *(ROOT / "plugin/thoracle/monitoring").glob("*.py"),
    *(ROOT / "plugin/thoracle/web/pages").glob("*.py"),
    *(ROOT / "docs").rglob("*.md"),
    ROOT / "README.md",
]
EDITED = {
    "More to ask for": "More filters",
    "No event answers": "No matching events",
    "No study is here": "No studies match",
    "Was it right?": "Do you agree?",
    "Is it as it was": "Drift, Log integrity",
    "as if it had come 1 h": "moved up 1 h",
    "no riddle": "is therefore recoverable",
    "without anybody noticing": "in shadow mode",
    "mend the cause": "fix the cause",
    "a device without a name": "an unnamed device",
    "not-judged": "no-result",
    "For so many hours": "Duration in hours",
    "a line an image": "one line per image",
    "the faults beside": "the errors beside",
    "AE titles as they call": "AE titles are case-sensitive",
    "are to mean something": "Prevalence for which",
    "of which the log knows nothing": "which the log does not have",
    "found no right": "found no permission",
    "required is one": "required: one",
}
"""What was written -> what a person finds now."""


@pytest.mark.parametrize("phrase", EDITED)
def test_a_phrase_that_was_edited_does_not_come_back(phrase: str) -> None:
    found = [path.name for path in SHOWN if phrase in path.read_text(encoding="utf-8")]
    assert found == [], f"write {EDITED[phrase]!r}"


def test_the_pages_that_are_looked_through_are_there() -> None:
    assert len([path for path in SHOWN if path.suffix == ".html"]) > 20
    assert len([path for path in SHOWN if path.suffix == ".md"]) > 40
