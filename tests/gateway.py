"""The gateway as its user starts it: `thoracle serve` in a process of its own."""

import json
import signal
import socket
import time
from pathlib import Path
from typing import Any, Protocol, Self

from pynetdicom import AE
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

import processes
from pacs import Pacs, free_port
from thoracle.audit import query
from thoracle.store.database import connect, sqlite_url

AE_TITLE = "THORACLE"


class Archive(Protocol):
    """Where results go: what a configuration has to say of it."""

    @property
    def ae_title(self) -> str: ...

    @property
    def port(self) -> int: ...


def destination(archive: Archive, **settings: object) -> dict[str, Any]:
    """Return the settings of an archive as a destination, with more of them."""
    named: dict[str, Any] = {"name": archive.ae_title.lower(), "ae_title": archive.ae_title}
    if isinstance(archive, Pacs):
        named["kinds"] = archive.kinds
    return {**named, "host": "127.0.0.1", "port": archive.port, **settings}


class Gateway:
    """A configuration, a data folder and, inside the block, a running process.

    Parameters
    ----------
    folder
        Everything is below it.
    archives
        The destinations, as archives or as tables of settings.
    lists
        Further lists of tables, e.g. ``rule`` and ``hl7``.
    tables
        Tables of settings, by name.
    """

    def __init__(
        self,
        folder: Path,
        *archives: Archive | dict[str, Any],
        lists: dict[str, list[dict[str, Any]]] | None = None,
        **tables: dict[str, Any],
    ) -> None:
        self.folder = folder
        self.data_folder = folder / "data"
        self.port = free_port()
        self.config = folder / "thoracle.toml"
        self.log = folder / "thoracle.log"
        self.process: processes.Process | None = None
        self.user: processes.User | None = None
        """Who runs it; ``None``: we do."""
        settings: dict[str, dict[str, Any]] = {
            "receive": {"port": self.port, "reserve_megabytes": 1},
            "complete": {"quiet_after_release_seconds": 0.5},  # saves each test 1.5 s, no more
            "deliver": {"first_delay_seconds": 1, "longest_delay_seconds": 2, "jitter": 0},
        }
        for name, values in tables.items():
            settings.setdefault(name, {}).update(values)
        self.database_url: str | None = settings.get("database", {}).get("url")
        """Of PostgreSQL; ``None``: SQLite below the data folder."""
        lines = [f"data_folder = {json.dumps(str(self.data_folder))}"]
        for name, values in settings.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(v)}" for key, v in values.items())]
        destinations = [one if isinstance(one, dict) else destination(one) for one in archives]
        for name, entries in {"destination": destinations, **(lists or {})}.items():
            for table in entries:
                lines += [f"[[{name}]]", *(f"{key} = {json.dumps(v)}" for key, v in table.items())]
        self.config.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def start(self, seconds: float = 180, **environment: str) -> None:
        """Start the process and return when it answers a C-ECHO."""
        command = ["serve", "--config", str(self.config)]
        self.process = processes.start(command, self.log, self.user, **environment)
        deadline = time.monotonic() + seconds
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"gateway not up:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def answers(self) -> bool:
        """Return whether a C-ECHO succeeds now."""
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)) != 0:
                return False
        ae = AE(ae_title="ECHO")
        ae.connection_timeout = 1
        assoc = ae.associate(
            "127.0.0.1", self.port, [build_context(Verification)], ae_title=AE_TITLE
        )
        if not assoc.is_established:
            return False
        well = "Status" in assoc.send_c_echo()
        assoc.release()
        return well

    def kill(self) -> None:
        """End the process as a power failure would, short of the disk."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def terminate(self, seconds: float = 60) -> int:
        """Ask the process to end, and return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def run(self, *arguments: str) -> str:
        """Return what a command prints that shares this configuration."""
        command = (arguments[0], "--config", str(self.config), *arguments[1:])
        return processes.run(*command, check=True).stdout

    def events(self, event: str | None = None, study: str | None = None) -> list[dict[str, Any]]:
        """Return rows of the audit, oldest first, as `thoracle audit --json` gives them.

        Read from the database: a process each time would take what the gateway needs to go on.
        """
        database = connect(self.database_url or sqlite_url(self.data_folder))
        try:
            with database.connect() as connection:
                question = query.Question(event=event, study_instance_uid=study)
                return list(query.events(connection, question))
        finally:
            database.dispose()

    def wait_for_event(self, event: str, study: str, seconds: float = 180) -> None:
        """Return when the audit has an event of a study; ``TimeoutError`` when it has not."""
        deadline = time.monotonic() + seconds
        while not self.events(event, study):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {event!r} after {seconds} s")
            time.sleep(0.1)
