"""What whole studies cost, in time and memory: a part of bench.py."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.presentation import build_context

from bench_processes import cpu_seconds, peak_megabytes, tree, wait_for_log
from gateway import AE_TITLE, Gateway
from pacs import Pacs


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
    children_cpu_per_study: float
    peaks: dict[str, int]


def end_to_end(folder: Path, studies: Sequence[Sequence[Path]]) -> EndToEnd:
    """Send studies one by one, then the rest at once, and return what came of it."""
    quiet = 2.0  # the default
    (folder / "line").mkdir()
    half = len(studies) // 2
    with (
        Pacs() as pacs,
        Gateway(
            folder / "line",
            pacs,
            complete={"quiet_after_release_seconds": quiet},
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
            children_cpu_per_study=(child_cpu(pid) - child) / number,
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
