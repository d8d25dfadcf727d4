"""A real browser: Debian's Chromium, driven by Playwright, that reaches nobody but this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from browsing import PASSWORD, Site
from peers import require

ARGUMENTS = [
    "--no-sandbox",  # tests run as root in a container, where its sandbox cannot start
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
GRAVE = ("serious", "critical")
"""Impacts of a fault of accessibility that no page may have."""
WIDE = (1440, 900)
ZOOMED = (WIDE[0] // 2, WIDE[1] // 2)
"""A window at 200 %: half as many CSS pixels (WCAG 2.1, 1.4.4 and 1.4.10)."""


@dataclass
class Visit:
    """A page of a person who is signed in, and what the browser complained about."""

    page: Page
    site: Site
    complaints: list[str] = field(default_factory=list)
    """Errors of scripts, and what the Content Security Policy kept from happening."""

    def faults(self, *rules: str) -> list[str]:
        """Return the grave faults of accessibility of what is shown now, by rules of axe-core.

        Without any, by all of them.
        """
        options: dict[str, Any] = {"resultTypes": ["violations"]}
        if rules:
            options["runOnly"] = {"type": "rule", "values": list(rules)}
        response = Axe().run(self.page, options=options).response
        return [
            f"{one['id']} ({one['impact']}): {node['html'][:120]}"
            for one in response["violations"]
            if one["impact"] in GRAVE
            for node in one["nodes"]
        ]

    def go(self, path: str) -> None:
        """Open a page and wait until it is loaded."""
        self.page.goto(self.site.url + path, wait_until="load")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a browser without a window."""
    path = require("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def visit(browser: Browser, site: Site, person: str, **options: Any) -> Iterator[Visit]:
    """Yield the first page of a person who logs in by hand."""
    size = {"width": WIDE[0], "height": WIDE[1]}
    options = {"color_scheme": "dark", **options}
    context = browser.new_context(viewport=size, **options)  # type: ignore[arg-type]  # a TypedDict
    page = context.new_page()
    page.set_default_timeout(15_000)
    found = Visit(page, site)
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    page.on("console", lambda said: _complain(found, said.type, said.text))
    found.go("/login")
    page.fill("[name=name]", person)
    page.fill("[name=password]", PASSWORD)
    page.click("main button[type=submit]")
    page.wait_for_url(lambda url: "/login" not in url)
    yield found
    context.close()


def _complain(found: Visit, kind: str, text: str) -> None:
    if kind == "error" or "Content Security Policy" in text:
        found.complaints.append(text)
