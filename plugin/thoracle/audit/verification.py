"""Whether the trail is as it was written: the chain is followed, and held against its anchors.

A changed row, a row taken out, put in or moved breaks the chain at that place, because each digest
has all rows before in it. Whoever can write to the database could compute all digests anew, or cut
the end off. Anchors tell that: what the end of the chain was at some time, kept elsewhere.
"""

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine

from thoracle.errors import ThoracleError
from thoracle.store import chain, files
from thoracle.store.tables import now

logger = logging.getLogger(__name__)

ANCHORS_FILE = "audit-anchors.jsonl"
"""Below the data folder."""
# ---- anchors -------------------------------------------------------------------------------------
# Anchors: what the end of the chain was, kept in a second file and in the log.
#
# Each is a line of JSON with id, digest and time. Copy the file to where nobody who can write to
# the database can write, or have each line signed: the more often, the less can be cut off
# unseen.

VERIFIED = "audit-verified.json"
"""Below the data folder: where the last verification ended that found all well."""


_LAST_BYTES = 4096
"""Of a file of anchors: some twenty of them."""


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
                f"{path}, line {number}: found no anchor, required: an object with id, digest "
                "and recorded_at"
            ) from error
    return anchors


def last_anchor(path: Path) -> Anchor | None:
    """Return the newest anchor of a file, whatever its length; ``None`` when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LAST_BYTES))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            values = json.loads(line)
            return Anchor(int(values["id"]), values["digest"], values["recorded_at"])
        except (ValueError, KeyError, TypeError):
            continue  # the last one may be cut short by a crash, the first one here by ourselves
    return None


def last_verified(folder: Path) -> Anchor | None:
    """Return where the last verification ended that found all well, if there was one."""
    found = read_anchors(folder / VERIFIED)
    return found[-1] if found else None


def keep_verified(folder: Path, row_id: int, digest: str) -> None:
    """Remember where a verification ended that found all well."""
    text = json.dumps(asdict(Anchor(row_id, digest, now())))
    files.write_durably(folder / VERIFIED, f"{text}\n".encode())


# ---- verification --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verification:
    """What became of following the chain."""

    rows: int
    """How many rows were followed."""
    last_id: int
    """Of the last row that fits."""
    digest: str
    """Of that row, hexadecimal."""
    broken_id: int | None = None
    """The first row that does not fit; ``None``: all do."""
    fault: str = ""
    """What does not fit there."""

    @property
    def well(self) -> bool:
        """Whether everything fits."""
        return self.broken_id is None


def _nobody(_rows: int) -> None:
    """Tell nobody how far it is."""


def verify(
    connection: Connection,
    anchors: Sequence[Anchor] = (),
    since: Anchor | None = None,
    told: Callable[[int], None] = _nobody,
) -> Verification:
    """Follow the chain and say whether, and where first, it is broken.

    Parameters
    ----------
    anchors
        What the end of the chain was earlier, as kept elsewhere; by id.
    since
        Follow it from here only: an anchor that an earlier verification ended at.
    told
        Called from time to time with the number of rows followed so far.
    """
    begin_id, digest = chain.checkpoint(connection)
    if since is not None and since.id > begin_id:
        if chain.digest_at(connection, since.id) != since.digest:
            return Verification(
                0, begin_id, digest, since.id, "it is not what it was at the anchor"
            )
        begin_id, digest = since.id, since.digest
    anchored = {one.id: one.digest for one in anchors}
    found = _follow(connection, begin_id, digest, anchored, told)
    return found if not found.well else _end(connection, found, anchors)


def _follow(
    connection: Connection,
    begin_id: int,
    digest: str,
    anchored: dict[int, str],
    told: Callable[[int], None],
) -> Verification:
    width = len(chain.COLUMNS)
    last_id, rows = begin_id, 0
    digest_of = chain.digest_of
    for row in chain.rows_after(connection, begin_id):
        expected = digest_of(digest, row[:width])
        row_id = int(row[0])
        if expected != row[width]:
            gap = row_id - last_id - 1
            missing = f"; {gap} before it are missing" if gap else ""
            fault = f"its digest is not that of its content and the row before{missing}"
            return Verification(rows, last_id, digest, row_id, fault)
        digest, last_id = expected, row_id
        rows += 1
        if not rows % chain.BATCH:
            told(rows)
        if row_id in anchored and anchored[row_id] != digest:
            fault = "it was written anew: an anchor has another digest"
            return Verification(rows, last_id, digest, row_id, fault)
    return Verification(rows, last_id, digest)


def _end(connection: Connection, found: Verification, anchors: Sequence[Anchor]) -> Verification:
    """Hold the end that was found against what it should be."""
    head_id, head_digest = chain.head(connection)
    expected = max([head_id, *(one.id for one in anchors)])
    if found.last_id < expected:
        fault = f"the trail ends at {found.last_id}, required: {expected}: its end was cut off"
        return Verification(found.rows, found.last_id, found.digest, found.last_id + 1, fault)
    if (found.last_id, found.digest) != (head_id, head_digest):
        fault = "it is behind the end of the chain: not Thoracle added it"
        return Verification(found.rows, found.last_id, found.digest, head_id + 1, fault)
    return found
