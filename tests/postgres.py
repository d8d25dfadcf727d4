"""A PostgreSQL server of its own, for what has to hold on it too."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pacs import free_port
from peers import require_file

BIN = Path("/usr/lib/postgresql/15/bin")
USER = "postgres"
"""The server refuses to run as root; Debian's package makes this user."""


@contextmanager
def postgres() -> Iterator[str]:
    """Yield the URL of an empty database; the server ends with the block."""
    require_file(BIN / "initdb", "postgresql")
    folder = Path(tempfile.mkdtemp(prefix="thoracle-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, USER, USER)
    port = free_port()
    data = folder / "data"
    _run("initdb", "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    _run("pg_ctl", "-D", str(data), "-o", options, "-l", str(folder / "log"), "-w", "start")
    try:
        yield f"postgresql+psycopg://{USER}@127.0.0.1:{port}/postgres"
    finally:
        _run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
        for _ in range(50):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.1)


def _run(program: str, *arguments: str) -> None:
    command = [str(BIN / program), *arguments]
    if os.geteuid() == 0:
        command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", *command]
    # pg_ctl leaves the server with its output open: a pipe would never end.
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
