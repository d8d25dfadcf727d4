"""Advisories on what is pinned are told; without data the check says that it is left out."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SCRIPT = Path(__file__).parent / "advisories.py"
ADVISORY = {
    "id": "PYSEC-2026-1",
    "summary": "For this test",
    "affected": [
        {
            "package": {"name": "pydicom", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
        }
    ],
}


class Osv(BaseHTTPRequestHandler):
    """Answers like OSV: pydicom has an advisory, nothing else has."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        affected = asked["package"]["name"] == "pydicom"
        body = json.dumps({"vulns": [ADVISORY]} if affected else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def osv() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Osv) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


def ask(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--osv-url", url]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_advisory_is_named_with_the_release_that_mends_it() -> None:
    with osv() as url:
        found = ask(url)
    assert found.returncode == 1, found.stderr
    assert "PYSEC-2026-1, mended in 99.1" in found.stdout
    assert "advisories of OSV: 1 of " in found.stdout
    assert "not known there: 0" in found.stdout


def test_without_data_the_check_says_that_it_is_left_out() -> None:
    found = ask("http://127.0.0.1:9/v1/query")
    assert found.returncode == 0, found.stderr
    assert "SKIPPED" in found.stdout
