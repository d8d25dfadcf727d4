"""perform: workitems of workflow managers, found by looking and worked off durably (IHE AIW-I).

A look at a worklist may be lost; what was found is a workflow. Each run of it does one thing and
is followed by another, later, until the workitem has ended: nothing sleeps while images travel.
"""

import logging
import threading
from typing import Any

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID
from sqlalchemy import Connection

from thoracle.deliver.line import parts, peer_of_manager
from thoracle.errors import DeliveryError
from thoracle.settings import WorkflowManager
from thoracle.store import engine
from thoracle.ups import performances, performer
from thoracle.ups.scu import Worklist

logger = logging.getLogger(__name__)

PRIORITY = 1
AT_ONCE = 20
"""Workitems that one look takes: other performers may want some, too."""
LONGEST_SECONDS = 600.0
"""Between two looks at a manager that is away."""


class Lookout(threading.Thread):
    """Looks into a manager's worklist again and again, until ``stopped`` is set."""

    def __init__(self, manager: WorkflowManager, stopped: threading.Event) -> None:
        super().__init__(name=f"lookout-{manager.name}", daemon=True)
        self._manager = manager
        self._stopped = stopped

    def run(self) -> None:
        """Look, wait, look; longer each time while the manager is away."""
        failures = 0
        while not self._stopped.wait(self._delay(failures)):
            try:
                look(self._manager)
                failures = 0
            except (DeliveryError, OSError) as error:
                failures += 1
                logger.warning("workflow manager %s: %s", self._manager.name, error)
            except Exception:
                if self._stopped.is_set():  # the engine has ended meanwhile
                    return
                # The database may be out of reach for a while; the next look may be better.
                failures += 1
                logger.exception("workflow manager %s not looked at", self._manager.name)

    def _delay(self, failures: int) -> float:
        doubled = self._manager.poll_seconds * 2.0 ** min(failures, 20)
        return min(doubled, max(LONGEST_SECONDS, self._manager.poll_seconds))


def look(manager: WorkflowManager) -> None:
    """Have what is ours in a manager's worklist performed; what is known already is left alone."""
    with Worklist(peer_of_manager(manager, parts().settings)) as worklist:
        found = worklist.find(manager.workitem_code, manager.station_code)
    with parts().database.begin() as connection:
        performances.looked(connection, manager.name, len(found), found[:AT_ONCE])
    for uid in found[:AT_ONCE]:
        enqueue_perform(manager.name, uid, 1, None)


def enqueue_perform(manager: str, uid: str, attempt: int, delay: float | None) -> None:
    """Have a workitem attended to, after so many seconds."""
    with (
        SetWorkflowID(f"perform:{manager}:{uid}:{attempt}"),
        SetEnqueueOptions(priority=PRIORITY, queue_partition_key=manager, delay_seconds=delay),
    ):
        DBOS.enqueue_workflow(engine.PERFORM, perform, manager, uid, attempt)


@DBOS.workflow(name="perform", max_recovery_attempts=None)
def perform(manager: str, uid: str, attempt: int) -> None:
    """Do the next thing about a workitem, and look again later unless it has ended."""
    row = engine.transaction(_begin, manager, uid)
    if row is None:
        return
    done = _act(manager, uid, row)
    delay = engine.transaction(_acted, manager, uid, attempt, done)
    if delay is not None:
        enqueue_perform(manager, uid, attempt + 1, delay)


def _begin(connection: Connection, manager: str, uid: str) -> dict[str, Any] | None:
    return performances.begin(connection, manager, uid, str(DBOS.workflow_id))


@DBOS.step(name="act")
def _act(manager: str, uid: str, row: dict[str, Any]) -> dict[str, Any]:
    known = {one.name: one for one in parts().settings.workflow_manager}
    if manager not in known:
        detail = f"{manager} is no longer in the settings"
        return {"state": "lost", "detail": detail, "trouble": False}
    item = performer.Item(known[manager], uid, row["transaction_uid"], row)
    try:
        return performer.act(item)
    except Exception as error:
        # A fault of ours: without an end here it would be tried for ever, unseen.
        logger.exception("workitem of %s not performed", manager)
        return performer.give_up(item, f"{type(error).__name__}, see log")


def _acted(
    connection: Connection, manager: str, uid: str, attempt: int, done: dict[str, Any]
) -> float | None:
    return performances.acted(
        connection,
        manager,
        uid,
        attempt,
        done,
        parts().settings.deliver,
        str(DBOS.workflow_id),
    )
