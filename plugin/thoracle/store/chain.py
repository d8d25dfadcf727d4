"""The chain of the trail: each row carries a digest of itself and of the row before.

The canonical form of a row is the JSON array of its columns in the order of ``COLUMNS``, as
orjson writes it, without what is NULL at its end; ``detail`` is the text that the database keeps.
The digest is SHA-256 over the previous digest (64 hexadecimal digits) and that array. Neither ever
changes: old rows must verify. A new column comes at the end, where NULL leaves no trace.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, insert, select, update

from thoracle.store.tables import audit_checkpoint, audit_event, audit_head

COLUMNS = (
    "id",
    "recorded_at",
    "event",
    "event_id",
    "event_type_code",
    "action",
    "event_outcome",
    "calling_ae_title",
    "called_ae_title",
    "network_address",
    "user_id",
    "patient_id",
    "issuer_of_patient_id",
    "study_instance_uid",
    "accession_number",
    "sop_instance_uid",
    "result_sop_instance_uid",
    "bundle_version",
    "bundle_digest",
    "outcome",
    "probability",
    "reason_code",
    "destination",
    "proof",
    "status",
    "correlation_id",
    "seconds",
    "detail",
    "finding",
)
FIRST = "0" * 64
"""Digest before the first row."""
HEAD = "head"
_FLOATS = ("probability", "seconds")


def digest_of(previous: str, values: Sequence[Any]) -> str:
    """Return the digest of a row.

    Parameters
    ----------
    previous
        Digest of the row before, hexadecimal.
    values
        Of ``COLUMNS`` in their order; ``detail`` as text.
    """
    length = len(values)
    while values[length - 1] is None:
        length -= 1
    content = orjson.dumps(values[:length])
    return hashlib.sha256(previous.encode() + content).hexdigest()


def append(connection: Connection, values: Mapping[str, Any]) -> int:
    """Add a row at the end of the chain; return its id.

    The end of the chain stays locked until the transaction ends, so that there is one order on
    SQLite and PostgreSQL alike.
    """
    last_id, previous = connection.execute(_TAKE).one()
    row = {name: _plain(value) for name, value in values.items() if name != "detail"}
    for name in _FLOATS:
        if row.get(name) is not None:
            row[name] = float(row[name])
    row["id"] = last_id
    detail = values["detail"]
    # The column's type writes the same text.
    content = [json.dumps(detail) if name == "detail" else row.get(name) for name in COLUMNS]
    digest = digest_of(previous, content)
    connection.execute(_ADD, {**row, "detail": detail, "digest": digest})
    connection.execute(_KEEP, {"new_digest": digest})
    return int(last_id)


def _plain(value: Any) -> Any:
    """Return a value as both databases give it back: no NUL, no half characters, no subclass."""
    if not isinstance(value, str):
        return value
    return str(value).replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


_TAKE = (
    update(audit_head)
    .where(audit_head.c.name == HEAD)
    .values(last_id=audit_head.c.last_id + 1)
    .returning(audit_head.c.last_id, audit_head.c.digest)
)
_ADD = insert(audit_event)
_KEEP = update(audit_head).where(audit_head.c.name == HEAD).values(digest=bindparam("new_digest"))


# ---- read ------------------------------------------------------------------------------------


def head(connection: Connection) -> tuple[int, str]:
    """Return id and digest of the end of the chain."""
    row = connection.execute(select(audit_head.c.last_id, audit_head.c.digest)).one()
    return int(row.last_id), str(row.digest)


def checkpoint(connection: Connection) -> tuple[int, str]:
    """Return id and digest after which the chain begins."""
    row = connection.execute(
        select(audit_checkpoint.c.up_to, audit_checkpoint.c.digest)
        .order_by(audit_checkpoint.c.up_to.desc())
        .limit(1)
    ).first()
    return (0, FIRST) if row is None else (int(row.up_to), str(row.digest))


def digest_at(connection: Connection, row_id: int) -> str | None:
    """Return the digest that a row has, if there is that row."""
    return connection.execute(
        select(audit_event.c.digest).where(audit_event.c.id == row_id)
    ).scalar()


def rows_after(connection: Connection, row_id: int) -> Iterator[Sequence[Any]]:
    """Yield the rows behind one, by id: the values of ``COLUMNS``, and the digest.

    They come from the driver as they are: a library between would take most of the time.
    """
    is_sqlite = connection.dialect.name == "sqlite"
    detail = "detail" if is_sqlite else "detail::text"
    columns = ", ".join(detail if name == "detail" else name for name in (*COLUMNS, "digest"))
    driver: Any = connection.connection.driver_connection
    # A named cursor of psycopg's leaves on the server what was not fetched yet.
    with closing(driver.cursor() if is_sqlite else driver.cursor(name="chain")) as cursor:
        cursor.execute(
            f"SELECT {columns} FROM audit_event WHERE id > {int(row_id)} ORDER BY id"  # noqa: S608 - no text from outside
        )
        while rows := cursor.fetchmany(BATCH):
            yield from rows


BATCH = 10_000
"""Rows fetched at a time."""
