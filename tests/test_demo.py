"""`make demo`: what it prints comes true, and the commands that it names work as printed."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import demo
import synthetic

ROOT = Path(__file__).parent.parent


def _label(pixels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    return pixels[-60:, 250:-250]


@pytest.mark.parametrize("made", [synthetic.with_opacities, synthetic.with_clear_lungs])
def test_a_synthetic_radiograph_says_that_it_is(made: object) -> None:
    assert callable(made)
    ds = made()
    assert ds.StudyDescription.startswith("SYNTHETIC: ")
    assert ds.DerivationDescription.startswith("Synthetic: RG1 of pydicom-data, ")
    assert (ds.ImageType[0], ds.BurnedInAnnotation) == ("DERIVED", "YES")
    assert max(len(ds.StudyDescription), len(ds.SeriesDescription)) <= 64
    before = _label((4095 * synthetic.chest()).astype(np.uint16))
    assert (_label(ds.pixel_array) + 1000.0 < before).mean() > 0.05  # dark words on bright


def test_each_study_of_the_demo_is_of_a_patient_of_its_own() -> None:
    found = demo.cases()
    for name in ("study", "accession"):
        assert len({getattr(one, name) for one in found}) == len(found)
    (late,) = (one for one in found if one.late is not None)
    assert late.late is not None
    assert late.late.StudyInstanceUID == late.study
    assert late.late.SOPInstanceUID != late.ds.SOPInstanceUID


@pytest.mark.slow
def test_the_demo_comes_to_its_end_and_its_commands_work() -> None:
    done = subprocess.run(
        [sys.executable, "tests/demo.py", "--end"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for case in demo.cases():
        assert f"  {case.title}\n" in done.stdout
    assert "(expected" not in done.stdout
    assert " replaces ..." in done.stdout
    assert "withdraws" in done.stdout
    commands = re.findall(r"^ {6}(\S+thoracle .*)$", done.stdout, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        subprocess.run(command.split(), cwd=ROOT, check=True, capture_output=True)
