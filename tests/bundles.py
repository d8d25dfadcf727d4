"""A second bundle, with the weights of the shipped one: it finds something else, and says so."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

from thoracle.classify import finding
from thoracle.classify.bundle import bundle_folder
from thoracle.settings import Classify

SHIPPED = bundle_folder(Classify())
METADATA: dict[str, Any] = json.loads((SHIPPED / "configs" / "metadata.json").read_text())
"""Of the shipped bundle."""


def _code(value: str, meaning: str, scheme: str = "99SITE") -> dict[str, str]:
    return {"value": value, "scheme": scheme, "meaning": meaning}


SECTION: dict[str, Any] = {
    "channel": "Pneumonia",
    "code": _code("233604007", "Pneumonia", "SCT"),
    "name": "Pneumonia",
    "short_name": "Pneumonia",
    "outcomes": {
        "positive": {"code": _code("SEEN", "Seen"), "sentence": "Signs of pneumonia suspected"},
        "negative": {
            "code": _code("NOT-SEEN", "Not seen"),
            "sentence": "No signs of pneumonia seen",
            "caution": "Early pneumonia may not be visible.",
        },
        "indeterminate": {
            "code": _code("UNSURE", "Unsure"),
            "sentence": "Pneumonia neither seen nor ruled out",
        },
        "rejected": {
            "code": _code("NOT-READ", "Not read"),
            "sentence": "Nothing is said about pneumonia",
        },
    },
    "population": {
        "modalities": ["CR", "DX"],
        "views": ["PA", "AP"],
        "body_part": "CHEST",
        "least_age_years": 16,
    },
    "saliency": "opacities",
}
"""The entry ``finding`` of the second bundle: codes, sentences and least age of its own."""


def metadata() -> dict[str, Any]:
    """Return the metadata of the second bundle, which have no word of the first one's."""
    found = copy.deepcopy(METADATA)
    found |= {
        "name": "Pneumonia finder",
        "version": "3.1.0",
        "changelog": {"3.1.0": "first"},
        "task": "Classification of chest radiographs",
        "description": "A bundle of a test.",
        "data_source": "none",
        "label_classes": "0 no pneumonia, 1 pneumonia",
        "references": [],
        "finding": SECTION,
    }
    pred = found["network_data_format"]["outputs"]["pred"]
    pred["channel_def"] = {"0": "no pneumonia", "1": "Pneumonia"}
    return found


PNEUMONIA = finding.read(metadata())


def second(folder: Path, **decision: float) -> Path:
    """Write the second bundle below a folder and return its own; it has another threshold.

    ``decision`` replaces ``threshold``, ``lower`` and ``upper``.
    """
    made = folder / "pneumonia"
    shutil.copytree(SHIPPED, made, ignore=shutil.ignore_patterns("docs", "scripts", "__pycache__"))
    (made / "docs").mkdir()
    (made / "docs" / "README.md").write_text("# Pneumonia finder\n\nA bundle of a test.\n")
    (made / "configs" / "metadata.json").write_text(json.dumps(metadata(), indent=4))
    wanted = {"threshold": 0.4, "lower": 0.25, "upper": 0.75} | decision
    path = made / "models" / "decision.json"
    rule = json.loads(path.read_text())
    rule.pop("rules", None)
    rule.pop("fitted_on", None)
    rule["threshold"] = wanted["threshold"]
    rule["indeterminate"] = {"lower": wanted["lower"], "upper": wanted["upper"]}
    path.write_text(json.dumps(rule))
    return made
