"""OHIF as it is opened in a hospital: its build behind nginx, an Orthanc's DICOMweb, Chromium.

``python tests/ohif.py`` fetches the build from npm, once for an environment.
"""

import base64
import hashlib
import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from ledger import eventually
from orthanc import Orthanc
from pacs import free_port
from peers import give_up, require

VERSION: Final = "3.13.2"
INTEGRITY: Final = (
    "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6"
    "j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
)
"""Of the package, as npm states it (Subresource Integrity)."""
FOLDER: Final = Path(sys.prefix) / "share" / f"ohif-{VERSION}"
FETCH: Final = "python tests/ohif.py"
WINDOW: Final = (1500, 900)
ARGUMENTS: Final = [
    "--no-sandbox",  # tests run as root in a container, where its sandbox cannot start
    # WebGL without a graphics card.
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HARMLESS: Final = (
    "Failed to load resource",  # a request that failed is listed with its address
    "favicon",
)
"""Parts of messages in the console that come with every study, also with none of ours."""

CONFIGURATION: Final = """window.config = {
  routerBasename: '/', extensions: [], modes: [], customizationService: {},
  showStudyList: true, maxNumberOfWebWorkers: 2, showWarningMessageForCrossOrigin: false,
  showCPUFallbackMessage: false, showLoadingIndicator: true, showErrorDetails: 'always',
  strictZSpacingForVolumeViewport: true, groupEnabledModesFirst: true,
  investigationalUseDialog: { option: 'never' },
  defaultDataSourceName: 'dicomweb',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'dicomweb',
    configuration: {
      friendlyName: 'Orthanc', name: 'orthanc', wadoUriRoot: location.origin + '/wado',
      qidoRoot: location.origin + '/dicom-web', wadoRoot: location.origin + '/dicom-web',
      qidoSupportsIncludeField: false, supportsReject: false, imageRendering: 'wadors',
      thumbnailRendering: 'wadors', enableStudyLazyLoad: true, supportsFuzzyMatching: false,
      supportsWildcard: true, omitQuotationForMultipartRequest: true,
      bulkDataURI: { enabled: true },
    },
  }],
};
"""
NGINX: Final = """daemon off; master_process off; pid pid; error_log error.log;
events {{ worker_connections 256; }}
http {{
  include /etc/nginx/mime.types; types {{ text/javascript mjs; }}
  access_log off; client_max_body_size 200m;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server {{
    listen 127.0.0.1:{port}; root {root};
    location = /app-config.js {{ alias {configuration}; }}
    proxy_set_header Host $http_host;
    location /dicom-web {{ proxy_pass http://127.0.0.1:{orthanc}; }}
    location /wado {{ proxy_pass http://127.0.0.1:{orthanc}; }}
    location / {{ try_files $uri $uri/ /index.html; }}
  }}
}}
"""
WATCH: Final = """(() => {
  const state = window.activity = { last: performance.now(), waiting: new Set() };
  const touch = () => { state.last = performance.now(); };
  const ended = (key) => { state.waiting.delete(key); touch(); };
  const began = (key) => { state.waiting.add(key); touch(); return key; };
  new MutationObserver(touch).observe(
    document, { subtree: true, childList: true, attributes: true, characterData: true });
  const context = CanvasRenderingContext2D.prototype, drawn = context.drawImage;
  context.drawImage = function (...given) { touch(); return drawn.apply(this, given); };
  const fetched = window.fetch;
  window.fetch = (...given) => {
    const key = began({});
    return fetched(...given).finally(() => ended(key));
  };
  const request = XMLHttpRequest.prototype, sent = request.send;
  request.send = function (...given) {
    began(this);
    this.addEventListener('loadend', () => ended(this));
    return sent.apply(this, given);
  };
  const worker = Worker.prototype, posted = worker.postMessage;
  worker.postMessage = function (message, ...given) {
    if (message && message.id) {
      const key = began(message.id);
      const answered = (event) => {
        if (event.data && event.data.id === message.id) {
          ended(key);
          this.removeEventListener('message', answered);
        }
      };
      this.addEventListener('message', answered);
    }
    return posted.call(this, message, ...given);
  };
})()"""
"""Notes when the page last changed, drew, asked or was answered, and what it waits for."""
AT_REST: Final = (
    "quiet => !activity.waiting.size && performance.now() - activity.last > quiet * 1000"
)


@dataclass
class Viewer:
    """A study that is open in OHIF."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    """Errors in the console, exceptions, and requests that failed."""

    def series(self) -> list[str]:
        """Return the modalities of the series in the list at the left, from top to bottom."""
        return [text.split("\n")[0] for text in self._thumbnails().all_inner_texts()]

    def show(self, modality: str, number: int = 0) -> None:
        """Open a series, of those of its modality in the list, and wait for a picture at rest."""
        named = self.page.get_by_text(modality, exact=True)
        one = self._thumbnails().filter(has=named).nth(number)
        one.scroll_into_view_if_needed()
        one.dblclick()
        self.settle()

    def settle(self, quiet: float = 0.7, seconds: float = 40) -> None:
        """Return when the page has asked for, changed and drawn nothing for a while from now."""
        self.page.evaluate("activity.last = performance.now()")
        with suppress(PlaywrightTimeoutError):
            self.page.wait_for_function(AT_REST, arg=quiet, polling=100, timeout=1000 * seconds)

    def wait_for(self, *words: str, seconds: float = 60) -> str:
        """Return all words of the viewport as soon as some of these are there.

        On a busy machine OHIF draws annotations with the next picture only, e.g. when the mouse
        moves over it.
        """
        for turn in range(round(2 * seconds)):
            self.page.mouse.move(WINDOW[0] / 2 + 20 * (turn % 5), WINDOW[1] / 2 + 10 * (turn % 3))
            found = self.text()
            if any(one in found for one in words):
                return found
            self.page.wait_for_timeout(500)
        raise TimeoutError(f"found {self.drawn()}, required: one of {words}")

    def text(self) -> str:
        """Return the words of the viewport: of overlays, of labels, of a report."""
        return self._viewport().inner_text()

    def drawn(self) -> list[str]:
        """Return the words that annotations have on the picture."""
        return [text for text in self._viewport().locator("svg text").all_text_contents() if text]

    def lines(self) -> int:
        """Return how many closed lines annotations have on the picture."""
        return self._viewport().locator("svg polyline, svg path, svg polygon").count()

    def picture(self) -> NDArray[np.uint8]:
        """Return the viewport as it is seen, ``(rows, columns, 3)``."""
        shot = io.BytesIO(self._viewport().screenshot())
        return np.asarray(Image.open(shot).convert("RGB"))

    def _thumbnails(self) -> Locator:
        return self.page.locator("[data-cy^=study-browser-thumbnail]")

    def _viewport(self) -> Locator:
        return self.page.locator("[data-cy=viewport-grid]").first


@dataclass(frozen=True)
class Ohif:
    """OHIF, while it is served."""

    url: str
    context: BrowserContext

    @contextmanager
    def open(self, study_instance_uid: str) -> Iterator[Viewer]:
        """Yield a study as it opens by itself, in a page of its own."""
        page = self.context.new_page()
        page.set_default_timeout(60_000)
        found = Viewer(page)
        page.on("pageerror", lambda error: found.complaints.append(str(error)))
        page.on("console", lambda said: _complain(found, said.type, said.text))
        page.on("response", lambda answer: _failed(found, answer.status, answer.url))
        page.goto(f"{self.url}/viewer?StudyInstanceUIDs={study_instance_uid}")
        page.locator("[data-cy^=study-browser-thumbnail]").first.wait_for()
        found.settle()
        skip = page.get_by_text("Skip all")
        if skip.count():  # the tour, which a browser is shown once
            skip.first.click()
            found.settle()
        yield found
        page.close()


@contextmanager
def webgl() -> Iterator[Browser]:
    """Yield a browser without a window that draws without a graphics card."""
    chromium = require("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def ohif(folder: Path, orthanc: Orthanc, browser: Browser) -> Iterator[Ohif]:
    """Yield OHIF with the studies of an Orthanc; without its build the test is skipped."""
    root = _build()
    port = free_port()
    configuration = folder / "app-config.js"
    configuration.write_text(CONFIGURATION)
    names = {"port": port, "root": root, "orthanc": orthanc.http_port}
    (folder / "nginx.conf").write_text(NGINX.format(**names, configuration=configuration))
    nginx = require("nginx", "nginx-light")
    process = subprocess.Popen([nginx, "-p", str(folder), "-c", "nginx.conf"])
    try:
        eventually((folder / "pid").exists, 20)
        size = {"width": WINDOW[0], "height": WINDOW[1]}
        context = browser.new_context(viewport=size)  # type: ignore[arg-type]  # a TypedDict
        context.add_init_script(WATCH)
        yield Ohif(f"http://127.0.0.1:{port}", context)
        context.close()
    finally:
        process.terminate()
        process.wait(20)


def fetch() -> Path:
    """Return the folder of OHIF's build, taken from npm where it is not there yet.

    Raises
    ------
    RuntimeError
        The package is not the one that was pinned.
    """
    if FOLDER.exists():
        return FOLDER
    npm = require("npm", "npm")
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=FOLDER.parent) as name:
        command = [npm, "pack", "--silent", f"@ohif/app@{VERSION}"]
        subprocess.run(command, check=True, cwd=name, stdout=subprocess.DEVNULL)
        (package,) = Path(name).glob("*.tgz")
        digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
        if f"sha512-{digest}" != INTEGRITY:
            raise RuntimeError(f"{package.name}: found sha512-{digest}, required: {INTEGRITY}")
        with tarfile.open(package) as archive:
            archive.extractall(name, filter="data")
        (Path(name) / "package" / "dist").rename(FOLDER)
    return FOLDER


def _build() -> Path:
    if not FOLDER.exists():
        give_up(f"OHIF {VERSION} is missing: {FETCH}")
    return FOLDER


def _complain(found: Viewer, kind: str, text: str) -> None:
    if kind == "error" and not any(part in text for part in HARMLESS):
        found.complaints.append(text)


def _failed(found: Viewer, status: int, url: str) -> None:
    if status >= 400 and not any(part in url for part in HARMLESS):
        found.complaints.append(f"{status} {url}")


if __name__ == "__main__":
    print(fetch())
