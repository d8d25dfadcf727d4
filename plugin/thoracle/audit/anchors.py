"""Anchors: what the end of the chain was, kept in a second file and in the log.

Each is a line of JSON with id, digest and time. Copy the file to where nobody who can write to the
database can write, or have each line signed: the more often, the less can be cut off unseen.
"""

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import Engine

from thoracle.errors import ThoracleError
from thoracle.store import chain, files
from thoracle.store.tables import now

logger = logging.getLogger(__name__)

FILE = "audit-anchors.jsonl"
"""Below the data folder."""
VERIFIED = "audit-verified.json"
"""Below the data folder: where the last verification ended that found all well."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """The end of the chain at some time."""

    id: int
    digest: str
    """SHA-256, hexadecimal."""
    recorded_at: str = ""
    """When it was the end, ISO 8601 in UTC."""


def drop_anchor(database: Engine, path: Path) -> Anchor | None:
    """Add an anchor to a file and to the log; return it, or ``None`` when nothing is new."""
    with database.connect() as connection:
        last_id, digest = chain.head(connection)
    anchor = Anchor(last_id, digest, now())
    before = read_anchors(path)
    if before and before[-1].id >= last_id:
        return None
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(anchor)) + "\n")
        file.flush()
        os.fsync(file.fileno())
    logger.info("audit anchor: row %d, digest %s", anchor.id, anchor.digest)
    return anchor


def read_anchors(path: Path) -> list[Anchor]:
    """Return the anchors of a file, oldest first; none when there is no file.

    A last line that a crash cut short is left out.

    Raises
    ------
    ThoracleError
        Another line is no anchor.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    anchors = []
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            anchors.append(Anchor(int(values["id"]), values["digest"], values["recorded_at"]))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise ThoracleError(
                f"{path}, line {number}: found no anchor, required is an object with id, digest "
                "and recorded_at"
            ) from error
    return anchors


def last_verified(folder: Path) -> Anchor | None:
    """Return where the last verification ended that found all well, if there was one."""
    found = read_anchors(folder / VERIFIED)
    return found[-1] if found else None


def keep_verified(folder: Path, row_id: int, digest: str) -> None:
    """Remember where a verification ended that found all well."""
    text = json.dumps(asdict(Anchor(row_id, digest, now())))
    files.keep(folder / VERIFIED, f"{text}\n".encode())
