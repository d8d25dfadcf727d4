"""Validators of reports and images, each run on one file."""

import atexit
import re
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from peers import require, require_file

PIXELMED = Path("/usr/share/java/pixelmed.jar")
# The stylesheets of the validator pass the limits that Java 17 sets for XPath.
JAVA_OPTIONS = [
    "-Djava.awt.headless=true",
    "-Djdk.xml.xpathExprOpLimit=0",
    "-Djdk.xml.xpathExprGrpLimit=0",
    "-Djdk.xml.xpathTotalOpLimit=0",
    "-Xss64m",
    # A run is too short for the second compiler to pay, and the tests share few cores.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xmx1g",
]
END = "END OF FILE"
"""What our program says when PixelMed has said all about a file."""
ALLOWED = (
    # It looks for the title in a code item beside, where it never is: it is the container's own
    # name. With this title row 3 is required (TID 2010); row 4 has the same concept name.
    *(
        f'CODE CID {cid}: within 1: /CONTAINER (113001,DCM,"Rejected for Quality Reasons"): '
        "Conditional content item present when condition not satisfied"
        for cid in (7011, 7012)
    ),
)


def dciodvfy(path: Path, iod: str = "SR") -> list[str]:
    """Return the errors that dicom3tools finds in the object: module by module, not templates.

    ``iod`` is how the name ends under which it knows the object, e.g. ``SR`` or ``SCImage``.
    """
    program = require("dciodvfy", "dicom3tools")
    lines = _run([program, "-new", str(path)])
    assert any(line.endswith(iod) for line in lines), f"dciodvfy did not know the IOD: {lines}"
    return [line for line in lines if line.startswith("Error") or "rror -" in line]


def pixelmed(path: Path) -> list[str]:
    """Return the errors that PixelMed finds in the content tree, but for those in ALLOWED.

    The first file of a run takes about 15 seconds of processor time, to compile stylesheets; a
    later one 1 to 3.
    """
    lines = _pixelmed_lines(path)
    assert "IOD validation complete" in lines, "\n".join(lines)
    assert "Root Template Validation Complete" in lines, "\n".join(lines)
    errors = [line for line in lines if line.startswith("Error")]
    return [line for line in errors if not line.endswith(ALLOWED)]


def _pixelmed_lines(path: Path) -> list[str]:
    validator = _pixelmed_process()
    assert validator.stdin is not None
    assert validator.stdout is not None
    validator.stdin.write(f"{path}\n")
    validator.stdin.flush()
    lines: list[str] = []
    for line in validator.stdout:
        if line.rstrip() == END:
            return lines
        lines.append(line.rstrip())
    raise AssertionError("\n".join(["the validator ended", *lines]))


@cache
def _pixelmed_process() -> "subprocess.Popen[str]":
    """Return the one process that validates the files of a run."""
    java = require("java", "default-jre-headless")
    jar = require_file(PIXELMED, "libpixelmed-java")
    class_path = f"{jar}:{jar.parent}/*"
    validator = subprocess.Popen(
        [
            java,
            *JAVA_OPTIONS,
            "-cp",
            class_path,
            str(Path(__file__).with_name("PixelMed.java")),
            END,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    atexit.register(validator.communicate)  # it ends where its input does
    return validator


def dcmpschk(path: Path) -> list[str]:
    """Return the errors that dcmtk finds in a presentation state, but for two of its own.

    Its check of values knows no UTF-8 (ISO_IR 192), and no time zone of +0000, which PS3.5 Table
    6.2-1 allows.
    """
    lines = _run([require("dcmpschk", "dcmtk"), "-v", str(path)])
    assert any("Semantic Check of Presentation State" in line for line in lines), "\n".join(lines)
    found = "\n".join(line for line in lines if line.startswith("E:")).split("\nE: \n")
    values = [re.search(r"Attribute value +: \[(.*)\]", error) for error in found]
    return [
        error
        for error, value in zip(found, values, strict=True)
        if error and not (value and (not value[1].isascii() or value[1].endswith("+0000")))
    ]


def dcmp2pgm(image: Path, state: Path, folder: Path) -> NDArray[np.uint8]:
    """Return an image as dcmtk shows it under a presentation state, ``(rows, columns)``."""
    shown = folder / "shown.pgm"
    program = require("dcmp2pgm", "dcmtk")
    subprocess.run([program, "-p", str(state), str(image), str(shown)], timeout=60, check=True)
    return np.asarray(Image.open(shown))


def dsr2html(path: Path) -> str:
    """Return the report as dcmtk shows it to a person, in HTML."""
    program = require("dsr2html", "dcmtk")
    shown = subprocess.run([program, str(path)], capture_output=True, timeout=60, check=True)
    return shown.stdout.decode("utf-8")


def _run(command: list[str]) -> list[str]:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=240,
        check=False,  # the validators end with 1 on warnings too
    )
    return done.stdout.decode("utf-8", errors="replace").splitlines()
