"""Anchors that others kept, held against the log: each that it has not, or has otherwise, is named.

Whoever writes the database anew writes the anchors beside it anew, too; not those at a witness
(notify/witness.py) or in a time stamp (timestamps.py).
"""

from collections.abc import Iterable, Iterator

from sqlalchemy import Connection

from thoracle.audit.sentences import inert
from thoracle.store import chain
from thoracle.store.anchors import Anchor


def faults(connection: Connection, kept: Iterable[Anchor], keeper: str) -> Iterator[str]:
    """Yield a sentence for each anchor that is not one of the log, with both values.

    What was purged is left out: `audit/beginning.py` holds it against the event of the purge.

    Parameters
    ----------
    kept
        What the end of the log was at some time.
    keeper
        Who kept it, as ``the witness``.
    """
    begin_id, _ = chain.checkpoint(connection)
    last_id, _ = chain.head(connection)
    for one in dict.fromkeys(kept):
        if one.id <= begin_id:
            continue
        found = chain.digest_at(connection, one.id) if one.id <= last_id else None
        if found == one.digest:
            continue
        has = f"digest {found}" if found else f"no such row; its last is {last_id}"
        yield (
            f"row {one.id}: {keeper} has digest {inert(one.digest, 64)} of "
            f"{inert(one.recorded_at, 19)} UTC, "
            f"the log has {has}"
        )
