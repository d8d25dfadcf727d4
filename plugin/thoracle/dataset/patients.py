"""Who is on an image: the manifest knows, or the name of the file tells; else nobody does."""

import re

from thoracle.dataset.layout import Entry

_FOREIGN = re.compile(r"^[a-z0-9]+__")  # "source__name", where files of several were put together
_NAMES = (
    re.compile(r"^(\d{8})_\d{3}$"),  # NIH ChestX-ray14: patient_follow-up
    re.compile(r"^((?:normal2-)?im-\d+)-\d+"),  # Kermany, normal: patient-image
    re.compile(r"^(person\d+)_"),  # Kermany, pneumonia
    re.compile(r"^(\d{5})_\d+_\d+$"),  # Eurorad: case_figure_part
    re.compile(r"^(covid-19-pneumonia-\d+)(?![0-9])"),  # Radiopaedia: number of the case
    re.compile(r"^([0-9a-f]{32})-[0-9a-f]{4}-\d+$"),  # SIRM
    re.compile(r"^(.+?)[-_.]?day[-_]?\d+"),  # a series over days
    re.compile(r"^(.+?)[-_](?:pa|ap|l|lat|lateral)$"),  # two views of one visit
)
"""Patterns over the name without its extension, in lower case; group 1 stands for the patient."""


def patient(entry: Entry) -> str:
    """Return a name for the patient, the same on all of a patient's images; nothing if unknown."""
    stated = entry.row.get("patient_id", "").strip()
    return stated or patient_of_name(entry.path.stem)


def patient_of_name(stem: str) -> str:
    """Return what a file's name tells of the patient; nothing when it follows no known pattern."""
    name = _FOREIGN.sub("", stem.lower())
    for pattern in _NAMES:
        match = pattern.match(name)
        if match:
            return f"name:{match[1]}"
    return ""
