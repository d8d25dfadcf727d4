"""Whether the trail is as it was written: the chain is followed, and held against its anchors.

A changed row, a row taken out, put in or moved breaks the chain at that place, because each digest
has all rows before in it. Whoever can write to the database could compute all digests anew, or cut
the end off. Anchors tell that: what the end of the chain was at some time, kept elsewhere. Where
the chain begins after a purge must be told by its event: audit/beginning.py.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlalchemy import Connection

from thoracle.audit import beginning
from thoracle.audit.beginning import Beginning
from thoracle.store import chain, erased, files, signing
from thoracle.store.anchors import Anchor, read_anchors
from thoracle.store.signing import KnownKeys
from thoracle.store.tables import now

VERIFIED = "audit-verified.json"
"""Below the data folder: where the last verification ended that found all well."""


def last_verified(folder: Path) -> Anchor | None:
    """Return where the last verification ended that found all well, if there was one."""
    found = read_anchors(folder / VERIFIED)
    return found[-1] if found else None


def keep_verified(folder: Path, row_id: int, digest: str) -> None:
    """Remember where a verification ended that found all well."""
    text = json.dumps(Anchor(row_id, digest, now()).as_json())
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
    beginning: Beginning = field(default_factory=Beginning)
    """What was purged before, and by which events."""
    signed: int = 0
    """Anchors with a valid signature."""
    keys: tuple[str, ...] = ()
    """Fingerprints of the keys that signed them."""

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
    keys: Mapping[str, bytes] | None = None,
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
    keys
        Public keys by fingerprint of which one must have signed each anchor; default: those that
        the trail itself names.
    """
    begins = beginning.of_trail(connection, anchors)
    if begins.broken_id is not None:
        return Verification(0, 0, chain.FIRST, begins.broken_id, begins.fault, begins)
    known = signing.known(connection)
    trusted = known.keys if keys is None else keys
    signed = [one for one in anchors if one.key in trusted]
    for fault in _unsigned(anchors, known, trusted, chain.checkpoint(connection)[0]):
        return Verification(0, 0, chain.FIRST, *fault, begins)
    if keys is not None and not signed:  # who takes all signatures away must not pass
        missing = (
            f"found no anchor signed with the key {', '.join(keys)} among {len(anchors)}, "
            "required: at least one"
        )
        return Verification(0, 0, chain.FIRST, chain.head(connection)[0], missing, begins)
    found = _of_rows(connection, anchors, since, told)
    by = tuple(sorted({one.key for one in signed}))
    return replace(found, beginning=begins, signed=len(signed), keys=by)


def _unsigned(
    anchors: Sequence[Anchor], known: KnownKeys, trusted: Mapping[str, bytes], begin_id: int
) -> Iterator[tuple[int, str]]:
    """Yield rows whose anchor has no valid signature of one of the keys, and what is wrong.

    From the first one that is signed, or the row that says so, all must be.
    """
    begun = [one.id for one in anchors if one.key]
    since = min([*begun, known.since or sys.maxsize])
    for one in anchors:
        if one.key in trusted:
            if not one.is_signed_by(trusted[one.key]):
                yield one.id, f"the signature of its anchor is not valid (key {one.key:.16})"
        elif one.key and one.id > begin_id:
            yield one.id, f"its anchor is signed with the key {one.key:.16}, which is not known"
        elif not one.key and one.id >= since:
            yield one.id, f"its anchor is not signed; from row {since} on all are"


def _of_rows(
    connection: Connection,
    anchors: Sequence[Anchor],
    since: Anchor | None,
    told: Callable[[int], None],
) -> Verification:
    end = chain.head(connection)  # before the rows: more may come while they are followed
    begin_id, digest = chain.checkpoint(connection)
    if since is not None and since.id > begin_id:
        if chain.digest_at(connection, since.id) != since.digest:
            return Verification(
                0, begin_id, digest, since.id, "it is not what it was at the anchor"
            )
        begin_id, digest = since.id, since.digest
    anchored: dict[int, set[str]] = {}
    for one in anchors:  # several keepers may have one of the same row: each counts
        anchored.setdefault(one.id, set()).add(one.digest)
    found = _follow(connection, begin_id, digest, anchored, told)
    return found if not found.well else _end(connection, found, anchors, end)


def _follow(
    connection: Connection,
    begin_id: int,
    digest: str,
    anchored: Mapping[int, set[str]],
    told: Callable[[int], None],
) -> Verification:
    width = len(chain.COLUMNS)
    last_id, rows = begin_id, 0
    digest_of, records = chain.digest_of, erased.Records(connection)
    for row in chain.rows_after(connection, begin_id):
        expected = digest_of(digest, row[:width])
        row_id = int(row[0])
        if expected != row[width] and not records.has(row_id, expected):
            gap = row_id - last_id - 1
            missing = f"; {gap} before it are missing" if gap else ""
            fault = f"its digest is not that of its content and the row before{missing}"
            return Verification(rows, last_id, digest, row_id, fault)
        if fault := records.fault(row):
            return Verification(rows, last_id, digest, row_id, fault)
        digest, last_id = str(row[width]), row_id
        rows += 1
        if not rows % chain.BATCH:
            told(rows)
        if anchored.get(row_id, {digest}) != {digest}:
            fault = "it was written anew: an anchor has another digest"
            return Verification(rows, last_id, digest, row_id, fault)
    if (unnamed := records.unnamed(begin_id)) is not None:
        fault = "records of an erasure name it, and it is none"
        return Verification(rows, last_id, digest, unnamed, fault)
    return Verification(rows, last_id, digest)


def _end(
    connection: Connection,
    found: Verification,
    anchors: Sequence[Anchor],
    begun: tuple[int, str],
) -> Verification:
    """Hold the end that was found against what it should be.

    ``begun`` is what the end was when the verification began: rows that came since are no fault.
    """
    expected = max([begun[0], *(one.id for one in anchors)])
    if found.last_id < expected:
        fault = f"the trail ends at {found.last_id}, required: {expected}: its end was cut off"
        return Verification(found.rows, found.last_id, found.digest, found.last_id + 1, fault)
    at_begin = found.digest if found.last_id == begun[0] else chain.digest_at(connection, begun[0])
    if at_begin != begun[1] or found.last_id > chain.head(connection)[0]:
        fault = "it is behind the end of the chain: not Thoracle added it"
        return Verification(found.rows, found.last_id, found.digest, begun[0] + 1, fault)
    return found
