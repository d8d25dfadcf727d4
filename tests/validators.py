"""Validators of reports and images, each run on one file."""

import subprocess
from pathlib import Path

from peers import require, require_file

PIXELMED = Path("/usr/share/java/pixelmed.jar")
# The stylesheets of the validator pass the limits that Java 17 sets for XPath.
JAVA_OPTIONS = [
    "-Djava.awt.headless=true",
    "-Djdk.xml.xpathExprOpLimit=0",
    "-Djdk.xml.xpathExprGrpLimit=0",
    "-Djdk.xml.xpathTotalOpLimit=0",
    "-Xss64m",
]
ALLOWED = (
    # Context group 100 is extensible, and its own codes say less than "chest". The validator
    # reads it as closed, and refuses even codes that joined the group after 2019.
    'Code (399208008,SCT,"Plain X-ray of chest") not found in context group 100',
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

    It takes about 15 seconds of processor time for each file, most of it to compile stylesheets.
    """
    java = require("java", "default-jre-headless")
    jar = require_file(PIXELMED, "libpixelmed-java")
    class_path = f"{jar}:{jar.parent}/*"
    program = [java, *JAVA_OPTIONS, "-cp", class_path, "com.pixelmed.validate.DicomSRValidator"]
    lines = _run([*program, str(path)])
    assert "IOD validation complete" in lines, "\n".join(lines)
    assert "Root Template Validation Complete" in lines, "\n".join(lines)
    errors = [line for line in lines if line.startswith("Error")]
    return [line for line in errors if not line.endswith(ALLOWED)]


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
