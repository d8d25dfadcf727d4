"""The dashboard over 100,000 studies, and what it costs to measure an image.

`python tests/bench_dashboard.py` prints the figures of docs/dashboard.md. Pages are asked over
HTTP, of `thoracle web` in a process of its own, each span for the first time: nothing is kept yet.
"""

import statistics
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from browsing import Site
from history import studies, write
from thoracle.image.features import features
from thoracle.monitoring.watch import compare
from thoracle.records import Image
from thoracle.settings import Watch

STUDIES = 100_000
PART = 10_000
REPEATED = 30


def fill(site: Site, days: float) -> None:
    """Add the studies of so many days, a third of them with a verdict."""
    parts = STUDIES // PART
    now = datetime.now(UTC)
    for number in range(parts):
        end = now - timedelta(days=days * (parts - 1 - number) / parts)
        made = studies(PART, days / parts, now=end, seed=number, first=number * PART)
        verdicts = [replace(one, verdict="agree") if one.number % 3 == 0 else one for one in made]
        write(site.database, verdicts)


def pages(days: float) -> list[str]:
    """Return rows of a table: each page, and its seconds for the first and the second time."""
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder))
        fill(site, days)
        started = time.perf_counter()
        with site.database.connect() as connection:
            compare(connection, Watch(), datetime.now(UTC))
        lines = [f"| the comparison alone | {time.perf_counter() - started:.2f} | |"]
        with site, site.client("administrator") as client:
            for path in ("?days=30", "?days=7", "?days=90", "?days=365", "/operations"):
                took = []
                for _ in range(2):
                    started = time.perf_counter()
                    client.get(f"/dashboard{path}").raise_for_status()
                    took.append(time.perf_counter() - started)
                lines.append(f"| `/dashboard{path}` | {took[0]:.2f} | {took[1]:.2f} |")
    return lines


def milliseconds(side: int) -> float:
    """Return the median time to measure a square image, in milliseconds."""
    image = Image(np.random.default_rng(1).random((1, side, side), np.float32))
    took = []
    for _ in range(REPEATED):
        started = time.perf_counter()
        features(image)
        took.append(time.perf_counter() - started)
    return statistics.median(took) * 1e3


def main() -> None:
    """Print all figures."""
    print(f"Features of an image of 2000 x 2000: {milliseconds(2000):.1f} ms")
    for days in (365, 50):
        print(f"\n{STUDIES:,} studies in {days} days, seconds:\n")
        print("| page | first | kept |\n|---|---|---|")
        print("\n".join(pages(days)))


if __name__ == "__main__":
    main()
