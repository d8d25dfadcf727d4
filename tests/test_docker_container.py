"""Thoracle as a container runs it: read only, as process 1 of an unprivileged number.

No Docker engine is asked: namespaces of Linux stand for it. Of the file system, the data folder
and /tmp alone can be written, and there are no capabilities.
"""

import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from pydicom.uid import generate_uid

from browsing import PASSWORD, log_in
from compose_files import DOCKER, OURS, ROOT, SERVICES, copied, last
from ledger import eventually
from pacs import free_port
from peers import require
from radiographs import chest
from sender import send
from test_docker import answers
from thoracle.web.session import credentials

CONTAINER = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/python /mnt/packages /mnt/site /mnt/etc /mnt/data
mount --bind "$PYTHON" /mnt/python
mount --bind "$PACKAGES" /mnt/packages
mount --bind "$SITE" /mnt/site
mount --bind "$ETC" /mnt/etc
mount --bind "$DATA" /mnt/data
for one in / /mnt /mnt/python /mnt/packages /mnt/site /mnt/etc; do
    mount -o remount,bind,ro "$one"
done
mount -t tmpfs -o noexec,nosuid,nodev tmpfs /tmp
cd /mnt/data
exec setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs --inh-caps=-all \\
    --bounding-set=-all env -i $ENVIRONMENT PATH=/usr/bin:/bin \\
    LD_LIBRARY_PATH=/mnt/python/lib PYTHONPATH=/mnt/site:/mnt/packages "$PROGRAM" "$@"
"""
"""What an engine does for compose.yaml, with the wheel in place of the image."""


class Container:
    """The wheel, installed as in the image; runs commands as a container would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site, self.etc, self.data = (folder / name for name in ("site", "etc", "data"))
        source = folder / "source"
        for name in copied("Dockerfile"):  # what the build stage has
            path = ROOT / name
            copy = shutil.copytree if path.is_dir() else shutil.copy
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            copy(path, source / name)
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        wheels = folder / "wheel"
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", wheels, source], check=True)
        (wheel,) = wheels.glob("*.whl")
        subprocess.run([*pip, "install", "--no-deps", "--target", self.site, wheel], check=True)
        self.etc.mkdir()
        self.data.mkdir(mode=0o700)
        os.chown(self.data, OURS, OURS)

    def command(self, *arguments: str) -> list[str]:
        """Return a command line that runs Python as process 1 of a container of its own."""
        return [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("sh", "-c", CONTAINER, "sh", *arguments),
        ]

    @property
    def environment(self) -> dict[str, str]:
        prefix = Path(sys.base_prefix)
        program = Path(sys._base_executable).resolve().relative_to(prefix)  # type: ignore[attr-defined]  # CPython has it
        return {
            "PATH": os.environ["PATH"],
            "ENVIRONMENT": last("Dockerfile", "ENV").partition(" ")[2],  # but for PATH
            "PYTHON": str(prefix),
            "PROGRAM": str(Path("/mnt/python") / program),
            "PACKAGES": sysconfig.get_paths()["purelib"],
            "SITE": str(self.site),
            "ETC": str(self.etc),
            "DATA": str(self.data),
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python to its end."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    @contextmanager
    def running(self, *arguments: str) -> Iterator[int]:
        """Run `thoracle` meanwhile; yield its process id, as seen from outside."""
        log = self.folder / f"{arguments[0]}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                self.command("-m", "thoracle", *arguments),
                env=self.environment,
                stdout=file,
                stderr=file,
            )
        try:
            yield eventually(lambda: children(process.pid), 10)[0]
            assert process.wait(60) == 0
        except BaseException:
            print(log.read_text()[-3000:])
            raise
        finally:
            process.kill()
            process.wait()


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in found]


def descendants(pid: int) -> list[tuple[int, str]]:
    """Return the children of all threads of a process, with their states."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for one in (task / "children").read_text().split():
            state = re.search(r"^State:\t(\w)", Path(f"/proc/{one}/status").read_text(), re.M)
            assert state is not None
            found.append((int(one), state[1]))
    return found


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    require("unshare", "util-linux")
    require("setpriv", "util-linux")
    if os.geteuid() != 0:
        pytest.skip("only root makes such namespaces")
    # Not below pytest's folder, which nobody else may enter.
    with tempfile.TemporaryDirectory(prefix="container-", dir="/var/tmp") as folder:
        yield Container(Path(folder))


def configure(container: Container) -> tuple[int, int]:
    """Write compose's settings with free ports and the folders of here; return the ports."""
    text = (DOCKER / "thoracle.toml").read_text(encoding="utf-8")
    port, web_port = free_port(), free_port()
    for old, new in (
        ("/var/lib/thoracle", "/mnt/data"),
        ("/run/secrets/web_certificate", "/mnt/etc/web_certificate.pem"),
        ("/run/secrets/web_key", "/mnt/etc/web_key.pem"),
        ("port = 11112", f"port = {port}\nreserve_megabytes = 1"),
        ("port = 8443", f"port = {web_port}"),
        ('["ORTHANC", "HEALTH"]', '["SENDER", "HEALTH"]'),
        ('host = "orthanc"', 'host = "127.0.0.1"'),
    ):
        assert old in text
        text = text.replace(old, new)
    (container.etc / "thoracle.toml").write_text(text)
    shutil.copy(DOCKER / "secrets/make.sh", container.etc)
    if not (container.etc / "web_key.pem").exists():
        subprocess.run(["sh", container.etc / "make.sh", "cxr.example"], check=True)
    return port, web_port


def test_the_box_of_these_tests_is_as_closed_as_a_container(container: Container) -> None:
    script = (
        "import os, sys\n"
        "print(os.getpid(), os.getuid(), os.getgid(), os.getgroups())\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        open(path, 'w').close(); print(path, 'written')\n"
        "    except OSError as error:\n"
        "        print(path, error.strerror)\n"
        "print([l for l in open('/proc/self/status') if l.startswith(('CapEff', 'NoNewPrivs'))])\n"
    )
    closed = ("/x", "/etc/x", "/mnt/site/x", "/mnt/etc/x", "/mnt/packages/x")
    found = container.run("-c", script, *closed, "/tmp/x", "/mnt/data/x")
    assert found.stdout.splitlines() == [
        "1 10001 10001 []",
        *(f"{path} Read-only file system" for path in closed),
        "/tmp/x written",
        "/mnt/data/x written",
        "['CapEff:\\t0000000000000000\\n', 'NoNewPrivs:\\t1\\n']",
    ], found.stderr


def test_thoracle_serves_read_only_without_a_name_as_process_1(container: Container) -> None:
    port, web_port = configure(container)
    config = "/mnt/etc/thoracle.toml"
    checked = container.run("-m", "thoracle", "check", "--config", config)
    assert "classify.bundle" in checked.stdout, checked.stderr
    with container.running("serve", "--config", config) as gateway:
        health = [
            "-m",
            "thoracle",
            *json.loads(last("Dockerfile", "HEALTHCHECK").partition("CMD ")[2])[1:],
        ]
        health[3] = health[3].replace(":11112", f":{port}")
        assert health[-1] == "/etc/thoracle/thoracle.toml"
        health[-1] = config
        eventually(lambda: container.run(*health).returncode == 0)
        study = generate_uid()
        assert send(port, chest(StudyInstanceUID=study)).status == 0x0000
        eventually(lambda: read(container, study))
        with container.running("web", "--config", config) as pages:
            url = f"https://localhost:{web_port}"
            eventually(lambda: answers(f"{url}/healthz", verify=False))
            probe = SERVICES["web"]["healthcheck"]["test"][3].replace("8443", str(web_port))
            assert container.run("-c", probe).returncode == 0
            assert picture(container, url, study).startswith(b"\x89PNG")
            os.kill(pages, signal.SIGTERM)
        children = [pid for pid, _ in descendants(gateway)]
        assert len(children) == 2  # one decodes, one builds results
        for child in children:
            os.kill(child, signal.SIGKILL)
        again = generate_uid()
        assert send(port, chest(StudyInstanceUID=again)).status == 0x0000
        eventually(lambda: read(container, again))
        assert [state for _, state in descendants(gateway) if state == "Z"] == []
        began = time.monotonic()
        os.kill(gateway, signal.SIGTERM)
    assert time.monotonic() - began < 30  # compose's stop_grace_period; else it is killed
    assert {path.stat().st_uid for path in container.data.rglob("*")} == {OURS}


def read(container: Container, study: str) -> bool:
    statement = (
        "import sqlite3, sys; "
        "database = sqlite3.connect('/mnt/data/thoracle.sqlite'); "
        "rows = database.execute('SELECT state FROM analysis WHERE study_instance_uid = ?', "
        "sys.argv[1:]); print(rows.fetchall() == [('done',)])"
    )
    return container.run("-c", statement, study).stdout.strip() == "True"


def picture(container: Container, url: str, study: str) -> bytes:
    """Return a picture of a study, which a child process of the pages makes."""
    add = (
        "import sys; from pathlib import Path; from thoracle.store import database\n"
        "from thoracle.accounts import rows as people\n"
        "from thoracle.settings import Settings\n"
        "with database.existing(Settings(data_folder=Path('/mnt/data'))).begin() as connection:\n"
        "    people.add(connection, 'reader', {'display_name': 'Reader', 'roles': ['reader'],\n"
        "        'password_hash': sys.argv[1]})\n"
    )
    added = container.run("-c", add, credentials.hashed_password(PASSWORD))
    assert added.returncode == 0, added.stderr
    with httpx.Client(base_url=url, verify=False, timeout=60) as client:
        assert log_in(client, "reader", PASSWORD).status_code == 303
        found = re.search(r'src="(/study/[^"]+\.png[^"]*)"', client.get(f"/study/{study}").text)
        assert found is not None
        return client.get(html.unescape(found[1])).content
