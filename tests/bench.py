"""`make bench`: speed and memory, beside DCMTK and Orthanc in the same run.

Prints the sections of docs/benchmarks.md. Absolute figures belong to the machine; the ratios
travel better. `--base FOLDER` names a checkout of another version: its rows stand beside ours.
"""

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import bench_analyse
import bench_audit
import bench_burst
import bench_objects
import bench_web
from bench_images import SIDE, make_images
from bench_line import EndToEnd, end_to_end
from bench_receive import Rate, floor, receive_all


def markdown(
    rates: Sequence[Rate], floor: float, growth: int, line: EndToEnd, sections: Sequence[str]
) -> str:
    """Return all sections as they stand in docs/benchmarks.md."""
    cuts = statistics.quantiles(line.seconds, n=20)
    best = {one.associations: one for one in rates if one.peer == "Thoracle"}
    rows = [
        f"| {rate.peer} | {rate.associations} | {rate.cpu_seconds_per_gb:.1f} "
        f"| {rate.cpu_seconds_per_gb / best[rate.associations].cpu_seconds_per_gb:.2f} "
        f"| {rate.megabytes_per_second:.0f} |"
        for rate in rates
    ]
    total = sum(line.spans.values())
    spans = [f"| {span} | {s:.2f} | {s / total:.0%} |" for span, s in line.spans.items()]
    stages = [f"| {stage} | {seconds * 1e3:.0f} |" for stage, seconds in line.stages.items()]
    peaks = [f"| {name} | {peak} |" for name, peak in line.peaks.items()]
    return "\n".join(
        [
            f"{datetime.now(UTC):%Y-%m-%d}: {processor()}, {os.cpu_count()} cores, Python "
            f"{platform.python_version()}, load {os.getloadavg()[2]:.1f}. Figures of one machine: "
            "compare the rows of a table, not tables of different days.",
            "",
            "## Receive",
            "",
            f"Images of {SIDE} x {SIDE}, 16 bit, {SIDE * SIDE * 2 / 1e6:.0f} MB. Sender: DCMTK "
            "storescu, PDU 128 kB, on the same cores. Thoracle syncs file and folder and commits a "
            f"row before each answer. Writing, SHA-256 and syncing alone: {floor:.2f} CPU s/GB.",
            "",
            "| server | associations | CPU s/GB | of Thoracle's | MB/s |",
            "|---|---|---|---|---|",
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
            "| from event to event (the first with the quiet period) | mean s | share |",
            "|---|---|---|",
            *spans,
            "",
            f"In a burst: {line.burst_per_minute:.0f} studies a minute. CPU a study: "
            f"{line.cpu_per_study * 1e3:.0f} ms, {line.children_cpu_per_study * 1e3:.0f} ms of it "
            "in children (decoder, builder of results).",
            "",
            "| stage of one image | mean ms |",
            "|---|---|",
            *stages,
            "",
            "## Memory",
            "",
            "| process | peak MB |",
            "|---|---|",
            *peaks,
            "",
            f"While ten associations send 100 MB each at once, the gateway grows by {growth} MB.",
            "",
            *sections,
        ]
    )


def processor() -> str:
    """Return the processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "unknown")


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--studies", type=int, default=40)
    arguments.add_argument("--files", type=int, default=80)
    arguments.add_argument("--burst", type=int, default=100)
    arguments.add_argument("--analysed", type=int, default=100)
    arguments.add_argument("--audit", type=int, nargs="+", default=[100_000, 1_000_000])
    arguments.add_argument("--base", type=Path, action="append", default=[])
    arguments.add_argument("--short", action="store_true", help="the line alone: no pages, audit")
    chosen = arguments.parse_args()
    if shutil.which("storescu") is None or shutil.which("Orthanc") is None:
        sys.exit("found no storescu or Orthanc, required: both: apt-get install dcmtk orthanc")
    with tempfile.TemporaryDirectory(prefix="thoracle-bench-") as name:
        folder = Path(name)
        (folder / "images").mkdir()
        files = make_images(folder / "images", 1, chosen.files)[0]
        rates, growth = receive_all(folder, files, chosen.base)
        least = floor(folder, files[:20])
        studies = make_images(folder / "images", chosen.studies, 1)
        line = end_to_end(folder, studies)
        sections = ["## A burst", "", *bench_burst.section(chosen.burst, chosen.base), ""]
        if not chosen.short:
            sections += bench_analyse.section(folder / "images", chosen.analysed)
            sections += bench_objects.section(folder / "images")
            sections += ["", *bench_web.section()]
            sections += ["", *bench_audit.section(chosen.audit, chosen.audit[0])]
    print(markdown(rates, least, growth, line, sections))


if __name__ == "__main__":
    main()
