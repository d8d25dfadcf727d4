"""Verification of the trail beside the pages: one at a time, which says how far it is.

Where it ended well is remembered as `thoracle audit verify` does it, so that each goes on where the
other ended; when the pages have a user of their own, in a file of their own: the command trusts
none that they can write.
"""

import logging
import threading
from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy import Engine

from thoracle.audit import contents, verification
from thoracle.audit.contents import Contents
from thoracle.audit.verification import Verification
from thoracle.errors import ThoracleError
from thoracle.settings import Settings
from thoracle.store import anchors, objects
from thoracle.store.anchors import Anchor
from thoracle.store.chain import checkpoint, head
from thoracle.store.tables import now

logger = logging.getLogger(__name__)

State = Literal["never", "running", "well", "broken", "failed"]


@dataclass(frozen=True, slots=True)
class Run:
    """A verification that somebody asked for."""

    by: str
    """Name of the person."""
    began_at: str
    """ISO 8601 in UTC."""
    since_id: int
    """It checks the chain after this row."""
    total: int
    """Rows that there were to follow when it began."""
    rows: int = 0
    """Rows checked so far."""
    ended_at: str | None = None
    result: Verification | None = None
    contents: Contents | None = None
    """What became of results, verdicts and files; ``None``: only new entries were verified."""
    studies: int = 0
    """Of which results, verdicts and files were checked so far."""
    fault: str = ""
    """Why it could not be done, in words."""

    @property
    def state(self) -> State:
        """What became of it."""
        if self.ended_at is None:
            return "running"
        if self.result is None:
            return "failed"
        changed = self.contents is not None and self.contents.faults
        return "well" if self.result.well and not changed else "broken"


class Verifier:
    """Verifies the trail of one database in a thread.

    Parameters
    ----------
    database
        It has the trail.
    settings
        They say where the anchors are, and where it is kept where the last verification ended.
    """

    def __init__(self, database: Engine, settings: Settings) -> None:
        self._database = database
        self._folder = settings.data_folder
        self._settings = settings
        self._own = settings.pages_folder
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None
        self._run: Run | None = None

    @property
    def run(self) -> Run | None:
        """The one that runs or ran last; ``None``: none since the pages were started."""
        return self._run

    def begin(self, by: str, whole: bool) -> Run:
        """Begin a verification, unless one is running; return it.

        Parameters
        ----------
        by
            Who asks.
        whole
            From where the chain begins, not from where the last verification ended.

        Raises
        ------
        ThoracleError
            The file that says where it ended is damaged.
        """
        with self._turn:
            if self._run is not None and self._run.ended_at is None:
                return self._run
            since = None if whole else verification.last_verified(self._own)
            with self._database.connect() as connection:
                begin_id = max(checkpoint(connection)[0], since.id if since else 0)
                total = max(head(connection)[0] - begin_id, 0)
            self._run = Run(by, now(), begin_id, total)
            self._thread = threading.Thread(target=self._follow, args=(since,), daemon=True)
            self._thread.start()
            return self._run

    def wait(self, seconds: float) -> None:
        """Return when the verification has ended, and after so many seconds in any case."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _follow(self, since: Anchor | None) -> None:
        values: dict[str, object] = {"fault": "see the log of `thoracle web`"}
        try:
            result = self._verified(since)
            values = {"result": result, "rows": result.rows, "fault": ""}
            if since is None and result.well:
                values["contents"] = self._contents()
        except (ThoracleError, OSError) as error:
            values = {"fault": str(error)}
        finally:  # an error that nobody expects ends the thread, and is in the log
            assert self._run is not None
            self._run = replace(self._run, ended_at=now(), **values)  # type: ignore[arg-type]  # fields of Run

    def _verified(self, since: Anchor | None) -> Verification:
        kept = anchors.read_anchors(self._folder / anchors.ANCHORS_FILE)
        with self._database.connect() as connection:
            result = verification.verify(connection, kept, since, self._told)
        if result.well:
            verification.keep_verified(self._own, result.last_id, result.digest)
        else:
            logger.error("the audit is broken at row %s: %s", result.broken_id, result.fault)
        return result

    def _contents(self) -> Contents:
        found = contents.check(self._database, objects.of(self._settings), told=self._told_studies)
        for fault in found.faults:
            logger.error("not as the audit says: %s", fault)
        return found

    def _told_studies(self, studies: int) -> None:
        assert self._run is not None
        self._run = replace(self._run, studies=studies)

    def _told(self, rows: int) -> None:
        assert self._run is not None
        self._run = replace(self._run, rows=rows)
