"""Objects in a bucket or a folder: the same wherever they are, with settings that fit."""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

import processes
from gateway import Gateway
from ledger import eventually
from object_server import ObjectServer
from pacs import free_port
from thoracle.errors import ObjectsAway, SettingsError, ThoracleError
from thoracle.settings import parse
from thoracle.store import objects
from thoracle.store.object_files import Digest, Objects


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    with ObjectServer(tmp_path_factory.mktemp("server")) as running:
        yield running


# ---- the interface -------------------------------------------------------------------------------


@pytest.fixture(params=["folder", "bucket"])
def kept(request: pytest.FixtureRequest, bucket: ObjectServer, tmp_path: Path) -> Objects:
    (tmp_path / "images" / "ab").mkdir(parents=True)
    found = Objects(tmp_path)
    if request.param == "bucket":
        found = bucket.objects(tmp_path, prefix=tmp_path.name)
    return found


def test_an_object_is_the_same_wherever_it_is_kept(kept: Objects, tmp_path: Path) -> None:
    received = tmp_path / "received"
    received.write_bytes(b"head and data set")
    kept.adopt(received, "images/ab/abcd.dcm")
    assert not received.exists()
    tail = (kept.local("images/ab/abcd.dcm"), 8)
    digest = hashlib.sha256(b"other data set").hexdigest()
    assert kept.write("results/12/1.2.dcm", b"other", tail) == digest
    for below, content in (
        ("images/ab/abcd.dcm", b"head and data set"),
        ("results/12/1.2.dcm", b"other data set"),
    ):
        assert kept.exists(below)
        with kept.opened(below) as file:
            assert file.read() == content
        assert kept.local(below).read_bytes() == content
    assert kept.images() == ["images/ab/abcd.dcm"]
    kept.delete("results/12/1.2.dcm")
    kept.delete("results/12/1.2.dcm")
    assert not kept.exists("results/12/1.2.dcm")
    assert not kept.local("results/12/1.2.dcm").exists()
    with pytest.raises(FileNotFoundError):
        kept.opened("results/12/1.2.dcm")


def test_an_object_without_a_row_is_set_aside(kept: Objects, tmp_path: Path) -> None:
    (tmp_path / "received").write_bytes(b"never acknowledged")
    kept.adopt(tmp_path / "received", "images/ab/abcd.dcm")
    before = time.time()
    kept.set_aside(["images/ab/abcd.dcm"])
    assert kept.images() == []
    (orphan,) = kept.orphans()
    assert orphan.name == "abcd.dcm"
    assert abs(orphan.since - before) < 60
    with kept.opened_orphan("abcd.dcm") as file:
        assert file.read() == b"never acknowledged"
    kept.delete_orphan("abcd.dcm")
    assert kept.orphans() == []


@pytest.mark.parametrize("below", ["../secret", "images/../../secret", "/etc/passwd", "audit.pem"])
def test_a_path_of_a_row_leads_nowhere_else(kept: Objects, below: str) -> None:
    for use in (kept.local, kept.opened, kept.exists, kept.delete):
        with pytest.raises(ThoracleError, match=r"found the path .* in a row, required: one in"):
            use(below)


# ---- copies --------------------------------------------------------------------------------------


def test_what_is_fetched_is_whole_and_what_its_row_says(
    bucket: ObjectServer, tmp_path: Path
) -> None:
    kept = bucket.objects(tmp_path, prefix="site/a")
    digest = kept.write("results/12/1.2.dcm", b"a report")
    copy = tmp_path / "results" / "12" / "1.2.dcm"
    copy.unlink()
    assert kept.local("results/12/1.2.dcm", lambda: Digest(digest)).read_bytes() == b"a report"
    copy.unlink()
    bucket.path("results/12/1.2.dcm").write_bytes(b"A report")
    with pytest.raises(ThoracleError, match=rf"was changed: its digest is .*, required: {digest}"):
        kept.local("results/12/1.2.dcm", lambda: Digest(digest))
    assert list(copy.parent.iterdir()) == []
    kept.delete("results/12/1.2.dcm")


def test_what_the_server_does_not_take_leaves_no_file_that_looks_kept(
    bucket: ObjectServer, tmp_path: Path
) -> None:
    kept = bucket.objects(tmp_path, bucket="nowhere")
    (tmp_path / "received").write_bytes(b"x")
    for keep in (
        lambda: kept.write("results/12/1.2.dcm", b"x"),
        lambda: kept.adopt(tmp_path / "received", "images/ab/ab.dcm"),
    ):
        with pytest.raises(ObjectsAway, match="the bucket nowhere: there is no such bucket"):
            keep()
    assert list(tmp_path.rglob("*.dcm")) == []


def test_a_bucket_that_is_gone_is_not_taken_for_an_object_that_is(
    bucket: ObjectServer, tmp_path: Path
) -> None:
    """Else an analysis would end for good: the file is missing."""
    kept = bucket.objects(tmp_path, bucket="elsewhere")
    with pytest.raises(ObjectsAway, match="no such bucket"):
        kept.exists("images/ab/ab.dcm")
    with pytest.raises(ObjectsAway, match="no such bucket"):
        kept.local("images/ab/ab.dcm")


def test_work_waits_while_the_server_is_away(
    bucket: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "AWAY_SECONDS", 0.2)
    kept = bucket.objects(tmp_path)
    bucket.stop()
    step = objects.patient(lambda: kept.write("results/12/1.3.dcm", b"late"))
    worker = threading.Thread(target=step)
    worker.start()
    worker.join(1)
    assert worker.is_alive()
    assert list(tmp_path.rglob("*.dcm")) == []
    bucket.start()
    worker.join(60)
    assert bucket.path("results/12/1.3.dcm").read_bytes() == b"late"
    kept.delete("results/12/1.3.dcm")


# ---- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ({"bucket": "b-1"}, "objects: found a bucket without access_key and secret, required"),
        ({"region": "eu-central-1"}, "objects: found region without a bucket, required"),
        (
            {
                "bucket": "b-1",
                "access_key": "A",
                "secret": "env:S",
                "endpoint": "http://s3.example",
            },
            "found an endpoint with http on another machine",
        ),
        ({"bucket": "Upper_Case"}, "objects.bucket"),
        ({"prefix": "site/"}, "objects.prefix"),
        ({"prefix": "../other"}, "objects.prefix"),
        ({"secret": "tops3cret"}, "objects.secret: found a text that is not shown"),
    ],
)
def test_settings_name_what_is_wrong(table: dict[str, Any], fault: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(fault)) as raised:
        parse({"objects": table})
    assert "tops3cret" not in str(raised.value)


def test_pages_of_another_user_get_no_key_of_a_bucket() -> None:
    table = {"bucket": "b-1", "access_key": "A", "secret": "env:S"}
    with pytest.raises(SettingsError, match=r"objects\.bucket: found one with data_folder_group"):
        parse({"objects": table, "data_folder_group": "radiology"})


def test_check_says_whether_objects_can_be_kept(bucket: ObjectServer, tmp_path: Path) -> None:
    def said(**changes: Any) -> str:
        config = Gateway(tmp_path, objects=bucket.table(**changes)).config
        text = processes.run("check", "--config", str(config)).stdout
        (line,) = (one for one in text.splitlines() if " objects: " in one)
        return line

    assert re.match(r"OK +objects: the bucket radiographs at http://127.0.0.1:\d+: an", said())
    assert bucket.names("probe") == set()
    assert "there is no such bucket" in said(bucket="nowhere")
    wrong = tmp_path / "wrong.secret"
    wrong.write_text("not the secret")
    wrong.chmod(0o600)
    assert "FAULT objects: " in (line := said(secret=f"file:{wrong}"))
    assert "found something else, required: the secret of a key" in line
    wrong.write_text("another-secret-of-a-key")
    assert "found the answer SignatureDoesNotMatch, required: access" in said(
        secret=f"file:{wrong}"
    )
    assert "found the answer InvalidAccessKeyId, required: access" in said(access_key="SOMEBODY")
    wrong.chmod(0o644)
    assert "found permissions 0644" in said(secret=f"file:{wrong}")
    closed = free_port()
    assert "it does not answer" in said(endpoint=f"http://127.0.0.1:{closed}")


def test_a_start_without_access_is_refused_in_one_line(
    bucket: ObjectServer, tmp_path: Path
) -> None:
    config = Gateway(tmp_path, objects=bucket.table(access_key="SOMEBODY")).config
    done = processes.run("serve", "--config", str(config))
    assert done.returncode != 0
    assert "the bucket radiographs: found the answer InvalidAccessKeyId, required" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_certificate_of_the_server_is_verified(tmp_path: Path) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    paths = [tmp_path / name for name in ("ca.pem", "server.pem", "key.pem")]
    authority.cert_pem.write_to_path(str(paths[0]))
    made.cert_chain_pems[0].write_to_path(str(paths[1]))
    made.private_key_pem.write_to_path(str(paths[2]))
    with ObjectServer(tmp_path, paths[1], paths[2]) as secured:
        known = secured.objects(tmp_path / "data", ca_file=str(paths[0]))
        (tmp_path / "data").mkdir()
        eventually(lambda: known.fault() == "")
        assert secured.objects(tmp_path / "data").fault() != ""
        with pytest.raises(SettingsError, match=r"objects\.ca_file: .*required: a PEM file"):
            secured.objects(tmp_path / "data", ca_file=str(tmp_path / "none.pem"))
