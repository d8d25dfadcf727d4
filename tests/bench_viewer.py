"""The first picture of a study in a browser: from the key press to the drawn image.

`python tests/bench_viewer.py` prints a section of docs/benchmarks.md. Chromium opens studies from
the top of a list of 100,000, and each next one by its key, as a reader does.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from playwright.sync_api import Page

import bench_web
import reading_room
from browser import chromium, visit
from browsing import Site
from radiographs import lungs, radiograph
from thoracle.records import Outcome

READ = 20
SIDE = 2048
"""Rows and columns of the images."""
READING_SECONDS = 3
"""How long somebody looks at a study: the next ones are rendered meanwhile."""
SHOWN = "figure.viewer:not([hidden]) .loading[hidden]"
"""The picture that the server had ready is seen."""
DRAWN = "figure.viewer:not([hidden])[data-ready=true]"
"""All grey values have come: window and level can be changed."""


def section() -> Iterator[str]:
    """Yield the section of docs/benchmarks.md."""
    with tempfile.TemporaryDirectory(prefix="thoracle-bench-viewer-") as folder:
        site = Site(Path(folder), persons={"reader": ["reader"]})
        scale = SIDE // lungs().shape[0]
        image = np.kron(lungs(), np.ones((scale, scale), np.uint16)).astype(np.uint16)
        for number in range(READ + 2):
            reading_room.add(site, radiograph(image, PatientID=f"V{number}"), Outcome.NEGATIVE)
        with site.database.begin() as connection:
            bench_web.fill(connection, bench_web.STUDIES)
        with site, chromium() as browser, visit(browser, site, "reader") as found:
            address = "/?sort=received"
            found.go(address)
            found.page.wait_for_selector("#live.on")
            time.sleep(READING_SECONDS)
            found.page.keyboard.press("Enter")
            found.page.locator(DRAWN).first.wait_for()
            took = []
            for _ in range(READ):
                time.sleep(READING_SECONDS)
                took.append(_seconds(found.page, "j"))
    yield "## The first picture"
    yield ""
    yield f"{SIDE} x {SIDE}, 12 bits, in Chromium, on a list of {bench_web.STUDIES:,} studies."
    yield ""
    yield "| from the key press for the next study until | p50 ms | p95 ms |"
    yield "|---|---|---|"
    names = ("the picture is seen", "all 16 bits are there, for window and level")
    for name, seconds in zip(names, zip(*took, strict=True), strict=True):
        p95 = statistics.quantiles(seconds, n=20)[18]
        yield f"| {name} | {1e3 * statistics.median(seconds):.0f} | {1e3 * p95:.0f} |"


def _seconds(page: Page, key: str) -> tuple[float, float]:
    """Return how long after a key another study's picture is seen, and all of its values drawn."""
    before = page.url
    began = time.perf_counter()
    page.keyboard.press(key)
    page.wait_for_url(lambda url: url != before, wait_until="commit")
    page.locator(SHOWN).first.wait_for(state="attached")
    shown = time.perf_counter() - began
    page.locator(DRAWN).first.wait_for()
    return shown, time.perf_counter() - began


if __name__ == "__main__":
    for line in section():
        print(line, flush=True)
