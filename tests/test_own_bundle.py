"""docs/your-own-bundle.md is true: its files and commands lead from a bundle to the PACS."""

import re
import subprocess
import sys
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import generate_uid

from documents import DOCS
from ledger import eventually
from pacs import Pacs, free_port
from radiographs import chest, saved
from sender import NotAnswered, send
from test_administrator import run, started
from test_finding import NAMED
from test_second_bundle import texts

PAGE = (DOCS / "your-own-bundle.md").read_text(encoding="utf-8")
FILES = re.findall(r"^`([\w./-]+)`:\n\n```(?:json|toml)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    """Return the blocks of code of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_a_bundle_in_the_layout_of_the_model_zoo_answers_in_the_pacs(tmp_path: Path) -> None:
    (make,) = blocks("python")
    subprocess.run([sys.executable, "-W", "ignore", "-c", make], cwd=tmp_path, check=True)
    for name, content in FILES:
        (tmp_path / name).write_text(content, encoding="utf-8")
    measure, first, serve = blocks("sh")
    digest = run(measure, tmp_path).strip()
    assert len(digest) == 64
    config, port = tmp_path / "thoracle.toml", free_port()
    saved(chest(), tmp_path / "image.dcm")
    with Pacs() as archive:
        text = config.read_text().replace("the 64 digits that the command printed", digest)
        text = text.replace("port = 11112", f"port = {port}\nreserve_megabytes = 1")
        text = text.replace('"192.0.2.10"\nport = 104', f'"127.0.0.1"\nport = {archive.port}')
        text += "[complete]\nquiet_after_release_seconds = 0.5\n"
        config.write_text(text)
        said = run(first, tmp_path)
        assert "FAULT" not in said
        assert "Pneumonia on chest radiographs 1.0.0" in " ".join(said.split())
        assert re.search(r"Pneumonia (positive|negative|indeterminate), probability 0\.\d+", said)
        assert len(list((tmp_path / "results").glob("sr-*.dcm"))) == 1
        with started(serve.strip(), tmp_path) as log:
            study = generate_uid()
            answered(port, chest(StudyInstanceUID=study), log)
            archive.wait_for(1, 180)
            (report,) = [ds for ds in archive.datasets() if ds.Modality == "SR"]
    assert report.StudyInstanceUID == study
    assert report.SeriesDescription == "AI Pneumonia report (research, not verified)"
    content = texts(report)
    assert "233604007" in content
    assert re.search(r"Signs of pneumonia|Result on pneumonia", content)
    assert NAMED.search(content) is None


def answered(port: int, image: Dataset, log: Path) -> None:
    """Send an image as soon as the gateway takes it."""

    def sent() -> bool:
        try:
            return send(port, image).status == 0x0000
        except (OSError, NotAnswered):
            return False

    assert eventually(sent, 90), log.read_text()
