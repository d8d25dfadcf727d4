"""docs/images: the worklist, a study and the dashboard, of what `make demo` sends."""

import tempfile
from pathlib import Path

from browser import WIDE, Visit, chromium, visit
from demo import PERSON, console, running

IMAGES = Path(__file__).parent.parent / "docs" / "images"


def main() -> None:
    """Run the demonstration, and write its pictures."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as demo:
        demo.run()
        with chromium() as browser, visit(browser, demo.pages, PERSON) as found:
            found.page.set_default_timeout(120_000)
            found.page.wait_for_selector("#live.on")
            taken(found, "worklist.png", 480)
            found.go(f"/study/{demo.cases[0].study}")
            found.page.locator("figure.viewer[data-ready=true]").first.wait_for()
            taken(found, "study.png")
            found.go("/dashboard")
            taken(found, "dashboard.png")


def taken(found: Visit, name: str, height: int = WIDE[1]) -> None:
    """Write what a window of this height shows now."""
    found.page.set_viewport_size({"width": WIDE[0], "height": height})
    found.page.wait_for_load_state("networkidle")
    found.page.screenshot(path=IMAGES / name)
    console.print(f"{IMAGES / name} written")


if __name__ == "__main__":
    main()
