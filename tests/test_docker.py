"""The files of docker/: linted and checked without an engine, and what they promise tried out.

No Docker engine is asked. That Thoracle runs as process 1 of an unprivileged number, without
capabilities and on a file system of which it can write a data folder and /tmp alone, is tried in
namespaces of Linux.
"""

import html
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from compose_spec import PyCompose
from cryptography import x509
from pydicom.uid import generate_uid

from associations import delivered
from browsing import PASSWORD, log_in
from documents import DOCS
from ledger import eventually
from pacs import Pacs, free_port
from peers import require
from radiographs import chest
from sender import send
from thoracle import settings
from thoracle.deliver.association import Peer
from thoracle.web.session import credentials

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
DOCKERFILES = ("Dockerfile", "Dockerfile.gpu", "orthanc.Dockerfile")
COMPOSE = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
OURS = 10001


def instructions(name: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile, continued lines joined."""
    text = (DOCKER / name).read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    pairs = (line.partition(" ") for line in text.splitlines() if line.strip())
    return [(one, " ".join(rest.split())) for one, _, rest in pairs]


def last(name: str, instruction: str) -> str:
    return [rest for one, rest in instructions(name) if one == instruction][-1]


# ---- Dockerfiles --------------------------------------------------------------------------------


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("hadolint")
    return subprocess.run([program, path], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name: str, tmp_path: Path) -> None:
    found = hadolint(DOCKER / name)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")
    worse = tmp_path / "Dockerfile"
    worse.write_text((DOCKER / name).read_text(encoding="utf-8") + "ADD x y\nFROM python\n")
    assert hadolint(worse).returncode != 0


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_pinned_and_runs_as_a_fixed_number_that_is_not_root(name: str) -> None:
    bases = [rest.split()[0] for one, rest in instructions(name) if one == "FROM"]
    assert all(re.search(r":\d+\.\d+(\.\d+)?-[a-z-]+$", base) for base in bases), bases
    user, _, group = last(name, "USER").partition(":")
    assert int(user) == int(group) >= 10001
    for instruction in ("ENTRYPOINT", "CMD"):
        assert isinstance(json.loads(last(name, instruction)), list)  # exec form: no shell is 1
    assert last(name, "STOPSIGNAL") == "SIGTERM"
    assert "CMD [" in last(name, "HEALTHCHECK")
    assert not any(re.search(r"(?i)password|secret|token", rest) for _, rest in instructions(name))
    volume = json.loads(last(name, "VOLUME"))[0]
    assert f"--owner={user} --group={group} --mode=0700 {volume}" in str(instructions(name))


def copied(name: str) -> list[str]:
    return [
        source
        for one, rest in instructions(name)
        if one == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]


@pytest.mark.parametrize("name", DOCKERFILES[:2])
def test_what_is_copied_exists_and_is_not_ignored(name: str) -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    for source in copied(name):
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored
    assert (DOCKER / ".dockerignore").read_text(encoding="utf-8") == "*\n"  # it holds secrets
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert kept == set(copied(name))


def test_the_image_for_gpus_differs_by_its_torch_alone() -> None:
    processor, gpu = (
        (DOCKER / name).read_text(encoding="utf-8").splitlines() for name in DOCKERFILES[:2]
    )
    changed = [line for line in gpu if line not in processor]
    assert len(changed) == 8, changed
    assert sum("cu126" in line for line in gpu) == 1
    labelled = dict(re.findall(r'([\w.]+)="([^"]*)"', last("Dockerfile", "LABEL")))
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert labelled["org.opencontainers.image.version"] == version[1]


# ---- compose.yaml -------------------------------------------------------------------------------


def test_the_compose_file_is_one_by_the_compose_specification() -> None:
    whole = yaml.safe_load(COMPOSE)
    assert set(PyCompose.from_json(json.dumps(whole)).service_names()) == set(SERVICES)
    whole["services"]["web"]["reed_only"] = True
    with pytest.raises(ValueError, match="reed_only"):
        PyCompose.from_json(json.dumps(whole))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_do_no_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "network_mode", "pid", "devices"} & set(service)
    assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
    assert any(one.startswith("/tmp:") and "noexec" in one for one in service["tmpfs"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert all(not volume.startswith((".", "/")) for volume in service["volumes"])
    assert re.search(r":\d+\.\d+", service["image"])
    if "build" not in service:
        assert service["user"] != "0"
        assert "healthcheck" in service
    assert not re.search(
        r"(?i)(password|secret|token): *\w", json.dumps(service.get("environment"))
    )


def test_every_file_that_compose_names_exists_or_is_made() -> None:
    whole = yaml.safe_load(COMPOSE)
    for one in whole["configs"].values():
        assert (DOCKER / one["file"]).is_file(), one
    script = (DOCKER / "secrets/make.sh").read_text(encoding="utf-8")
    ignored = (DOCKER / "secrets/.gitignore").read_text(encoding="utf-8").split()
    for one in whole["secrets"].values():
        assert Path(one["file"]).name in script
    assert ignored == ["*", "!.gitignore", "!make.sh"]
    for service in SERVICES.values():
        for kind in ("configs", "secrets"):
            for used in service.get(kind, []):
                assert (used["source"] if isinstance(used, dict) else used) in whole[kind]
        if "build" in service:
            context = DOCKER / service["build"]["context"]
            assert (context / service["build"]["dockerfile"]).is_file()


def test_two_users_of_compose_share_a_group_and_nothing_else() -> None:
    added = yaml.safe_load((DOCKER / "compose.two-users.yaml").read_text(encoding="utf-8"))
    assert added["services"].keys() <= SERVICES.keys()
    for name, more in added["services"].items():
        whole = yaml.safe_load(COMPOSE)
        whole["services"][name] |= more
        PyCompose.from_json(json.dumps(whole))
    (group,) = added["services"]["thoracle"]["group_add"]
    user, _, of_pages = added["services"]["web"]["user"].partition(":")
    assert group == of_pages
    page = (DOCKER.parent / "docs/two-users.md").read_text(encoding="utf-8")
    assert f'data_folder_group = "{group}"' in page
    assert f"chown {user} docker/secrets/" in page
    built = "".join(path.read_text(encoding="utf-8") for path in DOCKER.glob("*ockerfile*"))
    taken = re.findall(r"--(?:uid|gid|owner|group)[ =](\d+)", built)
    assert {user, group}.isdisjoint(taken)


def test_the_settings_of_compose_are_settings_that_fit_its_network() -> None:
    loaded = settings.load(DOCKER / "thoracle.toml")
    assert str(loaded.data_folder) == "/var/lib/thoracle"
    assert SERVICES["thoracle"]["volumes"] == SERVICES["web"]["volumes"]
    assert SERVICES["web"]["volumes"] == ["thoracle:/var/lib/thoracle"]
    (destination,) = loaded.destination
    archive = json.loads((DOCKER / "orthanc.json").read_text(encoding="utf-8"))
    assert (destination.host, destination.ae_title) == ("orthanc", archive["DicomAet"])
    assert destination.port == archive["DicomPort"]
    assert archive["DicomModalities"]["thoracle"] == [
        loaded.receive.ae_title,
        "thoracle",
        loaded.receive.port,
    ]
    health = last("Dockerfile", "HEALTHCHECK")
    assert f"{loaded.receive.ae_title}@127.0.0.1:{loaded.receive.port}" in health
    called = re.search(r'"--calling", "(\w+)"', health)
    assert called is not None
    assert {called[1], archive["DicomAet"]} == set(loaded.receive.calling_ae_titles)
    assert SERVICES["web"]["ports"] == [f"127.0.0.1:{loaded.web.port}:{loaded.web.port}"]
    for file in (loaded.web.certificate_file, loaded.web.key_file):
        assert file is not None
        assert file.parent == Path("/run/secrets")
        assert file.name in SERVICES["web"]["secrets"]


def test_the_script_makes_secrets_that_only_their_service_reads(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    shutil.copy(DOCKER / "secrets/make.sh", tmp_path)
    subprocess.run(["sh", tmp_path / "make.sh", "cxr.example"], check=True)
    files = {path.name: path.stat() for path in tmp_path.iterdir() if path.name != "make.sh"}
    assert {name: one.st_uid for name, one in files.items()} == {
        "postgresql_password": 999,
        "orthanc.json": 10002,
        "web_certificate.pem": OURS,
        "web_key.pem": OURS,
    }
    assert {one.st_mode & 0o777 for one in files.values()} == {0o400}
    password = (tmp_path / "postgresql_password").read_text()
    archive = json.loads((tmp_path / "orthanc.json").read_text())
    assert archive["PostgreSQL"]["Password"] == password
    assert len(password) == 48
    certificate = x509.load_pem_x509_certificate((tmp_path / "web_certificate.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["cxr.example", "localhost"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "web_certificate.pem", tmp_path / "web_key.pem")
    again = subprocess.run(["sh", tmp_path / "make.sh", "x"], capture_output=True, check=False)
    assert again.returncode == 1


def test_orthanc_routes_with_the_files_of_compose(tmp_path: Path) -> None:
    """All but the index in PostgreSQL, whose plugin is not installed with the tests' Orthanc."""
    values = json.loads((DOCKER / "orthanc.json").read_text(encoding="utf-8"))
    plugins = [Path(one).name for one in values["Plugins"]]
    assert plugins == ["libOrthancDicomWeb.so", "libOrthancPostgreSQLIndex.so"]
    port, http_port = free_port(), free_port()
    folder = tmp_path / "archive"
    folder.mkdir()
    with Pacs("THORACLE", (chest().SOPClassUID,)) as gateway:
        values |= {
            "StorageDirectory": str(tmp_path / "storage"),
            "IndexDirectory": str(tmp_path / "storage"),
            "TemporaryDirectory": str(tmp_path),
            "Plugins": values["Plugins"][:1],
            "LuaScripts": [str(DOCKER / "route.lua")],
            "DicomPort": port,
            "HttpPort": http_port,
            "DicomModalities": {"thoracle": ["THORACLE", "127.0.0.1", gateway.port]},
        }
        (folder / "orthanc.json").write_text(json.dumps(values))
        (folder / "secrets.json").write_text('{"RegisteredUsers": {"administrator": "word"}}')
        with orthanc(folder, http_port, tmp_path / "orthanc.log"):
            source = tmp_path / "image.dcm"
            chest(Modality="CR").save_as(source, enforce_file_format=True)
            delivered(Peer("ORTHANC", "127.0.0.1", port, "ROOM_1", 10), source)
            gateway.wait_for(1, 30)
            url = f"http://127.0.0.1:{http_port}/instances"
            assert httpx.get(url).status_code == 401
            assert len(httpx.get(url, auth=("administrator", "word")).json()) == 1
    script = (DOCKER / "route.lua").read_text(encoding="utf-8")
    assert f"```lua\n{script}```" in (DOCS / "administrator.md").read_text(encoding="utf-8")


@contextmanager
def orthanc(folder: Path, http_port: int, log: Path) -> Iterator[None]:
    program = require("Orthanc", "orthanc")
    with log.open("wb") as file:
        process = subprocess.Popen([program, folder], stdout=file, stderr=file)
    try:
        eventually(lambda: answers(f"http://127.0.0.1:{http_port}/system"))
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def answers(url: str, **options: Any) -> bool:
    try:
        return httpx.get(url, timeout=5, **options).status_code < 500
    except httpx.TransportError:
        return False


# ---- Read only, without a name, as process 1 ----------------------------------------------------

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
