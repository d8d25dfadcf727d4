"""Events of an audit that is sent on: how they are made, and what has arrived."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine

from test_audit_message import filled
from thoracle.audit import forwarding, syslog
from thoracle.audit.forwarding import Forwarder
from thoracle.settings import AuditRepository, Settings, parse
from thoracle.store import trail
from thoracle.store.trail import Event

EVENTS = list(Event)


def settings_of(*tables: dict[str, Any]) -> Settings:
    return parse({"audit_repository": list(tables)})


def record(engine: Engine, number: int, **columns: Any) -> int:
    """Add events of all kinds; return the id of the last."""
    with engine.begin() as connection:
        for count in range(number):
            event = EVENTS[count % len(EVENTS)]
            values: Any = {
                "patient_id": f"P{count}",
                "study_instance_uid": f"1.2.{count}",
                **columns,
            }
            trail.record(connection, event, values)
    return last(engine)


def last(engine: Engine) -> int:
    with engine.connect() as connection:
        return forwarding._last_id(connection)


def rows_of(engine: Engine) -> dict[int, dict[str, Any]]:
    with engine.connect() as connection:
        rows = forwarding.batch(connection, 0, 10**6)
    return {row["id"]: filled({**row, "detail": json.loads(row["detail"])}) for row in rows}


@contextmanager
def forwarding_to(engine: Engine, settings: Settings) -> Iterator[list[Forwarder]]:
    with engine.begin() as connection:
        forwarding.begin(connection, settings.audit_repository)
    running = forwarding.start_forwarding(settings, engine)
    try:
        yield running
    finally:
        forwarding.stop_forwarding(running)
        assert not any(one.is_alive() for one in running)


def state(engine: Engine) -> dict[str, Any]:
    with engine.connect() as connection:
        return forwarding.repositories(connection)[0]


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def used(repository: AuditRepository) -> None:
    """Connect, and wait: with TLS 1.3 a refusal comes after the handshake."""
    link = syslog.connect(repository)
    time.sleep(1)
    link.check()
    link.close()


def in_order_once_each(rows: list[dict[str, Any]]) -> list[int]:
    """Return the ids in the order in which they first came."""
    return list(dict.fromkeys(row["id"] for row in rows))
