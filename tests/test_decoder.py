"""The child process is killed, starved and lied to; the parent carries on."""

import contextlib
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.data import get_testdata_file

from radiographs import gradient, radiograph, saved
from thoracle.errors import NotAnalysable
from thoracle.image import pixels
from thoracle.image.codecs import decode_file
from thoracle.image.decoder import Decoder
from thoracle.records import Reason

DATA = Path(os.environ.get("THORACLE_DATA", Path(__file__).parents[1] / "../shared/data")) / "dicom"


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(memory_megabytes=2048, timeout_seconds=30) as decoder:
        yield decoder


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return saved(radiograph(gradient()), tmp_path / "good.dcm")


def refused(decoder: Decoder, path: Path) -> NotAnalysable:
    with pytest.raises(NotAnalysable) as refusal:
        decoder.decode(path)
    return refusal.value


def ended(pid: int, within_seconds: float = 5) -> bool:
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


COLOUR = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
GREY = [gradient(7, 5).astype(dtype) for dtype in ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4")]


@pytest.mark.parametrize(
    "stored", [COLOUR, *GREY], ids=lambda stored: f"{stored.ndim}D {stored.dtype}"
)
def test_the_child_answers_what_was_stored(
    stored: NDArray[Any], decoder: Decoder, tmp_path: Path
) -> None:
    answer = decoder.decode(saved(radiograph(stored), tmp_path / "a.dcm"))
    assert answer.format == "DICOM"
    assert answer.array.dtype == stored.dtype
    assert np.array_equal(answer.array, stored)


def test_the_child_refuses_for_the_reasons_of_the_codecs(decoder: Decoder, tmp_path: Path) -> None:
    path = saved(radiograph(gradient(), NumberOfFrames=2), tmp_path / "a.dcm")
    error = refused(decoder, path)
    assert (error.reason, error.detail) == (Reason.GEOMETRY, "found 2 frames, required: 1")


def test_one_child_serves_many_files(decoder: Decoder, good: Path) -> None:
    decoder.decode(good)
    pid = decoder.pid
    for _ in range(3):
        decoder.decode(good)
    assert decoder.pid == pid


def test_the_child_keeps_its_memory_from_one_image_to_the_next(
    decoder: Decoder, tmp_path: Path
) -> None:
    path = saved(radiograph(np.zeros((2000, 2000), np.uint16)), tmp_path / "large.dcm")
    decoder.decode(path)
    before = page_faults(decoder)
    decoder.decode(path)
    # An image is 2,000 pages; taking them anew would be half of the work.
    assert page_faults(decoder) - before < 500


def page_faults(decoder: Decoder) -> int:
    return int(Path(f"/proc/{decoder.pid}/stat").read_text().rpartition(")")[2].split()[7])


def test_threads_share_a_decoder(decoder: Decoder, tmp_path: Path) -> None:
    paths = [
        saved(radiograph(np.full((64, 64), value, np.uint16)), tmp_path / f"{value}.dcm")
        for value in range(8)
    ]
    found: dict[int, int] = {}

    def ask(value: int) -> None:
        found[value] = int(decoder.decode(paths[value]).array.max())

    threads = [threading.Thread(target=ask, args=(value,)) for value in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {value: value for value in range(8)}


def test_an_image_beyond_the_memory_limit_costs_only_itself(tmp_path: Path, good: Path) -> None:
    ds = radiograph(gradient(), Rows=20000, Columns=20000)
    del ds.PixelData
    path = saved(ds, tmp_path / "large.dcm")
    length = 20000 * 20000 * 2
    with path.open("ab") as file:  # sparse: 800 MB that take no room on the disk
        file.write(bytes.fromhex("e07f1000") + b"OW\0\0" + struct.pack("<I", length))
        file.truncate(file.tell() + length)
    with Decoder(memory_megabytes=400, timeout_seconds=30) as decoder:
        error = refused(decoder, path)
        assert error.reason is Reason.UNDECODABLE
        assert error.detail == "decoding needs more than the 400 megabytes allowed"
        assert decoder.decode(good).array.shape == (512, 512)


def test_an_image_that_takes_too_long_costs_only_itself(tmp_path: Path, good: Path) -> None:
    os.mkfifo(tmp_path / "endless")  # nobody writes, so opening it takes forever
    with Decoder(memory_megabytes=2048, timeout_seconds=1) as decoder:
        decoder.decode(good)
        pid = decoder.pid
        assert pid is not None
        error = refused(decoder, tmp_path / "endless")
        assert error.reason is Reason.UNDECODABLE
        assert error.detail == "decoding took longer than the 1 seconds allowed"
        assert ended(pid)
        assert decoder.decode(good).array.shape == (512, 512)


def test_an_idle_child_that_was_killed_is_replaced(good: Path) -> None:
    with Decoder(memory_megabytes=2048, timeout_seconds=30) as decoder:
        decoder.decode(good)
        pid = decoder.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert decoder.decode(good).array.shape == (512, 512)
        assert decoder.pid != pid


def kill_reader(decoder: Decoder, fifo: Path) -> None:
    """Kill the child once it reads the pipe."""
    while True:
        with contextlib.suppress(OSError):  # ENXIO as long as nobody reads
            writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            break
        time.sleep(0.01)
    assert decoder.pid is not None
    os.kill(decoder.pid, signal.SIGSEGV)
    assert ended(decoder.pid)
    os.close(writer)


def test_a_death_is_blamed_on_the_image_only_when_the_child_was_fresh(
    tmp_path: Path, good: Path
) -> None:
    os.mkfifo(tmp_path / "endless")
    with Decoder(memory_megabytes=2048, timeout_seconds=30) as decoder:
        decoder.decode(good)

        def kill_twice() -> None:
            kill_reader(decoder, tmp_path / "endless")
            kill_reader(decoder, tmp_path / "endless")

        killer = threading.Thread(target=kill_twice)
        killer.start()
        error = refused(decoder, tmp_path / "endless")
        killer.join()
        assert error.detail == "the decoder died of signal 11 (Segmentation fault)"
        assert decoder.decode(good).array.shape == (512, 512)


def test_the_child_ends_with_the_context(good: Path) -> None:
    with Decoder(memory_megabytes=2048, timeout_seconds=30) as decoder:
        decoder.decode(good)
        pid = decoder.pid
    assert pid is not None
    assert decoder.pid is None
    assert ended(pid)


def test_the_child_ends_when_its_parent_is_killed(good: Path) -> None:
    program = (
        "import sys, pathlib; from thoracle.image.decoder import Decoder\n"
        "decoder = Decoder(2048, 30); decoder.decode(pathlib.Path(sys.argv[1]))\n"
        "print(decoder.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(good)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert ended(pid)


def test_the_child_inherits_neither_secrets_nor_files(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THORACLE_SECRET", "x")
    with (tmp_path / "open").open("w") as file, Decoder(2048, 30) as decoder:
        os.set_inheritable(file.fileno(), True)
        decoder.decode(good)
        process = Path(f"/proc/{decoder.pid}")
        assert b"THORACLE_SECRET" not in (process / "environ").read_bytes()
        targets = [str(entry.readlink()) for entry in (process / "fd").iterdir()]
        assert str(tmp_path / "open") not in targets


LIES = {
    "no JSON": b"\0\0\0\4oops",
    "nested JSON": b"\0\0\x10\0" + b"[" * 4096,
    "no object": b"\0\0\0\2[]",
    "endless header": b"\xff\xff\xff\xff",
    "unknown reason": b'\0\0\0\x1c{"reason":"X","detail":"y"} ',
    "huge array": b'\0\0\0\x3a{"dtype":"<u4","shape":[60000,60000],"format":"DICOM"}    ',
    "object array": b'\0\0\0\x34{"dtype":"|O8","shape":[2,2],"format":"DICOM"}      ',
    "text shape": b'\0\0\0\x34{"dtype":"|u1","shape":["2"],"format":"DICOM"}      ',
    "negative shape": b'\0\0\0\x34{"dtype":"|u1","shape":[-1,2],"format":"DICOM"}     ',
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_child_that_lies_is_not_believed(
    lie: bytes, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impostor = tmp_path / "python"
    (tmp_path / "lie").write_bytes(b"\0\0\0\2{}" + lie)
    impostor.write_text(f"#!/bin/sh\ncat {tmp_path / 'lie'}\nread path\nread path\n")
    impostor.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(impostor))
    with Decoder(memory_megabytes=2048, timeout_seconds=5) as decoder:
        error = refused(decoder, good)
        assert error.detail == "the decoder's answer is malformed"
        assert decoder.pid is None


def test_a_child_that_cannot_start_is_not_blamed_on_the_image(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Decoder(memory_megabytes=2048, timeout_seconds=5) as decoder:
        assert refused(decoder, good).reason is Reason.SOFTWARE_FAILURE


# Odd files are what this is about: pydicom warns of what it finds odd in their headers.
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.skipif(not DATA.is_dir(), reason="THORACLE_DATA has no folder of public DICOM files")
def test_every_public_file_is_read_or_refused(decoder: Decoder) -> None:
    outcomes: Counter[Reason | None] = Counter()
    for path in sorted(DATA.rglob("*.dcm")):
        try:
            array = pixels.read_image(path, decoder).array
        except NotAnalysable as error:
            outcomes[error.reason] += 1
            continue
        outcomes[None] += 1
        assert array.ndim == 3, path.name
        assert array.min() >= 0, path.name
        assert array.max() <= 1, path.name
    assert outcomes[None] > 50
    assert Reason.SOFTWARE_FAILURE not in outcomes


def public_file(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    return Path(path)


def damaged(content: bytes, seed: int) -> bytes:
    """Return the content with some bytes of its compressed pixels changed."""
    random = np.random.default_rng(seed)
    array = np.frombuffer(content, np.uint8).copy()
    start = content.rindex(b"\xff\x4f\xff\x51")  # SOC and SIZ of the JPEG 2000 code stream
    places = random.integers(start + 4, start + 200, 4)
    array[places] = random.integers(0, 256, 4)
    return array.tobytes()


def test_damaged_jpeg_2000_headers_never_kill_the_parent(decoder: Decoder, tmp_path: Path) -> None:
    source = public_file("MR_small_jp2klossless.dcm")
    reasons = set()
    for seed in range(40):
        path = tmp_path / f"{seed}.dcm"
        path.write_bytes(damaged(source.read_bytes(), seed))
        try:
            decoder.decode(path)
        except NotAnalysable as error:
            reasons.add(error.reason)
    assert reasons == {Reason.UNDECODABLE}
    assert np.array_equal(decoder.decode(source).array, decode_file(source).array)


def test_a_file_that_kills_its_codec_costs_only_itself(
    decoder: Decoder, good: Path, tmp_path: Path
) -> None:
    content = bytearray(public_file("MR_small_jpeg_ls_lossless.dcm").read_bytes())
    # 84 bits of precision in the JPEG-LS frame header: a codec of 2026 calls abort() for it.
    content[content.rindex(b"\xff\xd8\xff\xf7") + 6] = 84
    (tmp_path / "a.dcm").write_bytes(content)
    assert refused(decoder, tmp_path / "a.dcm").reason is Reason.UNDECODABLE
    assert decoder.decode(good).array.shape == (512, 512)


def test_a_child_for_which_no_descriptor_is_left_is_a_fault_of_ours(tmp_path: Path) -> None:
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = sum(1 for _ in Path("/proc/self/fd").iterdir())
    with Decoder(memory_megabytes=2048, timeout_seconds=30) as decoder:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, usual[1]))
        try:
            with pytest.raises(NotAnalysable, match="does not start: Too many open files") as error:
                decoder.digest(tmp_path / "image.dcm")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, usual)
    assert error.value.reason is Reason.SOFTWARE_FAILURE
