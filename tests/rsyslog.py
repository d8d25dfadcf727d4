"""rsyslog as an Audit Record Repository: a process with a configuration of its own, on loopback."""

import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from audit_messages import parse
from certificates import Authority
from pacs import free_port
from peers import require

_MESSAGE = re.compile(
    rb"<(?P<priority>\d+)>1 (?P<time>\S+) (?P<host>\S+) (?P<app>\S+) (?P<process>\d+)"
    rb" (?P<msgid>\S+) - \xef\xbb\xbf(?P<content>.*)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Stored:
    """A message as it stands in the repository's file."""

    priority: int
    time: str
    app: str
    msgid: str
    content: bytes

    @property
    def row(self) -> dict[str, Any]:
        """The columns of the row that it was made of."""
        return parse(self.content)


class Repository:
    """rsyslog that keeps what comes in a file, a message a line; started inside the block.

    Parameters
    ----------
    folder
        Of its configuration, its file and its certificate.
    transport
        ``tls``, ``tcp`` or ``udp``.
    wants_certificate
        Whether callers have to show a certificate of ``authority``.
    """

    def __init__(
        self, folder: Path, transport: str = "tls", *, wants_certificate: bool = False
    ) -> None:
        self._program = require("rsyslogd", "rsyslog")
        folder.mkdir(exist_ok=True)
        self.authority = Authority(folder, "repository-ca")
        self.port = free_port()
        self.file = folder / "messages"
        self.transport = transport
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        own = self.authority.issue("repository")
        module = "imudp" if transport == "udp" else "imtcp"
        driver = ""
        if transport == "tls":
            mode = "x509/certvalid" if wants_certificate else "anon"
            driver = (
                f'streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="{mode}"'
            )
        (folder / "rsyslog.conf").write_text(
            f"""global(
              workDirectory="{folder}" maxMessageSize="64k"
              parser.escapeControlCharactersOnReceive="off"
              defaultNetstreamDriverCAFile="{self.authority.ca_file}"
              defaultNetstreamDriverCertFile="{own.certificate_file}"
              defaultNetstreamDriverKeyFile="{own.key_file}")
            module(load="{module}" {driver})
            input(type="{module}" address="127.0.0.1" port="{self.port}")
            template(name="raw" type="string" string="%rawmsg%\\n")
            action(type="omfile" file="{self.file}" template="raw" flushOnTXEnd="on")
            """,
            encoding="utf-8",
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process is not None:
            self.stop()

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return the table [[audit_repository]] for it."""
        table: dict[str, Any] = {
            "name": "rsyslog",
            "host": "127.0.0.1",
            "port": self.port,
            "transport": self.transport,
            "resend_seconds": 1,
        }
        if self.transport == "tls":
            table["tls"] = {"ca_file": str(self.authority.ca_file)}
        return {**table, **changes}

    def start(self) -> None:
        """Start the process; returns when it takes connections."""
        files = ["-f", str(self._folder / "rsyslog.conf"), "-i", str(self._folder / "pid")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([self._program, "-n", *files], stdout=log, stderr=log)
        port = f"{self.port:04X}"
        proc = Path("/proc/net/udp" if self.transport == "udp" else "/proc/net/tcp")
        deadline = time.monotonic() + 20
        while not re.search(rf": \w+:{port} \w+:0000 (0A|07)", proc.read_text()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"rsyslog not up: {(self._folder / 'log').read_text()}")
            time.sleep(0.02)

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End the process: in order, it writes what it has read; by ``SIGKILL`` it does not."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(20)
        self._process = None

    def messages(self) -> list[Stored]:
        """Return what is in its file."""
        if not self.file.exists():
            return []
        found = []
        for line in self.file.read_bytes().split(b"\n")[:-1]:
            # An end in the middle of a line is followed by the next message, and it comes again.
            one = _MESSAGE.fullmatch(line[line.rindex(b"<8") :])
            assert one is not None, line[:200]
            app, msgid, moment = (one[name].decode() for name in ("app", "msgid", "time"))
            found.append(Stored(int(one["priority"]), moment, app, msgid, one["content"]))
        return found

    def wait_for(self, last_id: int, seconds: float = 30) -> list[dict[str, Any]]:
        """Return the rows that it has, when it has the one with an id."""
        deadline = time.monotonic() + seconds
        while True:
            rows = [one.row for one in self.messages()]
            if any(row["id"] == last_id for row in rows):
                return rows
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(rows)} messages after {seconds} s, none of {last_id}")
            time.sleep(0.1)
