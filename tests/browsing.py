"""The pages as people reach them: `thoracle web` in a process of its own, and who may open them."""

import re
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
from sqlalchemy import Connection, Engine, select

import processes
from pacs import free_port
from thoracle import settings
from thoracle.accounts import rows as people
from thoracle.settings import Settings
from thoracle.store.database import engine_of, prepare
from thoracle.store.tables import audit_event
from thoracle.web.session import credentials

PASSWORD = "correct horse battery staple"
PERSONS = {"reader": ["reader"], "administrator": ["administrator"], "auditor": ["auditor"]}
"""Each role's person has its name."""


class Site:
    """A data folder with a database, a person of each role and, inside the block, a process.

    Parameters
    ----------
    folder
        Everything is below it.
    text
        More of the configuration, TOML: more of ``[web]`` first, then tables.
    config
        A configuration that exists and has ``web.port``, e.g. that of a ``gateway.Gateway`` made
        with ``web={"port": free_port()}``; without it, one is written.
    persons
        Name -> roles of those who are added; all have ``PASSWORD``.
    verify
        What an https site's certificate is compared with; ``None``: plain http.
    """

    def __init__(
        self,
        folder: Path,
        text: str = "",
        *,
        config: Path | None = None,
        persons: dict[str, list[str]] | None = None,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self.folder = folder
        self.config = config or folder / "web.toml"
        self.log = folder / "web.log"
        self.process: processes.Process | None = None
        self.user: processes.User | None = None
        """Who runs it; ``None``: we do."""
        if config is None:
            start = f'data_folder = "data"\n[web]\nport = {free_port()}\n'
            self.config.write_text(f"{start}{text}\n")
        self.settings: Settings = settings.load(self.config)
        self.port = self.settings.web.port
        self.verify = verify
        self.url = f"http{'s' if verify else ''}://127.0.0.1:{self.port}"
        self.settings.data_folder.mkdir(parents=True, exist_ok=True)
        self.database: Engine = engine_of(self.settings)
        prepare(self.database)
        with self.database.begin() as connection:
            for name, roles in (PERSONS if persons is None else persons).items():
                add_person(connection, name, roles)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        self.database.dispose()

    def start(self, seconds: float = 180) -> None:
        """Start the process and return when it answers."""
        self.process = processes.start(["web", "--config", str(self.config)], self.log, self.user)
        deadline = time.monotonic() + seconds
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"pages not up:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return self._healthy()
        except httpx.TransportError:
            return False

    def _healthy(self) -> bool:
        with self.visitor() as client:
            return client.get("/healthz").status_code == 200

    def stop(self, seconds: float = 20) -> int:
        """End the process; return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    @contextmanager
    def visitor(self, **options: Any) -> Iterator[httpx.Client]:
        """Yield a client of somebody who is not signed in; redirects are not followed."""
        if self.verify is not None:
            options = {"verify": self.verify, **options}
        with httpx.Client(base_url=self.url, timeout=30, **options) as client:
            yield client

    @contextmanager
    def client(self, name: str, password: str = PASSWORD, **options: Any) -> Iterator[httpx.Client]:
        """Yield a client of a person who is signed in; it sends the token of its forms.

        ``client.headers["X-CSRF-Token"]`` has that token.
        """
        with self.visitor(**options) as client:
            answer = log_in(client, name, password)
            assert answer.status_code == 303, answer.text
            client.headers["X-CSRF-Token"] = csrf_token(client, "/account")
            yield client

    def events(self, *verbs: str) -> list[Any]:
        """Return the rows of the audit with these verbs, oldest first; without, all."""
        statement = select(audit_event).order_by(audit_event.c.id)
        if verbs:
            statement = statement.where(audit_event.c.event.in_(verbs))
        with self.database.connect() as connection:
            return list(connection.execute(statement))


def add_person(connection: Connection, name: str, roles: list[str], **columns: Any) -> None:
    """Add a person with ``PASSWORD``."""
    values = {"display_name": name.title(), "roles": roles, "password_hash": _kept(), **columns}
    people.add(connection, name, values)


def _kept() -> str:
    if PASSWORD not in _hashes:
        _hashes[PASSWORD] = credentials.hashed_password(PASSWORD)
    return _hashes[PASSWORD]


_hashes: dict[str, str] = {}


def csrf_token(client: httpx.Client, path: str = "/login") -> str:
    """Return the token of the forms of a page."""
    found = re.search(r'name="csrf_token" value="([0-9a-f]{64})"', client.get(path).text)
    assert found is not None, path
    return found[1]


def log_in(client: httpx.Client, name: str, password: str, **fields: str) -> httpx.Response:
    """Send the form of the log-in as a browser does."""
    form = {"csrf_token": csrf_token(client), "name": name, "password": password, **fields}
    return client.post("/login", data=form)
