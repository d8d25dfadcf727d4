"""A PostgreSQL server of its own, for what has to hold on it too."""

import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg

from documents import DOCS
from pacs import free_port
from peers import require_file

BIN = Path("/usr/lib/postgresql/15/bin")
ROLE = "thoracle"
"""Who owns the databases that docs/database.md makes: no superuser."""
USER = "postgres"
"""The server refuses to run as root; Debian's package makes this user."""


class Server:
    """A server that a test may stop, start and configure."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._data = folder / "data"
        run("initdb", "-D", str(self._data), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C")

    def url(self, database: str = "postgres", user: str = USER) -> str:
        """Return the URL of a database, as settings have it."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def create(self, options: str = "") -> str:
        """Return the URL of a new, empty database."""
        name = f"thoracle_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name} {options}")
        return self.url(name)

    def documented(self) -> str:
        """Return the URL of a new database that docs/database.md makes, owned by its role."""
        _, made = as_documented()
        options = made.removeprefix(f"CREATE DATABASE {ROLE} ")
        return self.create(options).replace(f"{USER}@", f"{ROLE}@")

    def execute(self, *statements: str) -> None:
        """Run statements as the superuser, each on its own."""
        with closing(psycopg.connect(self.url(), autocommit=True)) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def asked(self, question: str) -> list[tuple[object, ...]]:
        """Return the rows of a question that the superuser asks."""
        with closing(psycopg.connect(self.url(), autocommit=True)) as connection:
            return list(connection.execute(question.encode()))

    def end(self, condition: str) -> None:
        """End the sessions that fulfil a condition on pg_stat_activity."""
        these = f"FROM pg_stat_activity WHERE {condition}".encode()
        with closing(psycopg.connect(self.url(), autocommit=True)) as connection:
            connection.execute(b"SELECT pg_terminate_backend(pid) " + these)
            while connection.execute(b"SELECT 1 " + these).fetchone():
                time.sleep(0.02)

    def configure(self, setting: str) -> None:
        """Change a setting of the server, e.g. ``fsync = off``; return when it has."""
        name, _, value = setting.partition(" = ")
        self.execute(f"ALTER SYSTEM SET {setting}", "SELECT pg_reload_conf()")
        with closing(psycopg.connect(self.url(), autocommit=True)) as connection:
            while connection.execute("SELECT current_setting(%s)", (name,)).fetchone() != (value,):
                time.sleep(0.05)

    @contextmanager
    def secure(self, certificate: Path, key: Path) -> Iterator[None]:
        """Let it speak TLS with a certificate, inside the block."""
        for source, name in ((certificate, "server.crt"), (key, "server.key")):
            target = self._data / name
            shutil.copyfile(source, target)
            target.chmod(0o600)
            if os.geteuid() == 0:
                shutil.chown(target, USER, USER)
        self.configure("ssl = on")
        try:
            yield
        finally:
            self.configure("ssl = off")

    @contextmanager
    def asking(self, user: str) -> Iterator[None]:
        """Ask a user for the password, inside the block."""
        rules = self._data / "pg_hba.conf"
        before = rules.read_text()
        rules.write_text(f"host all {user} 127.0.0.1/32 scram-sha-256\n{before}")
        self.execute("SELECT pg_reload_conf()", "SELECT pg_sleep(0.5)")
        try:
            yield
        finally:
            rules.write_text(before)

    def start(self) -> None:
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1"
        log = str(self._folder / "log")
        run("pg_ctl", "-D", str(self._data), "-o", options, "-l", log, "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it: ``fast`` as an administrator does, ``immediate`` as a crash."""
        run("pg_ctl", "-D", str(self._data), "-m", mode, "-w", "stop")


def as_documented() -> tuple[str, str]:
    """Return the statements of docs/database.md that make the role and the database."""
    block = re.search(r"^```sql\n(.*?)^```", (DOCS / "database.md").read_text(), re.M | re.S)
    assert block is not None
    role, made = (one.strip() for one in block[1].split(";")[:2])
    return role, made


@contextmanager
def server() -> Iterator[Server]:
    """Yield a running server; it ends with the block."""
    require_file(BIN / "initdb", "postgresql")
    folder = Path(tempfile.mkdtemp(prefix="thoracle-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, USER, USER)
    made = Server(folder)
    made.start()
    try:
        yield made
    finally:
        made.stop("immediate")
        for _ in range(50):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.1)


@contextmanager
def postgres() -> Iterator[str]:
    """Yield the URL of an empty database; the server ends with the block."""
    with server() as one:
        yield one.url()


def run(program: str, *arguments: str) -> None:
    command = [str(BIN / program), *arguments]
    if os.geteuid() == 0:
        command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", *command]
    # pg_ctl leaves the server with its output open: a pipe would never end.
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
