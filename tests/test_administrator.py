"""What the pages for administrators tell to do, done: first day, monitor, units, backup."""

import hashlib
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from sqlite3 import connect
from typing import Any

import httpx
import pytest
from pydicom.uid import generate_uid

from browsing import Site
from certificates import DAY, NOW, Authority
from documents import DOCS
from gateway import Gateway
from ledger import concluded, eventually, rows
from pacs import Pacs, free_port
from peers import require
from radiographs import chest, saved
from sender import send
from thoracle import settings

PAGES = ("installation.md", "administrator.md", "backup.md")
PAGE = "".join((DOCS / name).read_text(encoding="utf-8") for name in PAGES)
UNITS = sorted((DOCS.parent / "docker/systemd").glob("*.service"))


def blocks(heading: str, language: str) -> list[str]:
    """Return the blocks of code of a language in a section."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", section, re.MULTILINE | re.DOTALL)
    return [re.sub(r"^ +", "", block, flags=re.MULTILINE) for block in found]


# ---- The first day ------------------------------------------------------------------------------


def test_the_first_day_goes_as_written(tmp_path: Path) -> None:
    init, check, talk, pages = blocks("The first day", "sh")
    (destination_,) = blocks("The first day", "toml")
    port, web_port = free_port(), free_port()
    with Pacs() as archive:

        def here(text: str) -> str:
            text = text.replace("192.0.2.10:11112", f"127.0.0.1:{archive.port}")
            text = text.replace('"192.0.2.10"\nport = 11112', f'"127.0.0.1"\nport = {archive.port}')
            return text.replace("127.0.0.1:11112", f"127.0.0.1:{port}")

        faults = [one for one in run(init, tmp_path, check=False).splitlines() if "FAULT" in one]
        assert len(faults) == 1
        assert "destination: none configured" in faults[0]
        config = tmp_path / "thoracle.toml"
        text = config.read_text(encoding="utf-8")
        for old, new in ((11112, port), (8080, web_port)):
            assert f"\n# port = {old}\n" in text
            text = text.replace(f"\n# port = {old}\n", f"\nport = {new}\n", 1)
        text = text.replace("# reserve_megabytes = 1024", "reserve_megabytes = 1")
        config.write_text(text + here(destination_), encoding="utf-8")
        checked, serve = check.splitlines()
        assert "FAULT" not in run(checked, tmp_path)
        image = saved(chest(), tmp_path / "image.dcm")
        assert image.exists()
        with started(serve, tmp_path):
            echo, *others = here(talk).splitlines()
            eventually(lambda: "answers" in run(echo, tmp_path, check=False))
            said = "".join(run(one, tmp_path) for one in others)
            assert f"PACS@127.0.0.1:{archive.port} answers" in said
            assert "sent" in said
            archive.wait_for(1, 120)
            with started(pages, tmp_path) as log:
                eventually(lambda: "/first-run" in log.read_text())
                found = re.search(r"http://\S+", log.read_text())
                assert found is not None
                assert httpx.get(found[0]).status_code == 200


def run(script: str, folder: Path, *, check: bool = True) -> str:
    answer = outcome(script, folder)
    assert not check or answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@contextmanager
def started(command: str, folder: Path) -> Iterator[Path]:
    """Run a command meanwhile; yield what it writes, and see that it ends well."""
    program, *arguments = command.split()
    log = folder / f"{arguments[0]}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [Path(sys.executable).with_name(program), *arguments],
            cwd=folder,
            stdout=file,
            stderr=file,
        )
    try:
        yield log
        process.send_signal(signal.SIGTERM)
        # uvicorn drains, and then lets the signal end the process: clean for systemd, too.
        assert process.wait(60) in (0, -signal.SIGTERM), log.read_text()
    finally:
        process.kill()
        process.wait()


# ---- Watch ---------------------------------------------------------------------------------------


class Secured(Gateway):
    """A gateway with TLS, of which nobody in the test has another key."""

    def answers(self) -> bool:
        return "answers" in self.try_echo()

    def try_echo(self) -> str:
        address = f"THORACLE@127.0.0.1:{self.port}"
        return run(f"thoracle echo {address} --config {self.config}", self.folder, check=False)


def test_the_monitor_and_the_daily_check_go_as_written_with_tls(tmp_path: Path) -> None:
    require("curl", "curl")
    minute, day = blocks("Watch", "sh")
    ca = Authority(tmp_path)
    ours = ca.issue("ours")
    files = {"certificate_file": str(ours.certificate_file), "key_file": str(ours.key_file)}
    secured = {f"tls.{name}": path for name, path in files.items()}
    with Pacs() as archive:
        gateway = Secured(
            tmp_path,
            archive,
            receive={
                **secured,
                "tls.client_ca_file": str(ca.ca_file),
                "calling_ae_titles": [archive.ae_title, "MONITOR"],
            },
            web={"port": free_port(), **files},
        )

        def here(text: str) -> str:
            text = text.replace("/etc/thoracle/thoracle.toml", str(gateway.config))
            text = text.replace("/etc/thoracle/ca.pem", str(ca.ca_file))
            return text.replace(":8443", f":{web_port}").replace(":2762", f":{gateway.port}")

        config = gateway.config
        web_port = settings.load(config).web.port
        pages = Site(tmp_path, config=config, verify=ssl.create_default_context(cafile=ca.ca_file))
        with gateway, pages:
            assert "answers" in run(here(minute), tmp_path)
            said = run(here(day), tmp_path)
            assert said.count("is in use by the running service") == 2
            assert re.findall(r"^(?:WARN|FAULT).*", said, re.MULTILINE) == []
            # What is about to go wrong, or has: the same commands say so.
            soon = ca.issue("soon", not_after=NOW + 10 * DAY)
            config.write_text(
                config.read_text().replace(
                    f'tls.certificate_file = "{ours.certificate_file}"\n'
                    f'tls.key_file = "{ours.key_file}"',
                    f'tls.certificate_file = "{soon.certificate_file}"\n'
                    f'tls.key_file = "{soon.key_file}"',
                )
            )
            found = outcome(here(day), tmp_path)
            assert found.returncode == 1
            (warned,) = re.findall(r"^WARN.*", found.stdout, re.MULTILINE)
            assert "renew it" in warned
            assert outcome(here(day).replace(" --strict", ""), tmp_path).returncode == 0
        for line in here(minute).splitlines():
            assert outcome(line, tmp_path).returncode != 0
    assert "FAULT destination pacs" in run(here(day), tmp_path, check=False)


def outcome(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=folder,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


# ---- Units --------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_no_fault_in_a_unit_and_little_that_it_can_reach(
    unit: Path, tmp_path: Path
) -> None:
    program = require("systemd-analyze", "systemd")
    text = unit.read_text(encoding="utf-8")
    assert "ExecStart=/opt/thoracle/bin/thoracle " in text
    copy = tmp_path / unit.name
    thoracle = Path(sys.executable).with_name("thoracle")
    copy.write_text(text.replace("/opt/thoracle/bin/thoracle", str(thoracle)))
    for other in UNITS:
        if other.name != unit.name:
            shutil.copy(other, tmp_path)
    found = subprocess.run([program, "verify", copy], capture_output=True, text=True, check=False)
    faults = [line for line in found.stderr.splitlines() if unit.name in line]
    assert faults == []
    broken = tmp_path / "broken.service"
    broken.write_text(copy.read_text().replace("Restart=always", "Restart=often"))
    worse = subprocess.run([program, "verify", broken], capture_output=True, text=True, check=False)
    assert "often" in worse.stderr
    # In tenths of systemd's own measure, in which a unit without any of it has 9.6.
    security: list[str | Path] = [program, "security", "--offline=true", "--threshold=20", copy]
    answer = subprocess.run(security, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout


def test_systemd_finds_no_fault_in_the_units_of_two_users(tmp_path: Path) -> None:
    program = require("systemd-analyze", "systemd")
    thoracle = str(Path(sys.executable).with_name("thoracle"))
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/opt/thoracle/bin/thoracle", thoracle)
        (tmp_path / unit.name).write_text(text)
    shutil.copytree(UNITS[0].parent / "two-users", tmp_path, dirs_exist_ok=True)
    for unit in UNITS:
        command: list[str | Path] = [program, "verify", tmp_path / unit.name]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        assert [one for one in found.stderr.splitlines() if "two-users" in one] == []
        (added,) = (tmp_path / f"{unit.name}.d").iterdir()
        added.write_text(added.read_text().replace("UMask=0", "UMask=x"))
        worse = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "two-users.conf" in worse.stderr


# ---- Backup and restore -------------------------------------------------------------------------


def test_a_backup_made_while_studies_arrive_starts_and_serves(tmp_path: Path) -> None:
    """The archive is away at first, so that there is something to be sent after the restore."""
    archive = Pacs()
    for name in ("origin", "copy"):
        (tmp_path / name).mkdir()
    origin = Gateway(tmp_path / "origin", archive)
    backup = tmp_path / "backup"
    with origin:
        first = str(generate_uid())
        assert send(origin.port, chest(StudyInstanceUID=first)).status == 0x0000
        concluded(origin, first)
        with arriving(origin) as studies:
            eventually(lambda: len(studies) >= 3)
            back_up(origin.data_folder, backup)
            eventually(lambda: len(studies) >= 6)
        eventually(lambda: first_delivery(origin, first)["attempts"] >= 1)
        origin.kill()
    shutil.rmtree(origin.data_folder)

    copy = Gateway(tmp_path / "copy", archive)
    shutil.copytree(backup, copy.data_folder)
    copy.data_folder.chmod(0o700)
    whole(copy)
    known = {row["study_instance_uid"] for row in rows(copy, "SELECT * FROM study")}
    assert first in known
    assert len(known) >= 3
    with archive, copy:
        for study in known:
            eventually(lambda study=study: first_delivery(copy, study)["state"] == "delivered", 120)  # type: ignore[misc]  # bound
        fresh = str(generate_uid())
        assert send(copy.port, chest(StudyInstanceUID=fresh)).status == 0x0000
        eventually(lambda: len(archive.reports_on(fresh)) >= 1)
        assert {"instance stored", "result created"} <= {
            row["event"] for row in copy.events(study=first)
        }


def back_up(data_folder: Path, to: Path) -> None:
    """Do as the page says, with the folders of here."""
    (script,) = blocks("Back up and restore", "bash")
    for old, new in (
        ("/var/lib/thoracle", str(data_folder)),
        ("/opt/thoracle/bin/python", sys.executable),
        ("/backup/", f"{to}/"),
    ):
        assert old in script
        script = script.replace(old, new)
    to.mkdir()
    (data_folder / "messages").mkdir(exist_ok=True)
    subprocess.run(["bash", "-e", "-c", script], check=True)


@contextmanager
def arriving(gateway: Gateway) -> Iterator[list[str]]:
    """Have studies sent meanwhile; yield the UIDs of those that were stored."""
    studies: list[str] = []
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            study = str(generate_uid())
            if send(gateway.port, chest(StudyInstanceUID=study)).status == 0x0000:
                studies.append(study)
            time.sleep(0.2)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield studies
    finally:
        ended.set()
        thread.join()


def first_delivery(gateway: Gateway, study: str) -> dict[str, Any]:
    statement = (
        "SELECT outbox.* FROM outbox JOIN result USING (sop_instance_uid) "
        "WHERE study_instance_uid = ? AND result.kind = 'sr' ORDER BY generation"
    )
    found = rows(gateway, statement, study)
    return found[0] if found else {"state": None, "attempts": 0}


def whole(gateway: Gateway) -> None:
    """Find the database sound, and every file that it names, with its content."""
    with closing(connect(gateway.data_folder / "thoracle.sqlite")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    for row in rows(gateway, "SELECT path, size FROM instance"):
        assert (gateway.data_folder / row["path"]).stat().st_size > row["size"]
    for row in rows(gateway, "SELECT path, sha256 FROM result"):
        content = (gateway.data_folder / row["path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row["sha256"]
