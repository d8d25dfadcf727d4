"""A DICOMweb server that answers as it is told, and an object of ours to store there."""

import contextlib
import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import trustme
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from pacs import smallest_report
from thoracle.deliver.storescu import Receipt
from thoracle.deliver.stowrs import WebPeer, found


@dataclass
class Stored:
    """An object of ours as a file."""

    path: Path
    ds: Dataset

    @property
    def uid(self) -> str:
        return str(self.ds.SOPInstanceUID)

    def receipt(self, status: str) -> Receipt:
        return Receipt(Comprehensive3DSRStorage, self.uid, status)

    def found(self, peer: WebPeer, *others: str) -> set[str] | None:
        return found(peer, self.ds.StudyInstanceUID, self.ds.SeriesInstanceUID, [self.uid, *others])


def stored_report(folder: Path) -> Stored:
    """Write the smallest report of ours into a folder."""
    ds = smallest_report()
    ds.save_as(folder / "stored.dcm", enforce_file_format=True)
    return Stored(folder / "stored.dcm", ds)


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Server:
    """An HTTP server that answers each method as it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers = {"POST": Answer(), "GET": Answer(404)}
        self.requests: list[Request] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.scheme = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/dicom-web"

    def secure(self, certificate: trustme.LeafCert, *clients: trustme.CA) -> None:
        """Speak TLS; with authorities of clients, demand their certificates."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        for authority in clients:
            authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.scheme = "https"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,)).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):  # a client that did not like us, or did not wait
                    super().handle()

            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.requests.append(
                    Request(self.command, self.path, dict(self.headers.items()), body)
                )
                answer = outer.answers[self.command]
                time.sleep(answer.delay)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def response(
    status: int,
    stored: tuple[str, ...] = (),
    failed: dict[str, int] | None = None,
    warning: int | None = None,
) -> Answer:
    """Return a Store Instances Response Module (PS3.18 Annex I)."""
    ds = Dataset()
    ds.ReferencedSOPSequence = [_item(uid, WarningReason=warning) for uid in stored]
    ds.FailedSOPSequence = [
        _item(uid, FailureReason=reason) for uid, reason in (failed or {}).items()
    ]
    media_type = "application/dicom+json; charset=utf-8"  # a parameter is allowed
    return Answer(status, ds.to_json().encode(), {"Content-Type": media_type})


def _item(uid: str, **codes: int | None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = Comprehensive3DSRStorage
    item.ReferencedSOPInstanceUID = uid
    for keyword, code in codes.items():
        if code is not None:
            setattr(item, keyword, code)
    return item


def matches(*found: dict[str, str]) -> Answer:
    """Return the answer to a search: UIDs by keyword."""
    tags = {
        "StudyInstanceUID": "0020000D",
        "SeriesInstanceUID": "0020000E",
        "SOPInstanceUID": "00080018",
    }
    content = [
        {tags[keyword]: {"vr": "UI", "Value": [uid]} for keyword, uid in one.items()}
        for one in found
    ]
    return Answer(200, json.dumps(content).encode(), {"Content-Type": "application/dicom+json"})


def all_uids(ds: Dataset) -> dict[str, str]:
    keywords = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    return {keyword: str(ds[keyword].value) for keyword in keywords}
