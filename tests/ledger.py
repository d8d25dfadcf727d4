"""What a gateway's database and data folder say, asked from outside while it runs."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from gateway import Gateway
from thoracle.store import sqlite

T = TypeVar("T")

LONGEST = 180.0
"""Seconds: loading the networks takes ten on a quiet machine, and a minute on a busy one."""


def rows(gateway: Gateway, statement: str, *values: object) -> list[dict[str, Any]]:
    """Return the rows of a SELECT, in which ``?`` stands for a value."""
    if gateway.database_url is not None:
        return _postgresql_rows(gateway.database_url, statement.replace("?", "%s"), values)
    file = sqlite.file(gateway.data_folder)
    with closing(sqlite3.connect(file, timeout=30)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(statement, values)]


def _postgresql_rows(url: str, statement: str, values: tuple[object, ...]) -> list[dict[str, Any]]:
    options = "-c search_path=public,dbos"
    connection = psycopg.connect(url, options=options, row_factory=psycopg.rows.dict_row)
    with closing(connection), connection.cursor() as cursor:
        return list(cursor.execute(statement.encode(), values or None))


def files(gateway: Gateway, folder: str) -> list[Path]:
    """Return the files below a folder of the data folder."""
    return [path for path in (gateway.data_folder / folder).rglob("*") if path.is_file()]


def eventually(condition: Callable[[], T], seconds: float = LONGEST) -> T:
    """Return what the condition returns as soon as it is true; ``TimeoutError`` if never."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so after {seconds} s: {condition}")
        time.sleep(0.05)
    return value


def concluded(
    gateway: Gateway, study_instance_uid: str, seconds: float = LONGEST
) -> dict[str, Any]:
    """Return the newest finished analysis of a study, with its reading, once there is one."""
    statement = (
        "SELECT * FROM reading JOIN analysis USING (study_instance_uid, generation, bundle_digest) "
        "WHERE study_instance_uid = ? AND state = 'done' ORDER BY generation DESC"
    )
    return eventually(lambda: rows(gateway, statement, study_instance_uid), seconds)[0]


def events(gateway: Gateway, event: str, sop_instance_uid: str) -> list[dict[str, Any]]:
    """Return the rows of the audit with this event about this instance."""
    statement = "SELECT * FROM audit_event WHERE event = ? AND sop_instance_uid = ?"
    return rows(gateway, statement, event, sop_instance_uid)


def residue(gateway: Gateway) -> list[Path]:
    """Return unfinished files, and files of the store without a row."""
    known = {
        gateway.data_folder / row["path"] for row in rows(gateway, "SELECT path FROM instance")
    }
    return files(gateway, "incoming") + sorted(set(files(gateway, "images")) - known)
