"""docs/images/worklist.png: the worklist with generated studies, as a browser shows it."""

import tempfile
from pathlib import Path

from bench_web import fill
from browser import chromium, visit
from browsing import Site

IMAGES = Path(__file__).parent.parent / "docs" / "images"

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, Site(Path(folder)) as site:
        with site.database.begin() as connection:
            fill(connection, 120)
        with chromium() as browser, visit(browser, site, "reader") as found:
            found.page.wait_for_selector("#live.on")
            found.page.screenshot(path=IMAGES / "worklist.png")
