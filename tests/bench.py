"""`make bench`: speed and memory, beside DCMTK and Orthanc in the same run.

Writes docs/benchmarks.md. Absolute figures belong to the machine; the ratios travel better.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.presentation import build_context

from gateway import AE_TITLE, Gateway
from pacs import Pacs, free_port

OUTPUT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
SIDE = 2000
"""Rows and columns of the images: 8 MB each, as a CR or DX has them."""
TICKS = os.sysconf("SC_CLK_TCK")


# ---- images ----------------------------------------------------------------------------------


def make_images(folder: Path, studies: int, images: int) -> list[list[Path]]:
    """Return the files of each study: a real chest, enlarged, with noise so that no two agree."""
    ds = dcmread(str(get_testdata_file("RG1_UNCR.dcm", download=False)))
    stored = ds.pixel_array
    rows = np.arange(SIDE) * stored.shape[0] // SIDE
    columns = np.arange(SIDE) * stored.shape[1] // SIDE
    chest = stored[rows][:, columns]
    ds.Rows = ds.Columns = SIDE
    random = np.random.default_rng(0)
    return [make_study(folder, ds, chest, random, images) for _ in range(studies)]


def make_study(
    folder: Path, ds: Dataset, chest: np.ndarray, random: np.random.Generator, images: int
) -> list[Path]:
    """Write the images of one study and return their paths."""
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    paths = []
    for _ in range(images):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        noise = random.integers(0, 64, chest.shape, dtype=np.uint16)
        ds.PixelData = np.minimum(chest + noise, 32767).astype(np.uint16).tobytes()
        paths.append(folder / f"{ds.SOPInstanceUID}.dcm")
        ds.save_as(paths[-1])
    return paths


# ---- processes -------------------------------------------------------------------------------


def tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += tree(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """Return processor time of a process and its descendants, reaped ones included."""
    total = 0
    for one in tree(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += sum(int(field) for field in fields[11:15])
    return total / TICKS


def peak_megabytes(pid: int) -> dict[str, int]:
    """Return the largest resident size of a process and of each descendant, MB."""
    peaks = {}
    for one in tree(pid):
        status = Path(f"/proc/{one}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        peaks["gateway" if one == pid else "decoder child"] = int(peak.split()[1]) // 1024
    return peaks


@contextmanager
def running(command: Sequence[str], port: int) -> Iterator[int]:
    """Run a server and give its process id once its port is open."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while subprocess.run(
            ["echoscu", "-aec", AE_TITLE, "127.0.0.1", str(port)], capture_output=True
        ).returncode:
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


# ---- (a) receive -----------------------------------------------------------------------------


@dataclass
class Rate:
    """What receiving cost."""

    peer: str
    associations: int
    cpu_seconds_per_gb: float
    megabytes_per_second: float


def receive(peer: str, pid: int, port: int, shares: Sequence[Sequence[Path]]) -> Rate:
    """Send each share over an association of its own and return what the server needed."""
    size = sum(path.stat().st_size for share in shares for path in share)
    cpu, clock = cpu_seconds(pid), time.perf_counter()
    command = ["storescu", "-aec", AE_TITLE, "--max-pdu", "131072", "127.0.0.1", str(port)]
    senders = [subprocess.Popen([*command, *map(str, share)]) for share in shares]
    codes = [sender.wait() for sender in senders]
    if any(codes):
        raise RuntimeError(f"{peer} refused an image")
    seconds = time.perf_counter() - clock
    cpu = cpu_seconds(pid) - cpu
    return Rate(peer, len(shares), cpu / (size / 1e9), size / 1e6 / seconds)


def receive_all(folder: Path, files: Sequence[Path]) -> tuple[list[Rate], int]:
    """Return the rates of Thoracle, Orthanc and DCMTK for one and four associations.

    And by how many MB Thoracle's memory grows while ten associations send 100 MB each.
    """
    half = len(files) // 2
    one = [files[:half]]
    four = [files[half:][start::4] for start in range(4)]
    rates = []
    quiet = {"quiet_after_release_seconds": 600, "quiet_otherwise_seconds": 600}
    (folder / "receive").mkdir()
    with Gateway(folder / "receive", complete=quiet) as gateway:
        wait_for_log(gateway, "classifier loaded")
        assert gateway.process is not None
        pid = gateway.process.pid
        rates += [receive("Thoracle", pid, gateway.port, shares) for shares in (one, four)]
        before = peak_megabytes(pid)["gateway"]
        receive("Thoracle", pid, gateway.port, [[path] for path in make_large(folder)])
        growth = peak_megabytes(pid)["gateway"] - before
    for peer, command, port in (orthanc(folder), storescp(folder)):
        with running(command, port) as pid:
            rates += [receive(peer, pid, port, shares) for shares in (one, four)]
    return rates, growth


def make_large(folder: Path) -> list[Path]:
    """Return the files of ten images of 100 MB."""
    ds = dcmread(str(get_testdata_file("RG1_UNCR.dcm", download=False)))
    ds.Rows = ds.Columns = 7072
    ds.StudyInstanceUID = generate_uid()
    ds.PixelData = bytes(7072 * 7072 * 2)
    paths = []
    for _ in range(10):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        paths.append(folder / "images" / f"{ds.SOPInstanceUID}.dcm")
        ds.save_as(paths[-1])
    return paths


def orthanc(folder: Path) -> tuple[str, list[str], int]:
    """Return name, command and port of an Orthanc that syncs its files."""
    port, store = free_port(), folder / "orthanc"
    store.mkdir()
    config = folder / "orthanc.json"
    settings = {
        "DicomAet": AE_TITLE,
        "DicomPort": port,
        "HttpServerEnabled": False,
        "StorageDirectory": str(store),
        "IndexDirectory": str(store),
        "DicomAlwaysAllowStore": True,
        "SyncStorageArea": True,
    }
    config.write_text(json.dumps(settings))
    return "Orthanc (file synced)", ["Orthanc", str(config)], port


def storescp(folder: Path) -> tuple[str, list[str], int]:
    """Return name, command and port of DCMTK's storescp."""
    port, store = free_port(), folder / "storescp"
    store.mkdir()
    options = ["--fork", "--max-pdu", "131072", "-aet", AE_TITLE, "-od", str(store)]
    return "DCMTK storescp --fork (no sync)", ["storescp", *options, str(port)], port


def wait_for_log(gateway: Gateway, message: str) -> None:
    """Return when the gateway has logged a message."""
    while message not in gateway.log.read_text():
        time.sleep(0.1)


# ---- (b) end to end and (c) memory -----------------------------------------------------------


@dataclass
class EndToEnd:
    """What whole studies cost."""

    studies: int
    seconds: list[float]
    """From the last C-STORE response of each study to its report's arrival, spaced out."""
    quiet: float
    burst_per_minute: float
    stages: dict[str, float]
    """Mean wall seconds of one image by stage."""
    spans: dict[str, float]
    """Mean seconds between the events of a study, spaced out."""
    cpu_per_study: float
    decoder_cpu_per_study: float
    peaks: dict[str, int]


def end_to_end(folder: Path, studies: Sequence[Sequence[Path]]) -> EndToEnd:
    """Send studies one by one, then the rest at once, and return what came of it."""
    quiet = 1.0
    (folder / "line").mkdir()
    half = len(studies) // 2
    with (
        Pacs() as pacs,
        Gateway(
            folder / "line",
            pacs,
            complete={"quiet_after_release_seconds": quiet},
            deliver={"rate_per_second": 1000},
        ) as gateway,
    ):
        wait_for_log(gateway, "classifier loaded")
        assert gateway.process is not None
        pid = gateway.process.pid
        send(gateway.port, studies[0])  # the first one starts the child process
        pacs.wait_for(1, 60)
        cpu, child = cpu_seconds(pid), child_cpu(pid)
        seconds = []
        for number, paths in enumerate(studies[1:half]):
            answered = send(gateway.port, paths)
            pacs.wait_for(number + 2, 60)
            seconds.append(max(pacs.arrived.values()) - answered)
        started = time.time()
        for paths in studies[half:]:
            send(gateway.port, paths)
        pacs.wait_for(len(studies), 600)
        minutes = (max(pacs.arrived.values()) - started) / 60
        number = len(studies) - 1
        return EndToEnd(
            studies=number,
            seconds=seconds,
            quiet=quiet,
            burst_per_minute=(len(studies) - half) / minutes,
            stages=stage_means(gateway),
            spans=span_means(gateway, half),
            cpu_per_study=(cpu_seconds(pid) - cpu) / number,
            decoder_cpu_per_study=(child_cpu(pid) - child) / number,
            peaks=peak_megabytes(pid),
        )


def child_cpu(pid: int) -> float:
    """Return processor time of the descendants of a process."""
    return sum(cpu_seconds(child) for child in tree(pid)[1:])


def send(port: int, paths: Sequence[Path]) -> float:
    """Send a study over an association of its own; return when the last response came."""
    datasets = [dcmread(path) for path in paths]
    contexts = [build_context(datasets[0].SOPClassUID, datasets[0].file_meta.TransferSyntaxUID)]
    ae = AE(ae_title="BENCH")
    assoc = ae.associate("127.0.0.1", port, contexts, ae_title=AE_TITLE)
    for ds in datasets:
        if assoc.send_c_store(ds).Status != 0x0000:
            raise RuntimeError("image refused")
    answered = time.time()
    assoc.release()
    return answered


def stage_means(gateway: Gateway) -> dict[str, float]:
    """Return the mean wall seconds of each stage, from the audit."""
    reads = [event for event in gateway.events() if event["event"] == "image read"]
    stages = reads[0]["detail"]["seconds"]
    return {
        stage: statistics.mean(read["detail"]["seconds"][stage] for read in reads)
        for stage in stages
    }


def span_means(gateway: Gateway, first: int) -> dict[str, float]:
    """Return the mean seconds between consecutive events of the first studies, from the audit."""
    studies: dict[str, dict[str, datetime]] = {}
    for event in gateway.events():
        if "study_instance_uid" in event:
            moments = studies.setdefault(event["study_instance_uid"], {})
            moments[event["event"]] = datetime.fromisoformat(event["recorded_at"])
    line = ["instance stored", "study complete", "result created", "delivery succeeded"]
    return {
        f"{start} to {end}": statistics.mean(
            (study[end] - study[start]).total_seconds() for study in list(studies.values())[1:first]
        )
        for start, end in pairwise(line)
    }


# ---- report ----------------------------------------------------------------------------------


def markdown(rates: Sequence[Rate], growth: int, line: EndToEnd) -> str:
    """Return docs/benchmarks.md."""
    cuts = statistics.quantiles(line.seconds, n=20)
    rows = [
        f"| {rate.peer} | {rate.associations} | {rate.cpu_seconds_per_gb:.1f} "
        f"| {rate.megabytes_per_second:.0f} |"
        for rate in rates
    ]
    classify = line.stages["classify"]
    rest = line.cpu_per_study - line.decoder_cpu_per_study - classify
    total = sum(line.spans.values())
    spans = [f"| {span} | {s:.2f} | {s / total:.0%} |" for span, s in line.spans.items()]
    stages = [f"| {stage} | {seconds * 1e3:.0f} |" for stage, seconds in line.stages.items()]
    peaks = [f"| {name} | {peak} |" for name, peak in line.peaks.items()]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {processor()}, "
            f"{os.cpu_count()} cores, Python {platform.python_version()}. Images: "
            f"{SIDE} x {SIDE}, 16 bit, {SIDE * SIDE * 2 / 1e6:.0f} MB. Figures of one machine; "
            "compare the rows, not the years.",
            "",
            "## Receive",
            "",
            "Sender: DCMTK storescu, PDU 128 kB, on the same cores. Thoracle syncs file and folder "
            "and commits a row before each answer.",
            "",
            "| server | associations | CPU s/GB | MB/s |",
            "|---|---|---|---|",
            *rows,
            "",
            "## End to end",
            "",
            f"{line.studies} studies of one image, uncompressed; quiet period {line.quiet:.0f} s.",
            "",
            "| last C-STORE response to SR arrival, less the quiet period | s |",
            "|---|---|",
            f"| p50 | {statistics.median(line.seconds) - line.quiet:.2f} |",
            f"| p95 | {cuts[18] - line.quiet:.2f} |",
            "",
            "Where that time goes (in the first row: the quiet period, and up to a second until "
            "the engine looks for studies whose quiet period is over):",
            "",
            "| from event to event of the audit | mean s | share |",
            "|---|---|---|",
            *spans,
            "",
            f"In a burst: {line.burst_per_minute:.0f} studies a minute.",
            "",
            "| stage of one image | mean ms |",
            "|---|---|",
            *stages,
            "",
            f"CPU a study: {line.cpu_per_study * 1e3:.0f} ms in all; "
            f"{line.decoder_cpu_per_study * 1e3:.0f} ms of it in the decoder child, about "
            f"{classify * 1e3:.0f} ms in the classifier, {rest * 1e3:.0f} ms the rest (receive, "
            "select, look-up tables, report, workflows, audit, deliver).",
            "",
            "## Memory",
            "",
            "| process | peak MB |",
            "|---|---|",
            *peaks,
            "",
            f"While ten associations send 100 MB each at once, the gateway grows by {growth} MB.",
            "",
        ]
    )


def processor() -> str:
    """Return the processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "unknown")


def main() -> None:
    """Measure and write."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--studies", type=int, default=40)
    arguments.add_argument("--files", type=int, default=80)
    chosen = arguments.parse_args()
    if shutil.which("storescu") is None or shutil.which("Orthanc") is None:
        sys.exit("found no storescu or Orthanc, required are both: apt-get install dcmtk orthanc")
    with tempfile.TemporaryDirectory(prefix="thoracle-bench-") as name:
        folder = Path(name)
        (folder / "images").mkdir()
        files = make_images(folder / "images", 1, chosen.files)[0]
        rates, growth = receive_all(folder, files)
        studies = make_images(folder / "images", chosen.studies, 1)
        OUTPUT.write_text(markdown(rates, growth, end_to_end(folder, studies)), encoding="utf-8")
    print(OUTPUT.read_text())


if __name__ == "__main__":
    main()
