"""What an administrator looks at: what waits, whom we reach, disk and certificates."""

import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from thoracle.classify import bundle
from thoracle.errors import BundleError
from thoracle.monitoring import operations
from thoracle.monitoring.certificates import CertificateFile, certificates
from thoracle.monitoring.operations import plain
from thoracle.pipeline import senders
from thoracle.receive.inbox import MEGABYTE
from thoracle.settings import Settings
from thoracle.store import sqlite

LETTERS = 100
"""Dead letters that are shown; all are counted."""
PROBE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class PeerState:
    """A destination, or a receiver of messages."""

    name: str
    what: str
    """E.g. ``C-STORE PACS@192.0.2.10:11112``."""
    figures: dict[str, Any]
    """As of :func:`thoracle.monitoring.operations.peers`."""


@dataclass(frozen=True, slots=True)
class Operations:
    """What the section shows."""

    made: datetime
    queues: list[dict[str, Any]]
    waiting: list[dict[str, Any]]
    dead: int
    letters: tuple[dict[str, Any], ...]
    peers: tuple[PeerState, ...]
    gateway: bool
    """Whether our listener takes connections."""
    free_megabytes: int
    total_megabytes: int
    certificates: tuple[CertificateFile, ...]


def gather(connection: Connection, settings: Settings) -> Operations:
    """Return what there is now."""
    dead, letters = operations.dead_letters(connection, LETTERS)
    disk = shutil.disk_usage(settings.data_folder)
    return Operations(
        made=datetime.now(UTC),
        queues=operations.queues(connection),
        waiting=operations.waiting(connection),
        dead=dead,
        letters=tuple({**row._asdict(), "detail": plain(row.detail)} for row in letters),
        peers=tuple(_peers(settings, operations.peers(connection))),
        gateway=listens(settings),
        free_megabytes=disk.free // MEGABYTE,
        total_megabytes=disk.total // MEGABYTE,
        certificates=tuple(certificates(settings)),
    )


def _peers(settings: Settings, figures: dict[str, dict[str, Any]]) -> Iterator[PeerState]:
    for sender, one in senders.peers(settings):
        found = {**operations.NOTHING_SENT, **figures.get(one.name, {})}
        where = sender.where(one)
        yield PeerState(one.name, where, {**found, "detail": plain(found["detail"])})


def listens(settings: Settings) -> bool:
    """Return whether our listener takes a connection; nothing is sent."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not bound
    host = everywhere.get(settings.receive.host, settings.receive.host)
    try:
        with socket.create_connection((host, settings.receive.port), PROBE_SECONDS):
            return True
    except OSError:
        return False


def parts(data_folder: Path) -> list[tuple[str, int]]:
    """Return the parts of the data folder with their sizes in bytes, the largest first."""
    sizes = []
    database = 0
    for entry in data_folder.iterdir():
        if entry.is_dir() and not os.access(entry, os.R_OK | os.X_OK):
            continue  # the gateway's own, when it is another user
        if entry.name == sqlite.SHARED_FOLDER:
            database += sum(_size(path) for path in entry.iterdir())
        elif entry.is_dir():
            sizes.append((entry.name, sum(_size(path) for path in entry.rglob("*"))))
        else:
            database += _size(entry)
    return sorted([*sizes, ("database", database)], key=lambda part: -part[1])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # moved or removed meanwhile
        return 0


def identity(settings: Settings) -> str:
    """Return which bundle the settings name."""
    try:
        found = bundle.identify(settings.classify)
    except BundleError as error:
        return str(error)
    return f"{found.name} {found.version}, digest {found.digest[:12]}"


def age(since: str | None, now: datetime) -> float:
    """Return the seconds from a time as it is stored until now, at least 0; 0 for ``None``."""
    if since is None:
        return 0.0
    return max(0.0, (now - datetime.fromisoformat(since)).total_seconds())
