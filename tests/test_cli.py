"""The commands, run as a user runs them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from gateway import Gateway
from orthanc import Orthanc
from pacs import Pacs, free_port
from radiographs import FULL_12_BIT, lungs, radiograph
from thoracle import __version__
from thoracle.cli import app
from thoracle.errors import ThoracleError

RG1 = str(get_testdata_file("RG1_UNCR.dcm", download=False))
RG3 = str(get_testdata_file("RG3_UNCR.dcm", download=False))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "thoracle", *arguments], capture_output=True, text=True
    )


def invoke(*arguments: str) -> tuple[int, str]:
    """Run a command in this process; return exit code and what it said."""
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, ThoracleError):
        return 1, str(result.exception)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize(
    "command", ["--help", "status --help", "echo --help", "version", "--version"]
)
def test_help_imports_nothing_slow(command: str) -> None:
    code = (
        "import sys\nfrom thoracle.cli import app\n"
        f"try:\n    app({command.split()!r})\nexcept SystemExit:\n    pass\n"
        "slow = {'torch', 'monai', 'highdicom', 'pynetdicom', 'dbos'} & set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_question_to_the_audit_imports_neither_torch_nor_monai(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    code = (
        "import sys\nfrom thoracle.store.database import open_database, sqlite_url\n"
        "from pathlib import Path\nfrom thoracle.cli import app\n"
        f"data = Path({str(gateway.data_folder)!r})\ndata.mkdir()\n"
        "open_database(sqlite_url(data)).dispose()\n"
        f"app(['audit', '--config', {str(gateway.config)!r}], standalone_mode=False)\n"
        "slow = {'torch', 'monai', 'highdicom', 'pynetdicom'} & set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_has_each_command_in_a_group() -> None:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    panels: dict[str, set[str]] = {}
    for line in invoke("--help")[1].splitlines():
        if title := re.match(r"╭─ ([A-Z][a-z ]+) ─", line):
            names = panels.setdefault(title[1], set())
        elif command := re.match(r"│ ([a-z][a-z-]*) ", line):
            names.add(command[1])
    assert list(panels) == [
        "Options",
        "Install and run",
        "Monitor",
        "Correct",
        "Retention and privacy",
        "Evaluate",
    ]
    assert set(group.commands) == set.union(*panels.values())
    assert panels["Correct"] == {"withdraw", "reanalyse", "reconcile", "release", "retry"}


def test_the_version_is_an_option_and_a_command() -> None:
    assert invoke("--version") == invoke("version") == (0, f"{__version__}\n")


def test_init_writes_a_configuration_and_never_overwrites_one(tmp_path: Path) -> None:
    path = str(tmp_path / "thoracle.toml")
    assert invoke("init", path)[0] == 0
    code, said = invoke("init", path)
    assert code == 1
    assert "found a file, required: a new name" in said


def test_check_is_content_with_a_good_configuration(tmp_path: Path) -> None:
    with Pacs() as pacs:
        code, said = invoke(
            "check", "--config", str(Gateway(tmp_path, pacs, web={"port": free_port()}).config)
        )
    assert code == 0, said
    assert said.count("OK   ") == 8
    assert "digest" in said


def test_check_names_each_fault(tmp_path: Path) -> None:
    pacs = Pacs()  # not reachable
    gateway = Gateway(
        tmp_path,
        pacs,
        receive={"port": 1, "host": "192.0.2.1", "calling_ae_titles": ["PACS"]},
        classify={"digest": "0" * 64},
    )
    code, said = invoke("check", "--config", str(gateway.config))
    assert code == 1
    for expected in (
        f"required: {'0' * 64}",
        "receive.port: 192.0.2.1:1",
        "destination pacs: C-ECHO: PACS@127.0.0.1",
    ):
        assert expected in said.replace("\n", "")


def test_check_asks_a_web_archive_and_wants_archives_to_be_able_to_report(tmp_path: Path) -> None:
    with Orthanc(tmp_path) as orthanc:
        gateway = Gateway(
            tmp_path,
            orthanc,
            {"name": "web", "url": orthanc.dicomweb},
            {"name": "nowhere", "url": f"http://127.0.0.1:{free_port()}/dicom-web"},
            receive={"calling_ae_titles": ["MODALITY"]},
        )
        code, said = invoke("check", "--config", str(gateway.config))
    said = said.replace("\n", "")
    assert code == 1
    assert "destination web: answers a search by QIDO-RS" in said
    assert "FAULT destination nowhere: " in said
    assert "found ORTHANC not in receive.calling_ae_titles, required: that it may call" in said


def test_a_faulty_configuration_ends_in_one_line_and_exit_code_1(tmp_path: Path) -> None:
    path = tmp_path / "thoracle.toml"
    path.write_text("[receive]\nprot = 104")
    done = run("check", "--config", str(path))
    assert done.returncode == 1
    assert "receive.prot: unknown setting, found 104" in done.stderr
    assert "Traceback" not in done.stderr


def test_analyse_reads_dicom_png_and_jpeg_and_writes_reports(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    grey = (lungs() // 16).astype("uint8")
    Image.fromarray(grey).save(pictures / "a.png")
    Image.fromarray(grey).save(pictures / "b.jpg")
    (pictures / "notes.txt").write_text("no image")
    damaged = tmp_path / "damaged.dcm"
    damaged.write_bytes(b"nothing of the kind")
    out = tmp_path / "out"
    done = run("analyse", RG1, RG3, str(pictures), str(damaged), "--json", "--out", str(out))
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(answer["path"]).name for answer in answers] == [
        "RG1_UNCR.dcm", "RG3_UNCR.dcm", "a.png", "b.jpg", "damaged.dcm",
    ]  # fmt: skip
    chest, hand, png, jpeg, broken = answers
    assert set(chest) >= {
        "path", "sop_instance_uid", "outcome", "reason", "probability", "threshold",
        "bundle_digest", "seconds",
    }  # fmt: skip
    assert chest["outcome"] in ("positive", "negative", "indeterminate")
    assert chest["reason"] is None
    assert hand["reason"] == {
        "code": "NOT-CHEST", "scheme": "99THORACLE", "meaning": "Body part is not the chest",
    }  # fmt: skip
    assert hand["probability"] is None
    assert png["sop_instance_uid"] is None
    assert png["probability"] == pytest.approx(jpeg["probability"], abs=0.1)
    assert broken["reason"]["code"] == "UNDECODABLE"
    reports = [dcmread(path) for path in out.glob("*.dcm")]
    studies = {dcmread(path, stop_before_pixels=True).StudyInstanceUID for path in (RG1, RG3)}
    assert {report.StudyInstanceUID for report in reports} == studies


def test_analyse_of_nothing_says_so() -> None:
    code, said = invoke("analyse", "no-such-file")
    assert code == 1
    assert "found nothing, required: a file or folder" in said


def test_echo_and_send_reach_an_archive(tmp_path: Path) -> None:
    ds = radiograph(lungs(), **FULL_12_BIT)
    ds.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    with Pacs(sop_classes=(ds.SOPClassUID,)) as pacs:
        peer = f"PACS@127.0.0.1:{pacs.port}"
        assert invoke("echo", peer)[0] == 0
        code, said = invoke("send", peer, str(tmp_path))
        assert code == 0, said
        assert list(pacs.kept) == [ds.SOPInstanceUID]
        pacs.status = 0xC000
        code, said = invoke("send", peer, str(tmp_path))
    assert code == 1
    assert "not sent: answered 0xC000" in said


@pytest.mark.parametrize("address", ["PACS", "PACS@host", "host:104", "PACS@host:port", "@h:1"])
def test_a_malformed_address_is_named(address: str) -> None:
    code, said = invoke("echo", address)
    assert code == 1
    assert said == f"found {address!r}, required: AET@HOST:PORT"


def test_an_archive_that_is_away_is_named() -> None:
    code, said = invoke("echo", f"PACS@127.0.0.1:{free_port()}")
    assert code == 1
    assert "not reached" in said


def test_status_without_a_database_says_what_makes_one(tmp_path: Path) -> None:
    code, said = invoke("status", "--config", str(Gateway(tmp_path).config))
    assert code == 1
    assert "required: one that `thoracle serve` made" in said
