"""STOW-RS and QIDO-RS: Orthanc's DICOMweb, and a server for what Orthanc does not answer."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import generate_uid

from dicomweb_server import Answer, Server, Stored, all_uids, matches, response, stored_report
from orthanc import Orthanc
from thoracle.deliver.stowrs import WebPeer, found, reachable, store
from thoracle.errors import ArchiveRefused, ArchiveUnavailable


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return stored_report(tmp_path)


# ---- Orthanc -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


def test_orthanc_takes_the_file_byte_for_byte_and_finds_it(
    orthanc: Orthanc, stored: Stored
) -> None:
    peer = WebPeer(orthanc.dicomweb, 10)
    before = set(orthanc.instances())
    assert stored.found(peer) == set()
    assert store(peer, stored.path) == stored.receipt("200")
    (identifier,) = set(orthanc.instances()) - before
    assert orthanc.get(f"/instances/{identifier}/file") == stored.path.read_bytes()
    assert stored.found(peer, generate_uid()) == {stored.uid}
    assert found(peer, generate_uid(), stored.ds.SeriesInstanceUID, [stored.uid]) == set()
    assert found(peer, stored.ds.StudyInstanceUID, generate_uid(), [stored.uid]) == set()


def test_orthanc_takes_it_again_and_keeps_one(orthanc: Orthanc, stored: Stored) -> None:
    peer = WebPeer(f"{orthanc.dicomweb}/", 10)
    assert [store(peer, stored.path), store(peer, stored.path)] == 2 * [stored.receipt("200")]
    assert orthanc.sop_instance_uids().count(stored.uid) == 1


def test_orthanc_can_be_reached_and_a_wrong_root_is_no_archive(orthanc: Orthanc) -> None:
    assert reachable(WebPeer(orthanc.dicomweb, 10))
    assert not reachable(WebPeer(f"{orthanc.dicomweb}/elsewhere", 10))


def test_a_killed_orthanc_is_unavailable_until_it_is_back(tmp_path: Path, stored: Stored) -> None:
    with Orthanc(tmp_path) as mortal:
        peer = WebPeer(mortal.dicomweb, 10)
        mortal.kill()
        with pytest.raises(ArchiveUnavailable, match=r"not reached: .*refused"):
            store(peer, stored.path)
        mortal.start()
        assert store(peer, stored.path) == stored.receipt("200")


def test_orthanc_asks_for_a_password_which_is_read_from_file_or_environment(
    tmp_path: Path, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("pass:wörd\n")
    wrong.write_text("other")
    monkeypatch.setenv("ARCHIVE_PASSWORD", "pass:wörd")
    with Orthanc(tmp_path, users={"gateway": "pass:wörd"}) as guarded:
        url = guarded.dicomweb
        for peer in (WebPeer(url, 10), WebPeer(url, 10, None, "gateway", f"file:{wrong}")):
            with pytest.raises(ArchiveUnavailable, match=r"401: it does not accept our cred"):
                store(peer, stored.path)
            with pytest.raises(ArchiveUnavailable, match=r"401: it does not accept our cred"):
                reachable(peer)
        for place in (f"file:{right}", "env:ARCHIVE_PASSWORD"):
            peer = WebPeer(url, 10, None, "gateway", place)
            assert store(peer, stored.path) == stored.receipt("200")


# ---- A server for the rest ---------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


OTHER = "2.25.99"


@pytest.mark.parametrize(
    ("status", "where", "code", "text"),
    [
        (200, "stored", None, "200"),
        (202, "stored", 0xB000, "202 0xB000"),  # coercion of data elements
        (202, "stored", 0xB007, "202 0xB007"),  # does not match SOP Class
        (409, "failed", 0x0111, "409 0x0111"),  # duplicate: our bytes are always the same
    ],
)
def test_what_the_archive_says_it_has_gets_a_receipt(
    server: Server, stored: Stored, status: int, where: str, code: int | None, text: str
) -> None:
    said: dict[str, Any] = (
        {"stored": (stored.uid, OTHER), "warning": code}
        if where == "stored"
        else {"failed": {OTHER: 0x0110, stored.uid: code}}
    )
    server.answers["POST"] = response(status, **said)
    assert store(WebPeer(server.url, 5), stored.path) == stored.receipt(text)


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (409, 0xA700, ArchiveUnavailable),  # out of resources
        (409, 0x0213, ArchiveUnavailable),  # resource limitation
        (202, 0xA7FF, ArchiveUnavailable),
        (409, 0x0110, ArchiveUnavailable),  # processing failure, as by C-STORE
        (409, 0x0124, ArchiveUnavailable),  # not authorized, as 401 and 403
        (409, 0x0122, ArchiveRefused),  # SOP Class not supported
        (409, 0xA900, ArchiveRefused),  # does not match SOP Class
        (409, 0xC122, ArchiveRefused),  # transfer syntax not supported
        (202, 0xC000, ArchiveRefused),  # cannot understand
    ],
)
def test_a_failure_of_the_instance_says_whether_sending_again_helps(
    server: Server, stored: Stored, status: int, reason: int, error: type[Exception]
) -> None:
    # An archive that names it both ways has not stored it.
    server.answers["POST"] = response(status, (stored.uid,), {stored.uid: reason})
    with pytest.raises(error, match=f"127.0.0.1:{server.port} answered {status} 0x{reason:04X}"):
        store(WebPeer(server.url, 5), stored.path)


@pytest.mark.parametrize("status", [400, 404, 405, 409, 410, 413, 415])
def test_another_refusal_is_final(server: Server, stored: Stored, status: int) -> None:
    server.answers["POST"] = Answer(status, b"no")
    with pytest.raises(ArchiveRefused, match=f"answered {status}"):
        store(WebPeer(server.url, 5), stored.path)


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 502, 503, 507])
def test_what_the_operator_or_time_may_heal_is_tried_again_later_and_not_at_once(
    server: Server, stored: Stored, status: int
) -> None:
    server.answers["POST"] = Answer(status, headers={"Retry-After": "0"})
    with pytest.raises(ArchiveUnavailable, match=f"answered {status}"):
        store(WebPeer(server.url, 5), stored.path)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>Sign in</html>", b"[]", b"7", b'{"00081199": {"vr": "UI", "Value": ["x"]}}'],
    ids=["empty", "html", "no module", "number", "no sequence"],
)
def test_success_that_does_not_name_the_object_is_no_receipt(
    server: Server, stored: Stored, body: bytes
) -> None:
    server.answers["POST"] = Answer(200, body, {"Content-Type": "text/html"})
    with pytest.raises(ArchiveUnavailable, match="answered 200 without naming the object"):
        store(WebPeer(server.url, 5), stored.path)
    server.answers["POST"] = response(200, (OTHER,))
    with pytest.raises(ArchiveUnavailable, match="answered 200 without naming the object"):
        store(WebPeer(server.url, 5), stored.path)


@pytest.mark.parametrize(
    ("answer", "text"),
    [(Answer(200), "200"), (Answer(409, b"exists"), "409"), (None, "409 0xB00E")],
    ids=["200 without a body", "409 without a body", "409 with a reason of its own"],
)
def test_what_a_search_finds_after_an_unclear_answer_has_been_stored(
    server: Server, stored: Stored, answer: Answer | None, text: str
) -> None:
    server.answers["POST"] = answer or response(409, failed={stored.uid: 0xB00E})
    server.answers["GET"] = matches(all_uids(stored.ds))
    receipt = store(WebPeer(server.url, 5), stored.path)
    assert receipt == stored.receipt(f"{text}, found by query")


def test_one_part_is_posted_with_the_bytes_of_the_file(server: Server, stored: Stored) -> None:
    server.answers["POST"] = response(200, (stored.uid,))
    store(WebPeer(server.url, 5), stored.path)
    (request,) = server.requests
    media_type, boundary = request.headers["Content-Type"].split("; boundary=")
    assert media_type == 'multipart/related; type="application/dicom"'
    before, part, after = request.body.split(f"--{boundary}".encode())
    assert (before, after) == (b"", b"--\r\n")
    assert part == b"\r\nContent-Type: application/dicom\r\n\r\n%b\r\n" % stored.path.read_bytes()
    assert request.path == "/dicom-web/studies"
    assert request.headers["Accept"] == "application/dicom+json"
    assert request.headers["Host"] == f"127.0.0.1:{server.port}"


def test_silence_ends_with_the_timeout(server: Server, stored: Stored) -> None:
    server.answers["POST"] = Answer(delay=6)
    started = time.monotonic()
    with pytest.raises(ArchiveUnavailable, match="not reached"):
        store(WebPeer(server.url, 0.5), stored.path)
    assert time.monotonic() - started < 5


# ---- Searching ---------------------------------------------------------------------------------


def test_matches_for_what_was_not_asked_are_no_proof(server: Server, stored: Stored) -> None:
    uids = all_uids(stored.ds)
    server.answers["GET"] = matches(
        {**uids, "SOPInstanceUID": OTHER}, {**uids, "StudyInstanceUID": OTHER}, {}
    )
    assert stored.found(WebPeer(server.url, 5)) == set()
    server.answers["GET"] = matches({**uids, "SOPInstanceUID": OTHER}, uids)
    assert stored.found(WebPeer(server.url, 5), "2.25.5") == {stored.uid}
    request = server.requests[-1]
    assert request.path.endswith("/instances?SOPInstanceUID=2.25.5")
    assert request.headers["Host"] == f"127.0.0.1:{server.port}"


def test_no_content_is_no_match(server: Server, stored: Stored) -> None:
    server.answers["GET"] = Answer(204)
    assert stored.found(WebPeer(server.url, 5)) == set()


@pytest.mark.parametrize("status", [404, 405, 501])
def test_an_archive_that_only_stores_gives_no_answer(
    server: Server, stored: Stored, status: int
) -> None:
    server.answers["GET"] = Answer(status)
    assert stored.found(WebPeer(server.url, 5)) is None
    assert reachable(WebPeer(server.url, 5)) is False


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(401), ArchiveUnavailable),
        (Answer(503), ArchiveUnavailable),
        (Answer(200, b"<html>Sign in</html>"), ArchiveUnavailable),
        (Answer(400), ArchiveRefused),
    ],
)
def test_a_search_that_fails_is_no_answer_of_no(
    server: Server, stored: Stored, answer: Answer, error: type[Exception]
) -> None:
    server.answers["GET"] = answer
    peer = WebPeer(server.url, 5)
    with pytest.raises(error):
        stored.found(peer)
    with pytest.raises(error):
        reachable(peer)
    assert len(server.requests) == 2  # one each: nothing is retried
