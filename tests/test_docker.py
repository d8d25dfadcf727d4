"""The files of docker/: linted and checked without an engine, and what they promise tried out."""

import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from compose_spec import PyCompose
from cryptography import x509

from associations import delivered
from compose_files import (
    COMPOSE,
    DOCKER,
    DOCKERFILES,
    OURS,
    ROOT,
    SERVICES,
    copied,
    instructions,
    last,
)
from documents import DOCS
from ledger import eventually
from pacs import Pacs, free_port
from peers import require
from radiographs import chest
from thoracle import settings
from thoracle.deliver.association import Peer

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
