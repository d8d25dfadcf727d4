"""docs/one-study.md is true: its code runs, from top to bottom, in one namespace."""

import re
from pathlib import Path

import pytest

from documents import DOCS


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MONAI's, while it loads the network
def test_the_page_one_study_runs(tmp_path: Path) -> None:
    page = (DOCS / "one-study.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 10
    namespace: dict[str, object] = {"folder": tmp_path}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"one-study.md, block {number}", "exec"), namespace)
