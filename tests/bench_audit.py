"""The audit at size: what questions, additions and verification cost from 10^4 to 10^7 rows.

`python tests/bench_audit.py --rows 10000000 --postgres 1000000` prints the section of
docs/benchmarks.md. The rows are a realistic mix of a hospital's years, in a chain as the product
makes it.
"""

import argparse
import itertools
import json
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, text

from postgres import postgres
from thoracle.audit import query, search
from thoracle.audit.query import Question
from thoracle.audit.verification import verify
from thoracle.fhir.rows import Token
from thoracle.store import chain, database, trail
from thoracle.store.trail import Event

DIGESTS = [f"{number:064x}" for number in range(7)]
"""Of the bundles that were in use, one after the other."""
REASONS = ["NOT-CHEST", "NOT-FRONTAL", "INVERTED", "INCOMPLETE", "UNDECODABLE"]
USERS = [f"reader{number}" for number in range(40)]
ROOMS = [f"ROOM_{number}" for number in range(25)]
LAST = datetime(2026, 11, 24, tzinfo=UTC)
YEARS = 6
PAGE = 50
REPEATED = 40
Row = dict[str, Any]


def events(rows: int, seed: int = 1) -> Iterator[tuple[Event, Row]]:
    """Yield so many events: about a dozen of each study, its readers, its deliveries."""
    draw = random.Random(seed)
    made = 0
    number = 0
    while made < rows:
        number += 1
        for one in _study(draw, number):
            yield one
            made += 1
            if made == rows:
                return


def _study(draw: random.Random, number: int) -> Iterator[tuple[Event, Row]]:
    uid = f"1.2.826.0.1.3680043.10.{number}"
    of = {
        "patient_id": f"P{draw.randrange(1 + number // 2):07d}",
        "issuer_of_patient_id": "HOSPITAL",
        "study_instance_uid": uid,
        "accession_number": f"A{number:08d}",
    }
    image, report = f"{uid}.1", f"{uid}.2"
    sender = {"calling_ae_title": draw.choice(ROOMS), "network_address": "10.1.2.3"}
    status = {"status": "0x0000", "seconds": draw.random() / 50}
    yield Event.INSTANCE_STORED, {**of, **sender, **status, "sop_instance_uid": image}
    yield Event.STUDY_COMPLETE, {**of, "detail": {"generation": 1, "images": 1}}
    bundle = {"bundle_digest": draw.choice(DIGESTS), "bundle_version": "covid 0.2.0"}
    (outcome,) = draw.choices(
        ["negative", "positive", "indeterminate", "rejected"], [70, 12, 10, 8]
    )
    said: Row = {"outcome": outcome, "seconds": 0.1 + draw.expovariate(5)}
    if outcome == "rejected":
        said["reason_code"] = draw.choice(REASONS)
    else:
        said["probability"] = round(draw.random(), 4)
    stages = {"detail": None, "seconds": {"decode": 0.03, "transforms": 0.05, "networks": 0.03}}
    yield (
        Event.IMAGE_READ,
        {**of, **bundle, **said, "sop_instance_uid": image, "detail": stages},
    )
    made = {**of, **bundle, "result_sop_instance_uid": report, "outcome": outcome}
    yield Event.RESULT_CREATED, {**made, "detail": {"generation": 1, "kind": "sr"}}
    sent = {**of, "result_sop_instance_uid": report, "destination": draw.choice(["pacs", "vna"])}
    if draw.random() < 0.02:
        yield Event.DELIVERY_POSTPONED, {**sent, "event_outcome": trail.MINOR_FAILURE}
    yield Event.DELIVERY_SENT, {**sent, "status": "0x0000"}
    yield Event.DELIVERY_SUCCEEDED, {**sent, "proof": "commitment", "status": "0x0000"}
    yield Event.NOTIFICATION_SENT, {**of, "destination": "ris"}
    user = {"user_id": draw.choice(USERS), "network_address": f"10.9.0.{draw.randrange(250)}"}
    yield Event.LIST_VIEWED, {**user, "detail": {"means": "GET /", "studies": 50}}
    yield Event.STUDY_VIEWED, {**of, **user, "detail": {"means": "GET /study/{uid}"}}
    if draw.random() < 0.5:
        yield Event.VERDICT_GIVEN, {**of, **user, "outcome": outcome}
    if draw.random() < 0.01:
        yield Event.INSTANCE_REFUSED, {**sender, "event_outcome": 8, "status": "0xA900"}


def chained(rows: int) -> Iterator[list[Any]]:
    """Yield the values of so many rows, in the order of the columns, with their digests."""
    digest = chain.FIRST
    step = timedelta(days=365 * YEARS) / rows
    for number, (event, columns) in enumerate(events(rows), 1):
        row: Row = {"event_outcome": 0, **columns}
        row |= {
            "id": number,
            "recorded_at": f"{LAST - step * (rows - number):%Y-%m-%dT%H:%M:%S.%fZ}",
            "event": event.verb,
            "event_id": event.event_id,
            "event_type_code": event.event_type_code,
            "action": event.action,
            "detail": json.dumps(columns.get("detail", {})),
        }
        values = [row.get(name) for name in chain.COLUMNS]
        digest = chain.digest_of(digest, values)
        yield [*values, digest]


def fill(folder: Path, rows: int) -> None:
    """Write a database of today's schema with so many rows in its trail, in a chain."""
    database.open_database(database.sqlite_url(folder)).dispose()
    connection = sqlite3.connect(folder / "thoracle.sqlite")
    connection.execute("PRAGMA synchronous=OFF")
    marks = ", ".join("?" * (len(chain.COLUMNS) + 1))
    statement = f"INSERT INTO audit_event ({NAMES}) VALUES ({marks})"
    made = chained(rows)
    last: list[Any] = []
    while batch := list(itertools.islice(made, 20_000)):
        connection.executemany(statement, batch)
        connection.commit()
        last = batch[-1]
    connection.execute("UPDATE audit_head SET last_id = ?, digest = ?", (last[0], last[-1]))
    connection.commit()
    connection.execute("ANALYZE")
    connection.close()


def fill_postgres(url: str, rows: int) -> None:
    """Write the same into an empty database of PostgreSQL."""
    database.open_database(url).dispose()
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        last: list[Any] = []
        with (
            connection.cursor() as cursor,
            cursor.copy(f"COPY audit_event ({NAMES}) FROM STDIN") as copy,
        ):
            for last in chained(rows):
                copy.write_row(last)
        connection.execute("UPDATE audit_head SET last_id = %s, digest = %s", (last[0], last[-1]))
        connection.commit()
        connection.execute("ANALYZE audit_event")


NAMES = ", ".join((*chain.COLUMNS, "digest"))


def questions(rows: int) -> dict[str, Question]:
    """Return a question for each filter, about the middle of the trail."""
    middle = max(1, rows // 26)
    uid = f"1.2.826.0.1.3680043.10.{middle}"
    month: dict[str, Any] = {"since": "2025-03-01", "until": "2025-04-01"}
    years: dict[str, Any] = {"since": "2021-01-01", "until": "2026-12-01"}
    return {
        "study": Question(study_instance_uid=uid),
        "patient and issuer": Question(
            patient_id=f"P{middle // 4:07d}", issuer_of_patient_id="HOSPITAL"
        ),
        "accession number": Question(accession_number=f"A{middle:08d}"),
        "SOP instance, source": Question(sop_instance_uid=f"{uid}.1"),
        "SOP instance, result": Question(sop_instance_uid=f"{uid}.2"),
        "a month": Question(**month),
        "all years": Question(**years),
        "event, a month": Question(event="instance refused", **month),
        "event, all years": Question(event="delivery postponed", **years),
        "action, all years": Question(action="D", **years),
        "failures, all years": Question(event_outcome=8, **years),
        "AE title, all years": Question(ae_title="ROOM_7", **years),
        "address, all years": Question(network_address="10.9.0.77", **years),
        "user, a month": Question(user_id="reader7", **month),
        "user, all years": Question(user_id="reader7", **years),
        "user who never came": Question(user_id="nobody", **years),
        "bundle digest, all years": Question(bundle=DIGESTS[3], **years),
        "bundle version, all years": Question(bundle="covid 0.2.0", **years),
        "outcome, all years": Question(outcome="positive", **years),
        "reason, all years": Question(reason_code="INVERTED", **years),
        "destination, all years": Question(destination="vna", **years),
        "proof, all years": Question(proof="query", **years),
        "status, all years": Question(status="0xA900", **years),
        "slower than 2 s, all years": Question(at_least_seconds=2, **years),
        "user and event, all years": Question(user_id="reader7", event="verdict given", **years),
        "destination and failure": Question(destination="vna", event_outcome=8, **years),
    }


def searches() -> dict[str, search.EventSearch]:
    """Return searches of FHIR over all years: of what is often there, seldom, and never."""
    years = ((">=", "2021-01-01"), ("<", "2026-12-01"))
    wanted = {
        "type, often": ("type", "110104"),
        "type, never": ("type", "110199"),
        "subtype, a verb": ("subtype", "verdict-given"),
        "subtype, never": ("subtype", "110131"),
        "address, one": ("address", "10.9.0.77"),
        "address, eleven": ("address", "10.9.0.7"),
        "address, never": ("address", "192.168."),
        "entity-role job, never": ("entity-role", search.JOB),
        "entity-role query": ("entity-role", search.SEARCH),
        "agent": ("agent", "reader7"),
    }
    return {
        f"FHIR {name}": search.EventSearch(((parameter, (Token(None, code),)),), years)
        for name, (parameter, code) in wanted.items()
    }


def asked(engine: Engine, page: Callable[[Connection], object]) -> tuple[float, float]:
    """Return p50 and p95 of a first page, milliseconds."""
    took = []
    with engine.connect() as connection:
        for _ in range(REPEATED):
            began = time.perf_counter()
            page(connection)
            took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took), statistics.quantiles(took, n=20)[18]


def added(engine: Engine, rows: int = 2000) -> float:
    """Return the processor time of adding a row in a transaction with others, milliseconds."""
    found = list(events(rows, seed=2))
    with engine.begin() as connection:
        began = time.process_time()
        for event, columns in found:
            trail.record(connection, event, trail.Columns(**columns))  # type: ignore[typeddict-item]  # generated
        took = time.process_time() - began
        connection.rollback()
    return took * 1000 / rows


def viewed(engine: Engine, views: int = 200) -> float:
    """Return the processor time of recording a list of so many studies as a page, milliseconds."""
    with engine.begin() as connection:
        began = time.process_time()
        for number in range(views):
            studies = [f"1.2.826.0.1.3680043.10.{number * 37 + one}" for one in range(PAGE)]
            trail.record(connection, Event.LIST_VIEWED, {"detail": {"studies": studies}})
        took = time.process_time() - began
        connection.rollback()
    return took * 1000 / views


def counted(engine: Engine, by: str, span: tuple[str, str] | None) -> float:
    """Return the median of counting the events by something, milliseconds."""
    took = []
    with engine.connect() as connection:
        for _ in range(5):
            began = time.perf_counter()
            query.count(connection, by, *(span or ()))
            took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def followed(engine: Engine) -> float:
    """Return the rows a second of a verification."""
    with engine.connect() as connection:
        began = time.process_time()
        result = verify(connection)
        took = time.process_time() - began
    assert result.well, result
    return result.rows / took


def section(sizes: list[int], postgres_rows: int) -> Iterator[str]:
    """Yield the section of docs/benchmarks.md."""
    table: dict[str, list[str]] = {}
    titles = [f"{rows:,} rows" for rows in sizes]
    for rows in sizes:
        with tempfile.TemporaryDirectory(prefix="thoracle-bench-audit-") as folder:
            fill(Path(folder), rows)
            engine = database.connect(database.sqlite_url(Path(folder)))
            _measure(engine, rows, table)
            engine.dispose()
    if postgres_rows:
        titles.append(f"{postgres_rows:,} rows, PostgreSQL")
        with postgres() as url:
            fill_postgres(url, postgres_rows)
            engine = database.connect(url)
            _measure(engine, postgres_rows, table)
            engine.dispose()
    yield from ("## The audit", "", f"First page of {PAGE} events, newest first: p50 / p95 in ms.")
    yield from ("", "| question | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|")
    for name, cells in table.items():
        yield f"| {name} | " + " | ".join(cells) + " |"


def _measure(engine: Engine, rows: int, table: dict[str, list[str]]) -> None:
    pages: dict[str, Callable[[Connection], object]] = {
        name: partial(query.page, question=question, limit=PAGE)
        for name, question in questions(rows).items()
    }
    for name, one in searches().items():
        pages[name] = partial(search.page, search=one, source_id="THORACLE", limit=PAGE)
    for name, page in pages.items():
        p50, p95 = asked(engine, page)
        table.setdefault(name, []).append(f"{p50:.1f} / {p95:.1f}")
    for by in query.BY:
        whole, month = counted(engine, by, None), counted(engine, by, ("2025-03-01", "2025-04-01"))
        table.setdefault(f"count by {by}, all / a month", []).append(f"{whole:.0f} / {month:.1f}")
    table.setdefault("add a row, CPU ms", []).append(f"{added(engine):.3f}")
    table.setdefault(f"record a list of {PAGE}, CPU ms", []).append(f"{viewed(engine):.3f}")
    table.setdefault("verify, rows a second", []).append(f"{followed(engine):,.0f}")
    table.setdefault("file, bytes a row", []).append(f"{_bytes(engine) / rows:.0f}")


def _bytes(engine: Engine) -> int:
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            size = text("SELECT pg_total_relation_size('audit_event')")
            return int(connection.execute(size).scalar_one())
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        return int(pages) * int(connection.execute(text("PRAGMA page_size")).scalar_one())


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    arguments.add_argument("--postgres", type=int, default=0, metavar="ROWS")
    chosen = arguments.parse_args()
    for line in section(chosen.rows, chosen.postgres):
        print(line, flush=True)
