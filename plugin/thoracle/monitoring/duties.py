"""What one gateway does for all that share a database: the one that leads, from then to its end.

Others may stand still and go on at any time, so nothing here does harm when two do it: rows are
written under the lease (store/lease.py), and what is sent is sent again at worst.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial

from thoracle import pipeline
from thoracle.audit import forwarding
from thoracle.notify import witness
from thoracle.receive.inbox import Inbox
from thoracle.retention.purge import RetentionJob
from thoracle.settings import Settings
from thoracle.store import anchors, engine, signing, trail
from thoracle.store import database as databases
from thoracle.store.database import Database
from thoracle.store.lease import Alone, GatewayRow
from thoracle.study import instances

logger = logging.getLogger(__name__)

HOUSEKEEPING_SECONDS = 60.0


class Duties:
    """Begun by the one gateway at its start, and by one of several when it leads."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        lease: Alone,
        inbox: Inbox,
        signer: signing.Signer,
        stopped: threading.Event,
    ) -> None:
        self._settings, self._database, self._lease = settings, database, lease
        self._inbox, self._signer, self._stopped = inbox, signer, stopped
        self._retention = RetentionJob(database, settings, stopped)
        self._forwarders: list[forwarding.Forwarder] = []
        self._cleared = False
        self.begun = False
        """Whether this gateway leads."""

    @property
    def fault(self) -> str:
        """The kind of error with which the newest run of the retention ended early."""
        return self._retention.fault

    def begin(self) -> None:
        """Begin with what is left from before, and with the worklists of others."""
        self._anchor()
        engine.recover_executors(self._database)
        # Of several gateways, another may be about to receive the rest of a study.
        pipeline.recover_unplanned_studies(self._untouched_seconds if self._lease.owner else 0)
        pipeline.recover()
        if self._lease.is_first():
            pipeline.report_restart()
        # Threads last: when the database is away before, all of this comes again.
        self._forwarders = forwarding.start_forwarding(self._settings, self._database)
        for manager in self._settings.workflow_manager:
            pipeline.WorklistPoller(manager, self._stopped).start()
        self._retention.start()
        self.begun = True

    def end(self) -> None:
        """End them in order, after the last event."""
        forwarding.stop_forwarding(self._forwarders)
        if self.begun:
            self._anchor()

    def look(self) -> None:
        """Take over from gateways that are gone; begin when this one leads now."""
        self._lease.take_over()
        if not self.begun and self._lease.leads():
            logger.info("this gateway leads: it does what is done once for all")
            self.begin()
        if self.begun and self._lease.owner:
            engine.recover_executors(self._database)
            self._clear()
        elif self._lease.owner and self._settings.objects.bucket:
            self._inbox.clear_incoming(self._lease.alive)

    def housekeeping(self) -> Mapping[str, Callable[[], object]]:
        """Return what is looked after once a minute."""
        return {
            "deleted database": partial(_rescue, self._database),
            "complete studies": partial(
                pipeline.recover_unplanned_studies, self._untouched_seconds
            ),
            "analyses given up": pipeline.fail_abandoned_analyses,
            "audit anchors": self._anchor,
            "outbox": pipeline.recover,  # sends what is new of these, and alarms
        }

    @property
    def _untouched_seconds(self) -> float:
        return self._settings.complete.quiet_otherwise_seconds + HOUSEKEEPING_SECONDS

    def _anchor(self) -> None:
        """Keep an anchor of what is new in the audit, and have it witnessed."""
        engine.require_lease()
        path = self._settings.data_folder / anchors.ANCHORS_FILE
        anchors.drop_anchor(self._database, path, self._signer)
        witness.offer(self._database, self._settings)

    def _clear(self) -> None:
        """Clear away what gateways left unfinished that are gone, and record their end."""
        gone = self._lease.gone()
        if self._cleared and not gone:
            return
        number = self._inbox.clear_of_others(self._lease.alive, self._known_paths)
        if number:
            logger.warning("%d unfinished files of gateways that are gone: cleared away", number)
        for row in gone:
            with self._database.begin() as connection:
                columns = of_gateway(row)
                columns["event_outcome"] = trail.SERIOUS_FAILURE
                columns["detail"] |= {"heard_at": row.renewed_at, "files_cleared": number}
                trail.record(connection, trail.Event.APPLICATION_STOPPED, columns)
            self._lease.cleared(row.executor_id)
        self._cleared = True

    def _known_paths(self) -> set[str]:
        with self._database.connect() as connection:
            return instances.known_paths(connection)


def of_gateway(one: Alone | GatewayRow) -> trail.Columns:
    """Return the columns of an event that name one of several gateways."""
    if not one.name:
        return {}
    return {"detail": {"gateway": one.name, "executor": one.executor_id}}


def _rescue(database: Database) -> None:
    """Copy a database that was deleted, as long as this process still has it."""
    copied = databases.rescue(database)
    if copied is not None:
        logger.critical(
            "the database was deleted; nothing more is acknowledged. %s is a copy of it: stop the "
            "gateway, rename the copy, and start again",
            copied,
        )
