"""`make bench`: speed and memory, beside DCMTK and Orthanc in the same run.

Writes docs/benchmarks.md. Absolute figures belong to the machine; the ratios travel better.
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
import bench_objects
import bench_web
from bench_images import SIDE, make_images
from bench_line import EndToEnd, end_to_end
from bench_receive import Rate, receive_all

OUTPUT = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def markdown(rates: Sequence[Rate], growth: int, line: EndToEnd, reading: Sequence[str]) -> str:
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
            *reading,
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
    arguments.add_argument("--analysed", type=int, default=100)
    arguments.add_argument("--audit", type=int, nargs="+", default=[100_000, 1_000_000])
    chosen = arguments.parse_args()
    if shutil.which("storescu") is None or shutil.which("Orthanc") is None:
        sys.exit("found no storescu or Orthanc, required: both: apt-get install dcmtk orthanc")
    with tempfile.TemporaryDirectory(prefix="thoracle-bench-") as name:
        folder = Path(name)
        (folder / "images").mkdir()
        files = make_images(folder / "images", 1, chosen.files)[0]
        rates, growth = receive_all(folder, files)
        studies = make_images(folder / "images", chosen.studies, 1)
        line = end_to_end(folder, studies)
        reading = bench_analyse.section(folder / "images", chosen.analysed)
        reading += bench_objects.section(folder / "images")
        reading += [
            "",
            *bench_web.section(),
            "",
            *bench_audit.section(chosen.audit, chosen.audit[0]),
        ]
        reading.append("")
        OUTPUT.write_text(markdown(rates, growth, line, reading), encoding="utf-8")
    print(OUTPUT.read_text())


if __name__ == "__main__":
    main()
