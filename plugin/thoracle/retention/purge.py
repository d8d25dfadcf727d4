"""What is due by the rules of ``[retention]`` goes: one small transaction after the other.

Any process may do it, beside a gateway at work or without one: each study is decided anew inside
its transaction, a file goes only after its row is committed, and what a crash leaves half done the
next run finishes. Between two transactions there is a pause in which others get the database.
"""

import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import Engine

from thoracle.errors import DataFolderInUse, ThoracleError
from thoracle.report import context
from thoracle.retention import removal, rules
from thoracle.retention import rows as stored
from thoracle.retention.rows import PurgeKind
from thoracle.retention.rules import RetentionLimits
from thoracle.settings import Settings
from thoracle.store import engine, files, objects, rights, signing
from thoracle.store.anchors import ANCHORS_FILE, read_anchors
from thoracle.study import headers

logger = logging.getLogger(__name__)

STUDIES = 200
"""Looked at in one query."""
EVENTS = 500
"""Rows of the audit deleted in one transaction."""
WORKFLOWS = 200
PAUSE_SECONDS = 0.02
FIRST_SECONDS = 120.0
"""From the start of the gateway to its first look: what was under way then comes first."""


@dataclass
class Done:
    """What a run did."""

    studies: dict[PurgeKind, int] = field(default_factory=dict)
    """How many studies' files have gone."""
    files: int = 0
    """All that were unlinked, those that an earlier run had left too."""
    pictures: int = 0
    orphans: int = 0
    workflows: int = 0
    rows: int = 0
    """Of studies, verdicts and readings."""
    events: int = 0
    """Rows of the audit."""

    def __str__(self) -> str:
        of = {what: self.studies.get(what, 0) for what in PurgeKind}
        return (
            f"images of {of[PurgeKind.IMAGES]} studies, "
            f"results of {of[PurgeKind.RESULTS]} studies ({self.files} files), "
            f"headers of {of[PurgeKind.HEADERS]} studies, "
            f"readings of {of[PurgeKind.READINGS]} studies, "
            f"verdicts of {of[PurgeKind.VERDICTS]} studies, "
            f"{of[PurgeKind.STUDIES]} whole studies ({self.rows} rows), "
            f"{self.pictures} pictures, {self.orphans} orphans, {self.workflows} workflows, "
            f"{self.events} rows of the audit"
        )


class Purge:
    """One run.

    Parameters
    ----------
    stopped
        Set, it ends the run after the transaction under way.
    moment
        Aware; what would be due then goes. Default: now.
    """

    def __init__(
        self,
        database: Engine,
        settings: Settings,
        stopped: threading.Event | None = None,
        moment: datetime | None = None,
    ) -> None:
        self._database = database
        self._settings = settings
        self._objects = objects.of(settings)
        self._stopped = stopped or threading.Event()
        self._limits = RetentionLimits.of(settings.retention, moment)
        self._done = Done()

    def run(self) -> Done:
        """Delete what is due; return what that was.

        Raises
        ------
        DataFolderInUse
            Another run is at work.
        """
        with _alone(self._settings.data_folder):
            self._finish()
            for what in (PurgeKind.IMAGES, PurgeKind.RESULTS, PurgeKind.HEADERS):
                self._studies(what)
            for what in removal.KINDS:
                self._rows(what)
            self._pictures()
            self._orphans()
            self._workflows()
            self._audit()
        return self._done

    def _pause(self) -> bool:
        """Let others have the database; return whether to end."""
        return self._stopped.wait(PAUSE_SECONDS)

    def _finish(self) -> None:
        """Unlink what an earlier run only announced."""
        while True:
            with self._database.connect() as connection:
                paths = stored.going(connection, STUDIES)
            if not paths or self._pause():
                return
            self._unlink(paths)

    def _studies(self, what: PurgeKind) -> None:
        after = ""
        while True:
            with self._database.connect() as connection:
                found = rules.candidates(connection, what, self._limits, after, STUDIES)
            for study in found:
                if self._pause():
                    return
                self._study(what, study)
            if len(found) < STUDIES:
                return
            after = found[-1]

    def _study(self, what: PurgeKind, study: str) -> None:
        kept = self._headers(study) if what is PurgeKind.IMAGES else rules.NOTHING
        if kept is None:
            return
        with self._database.begin() as connection:
            paths = rules.mark_going(connection, what, study, self._limits, kept)
        if paths is not None:
            self._done.studies[what] = self._done.studies.get(what, 0) + 1
            if paths:
                self._unlink(paths)

    def _rows(self, what: PurgeKind) -> None:
        before = self._limits.before(what)
        after, files_until = "", ""
        while before:
            with self._database.connect() as connection:
                found = removal.candidates(connection, what, before, after, STUDIES)
            due = self._without_work(found) if what is PurgeKind.STUDIES else found
            for study in due:
                if self._pause():
                    break
                with self._database.begin() as connection:
                    gone = removal.remove(connection, what, study, self._limits)
                if gone is not None:
                    self._done.studies[what] = self._done.studies.get(what, 0) + 1
                    self._done.rows += gone.rows
                    files_until = max(files_until, gone.files_until)
            if len(found) < STUDIES or self._stopped.is_set():
                break
            after = found[-1]
        if files_until:
            self._forget_pictures(files_until)

    def _without_work(self, found: list[str]) -> list[str]:
        """Return the studies that may go, without what the engine knows of them.

        Its rows would make the work on a study that comes again a repetition.
        """
        with self._database.connect() as connection:
            due = [
                study
                for study in found
                if not any(removal.reasons(connection, PurgeKind.STUDIES, study, self._limits))
            ]
            words = removal.words(connection, due)
        if not due or self._pause():
            return []
        number, named = engine.delete_ended_naming(self._database, words)
        self._done.workflows += number
        return [study for study in due if study not in {words[one] for one in named}]

    def _forget_pictures(self, until: str) -> None:
        """Delete the pictures that nobody looked at since a moment.

        They are named by what they were made of, and nobody can look at one whose files have gone.
        """
        self._delete_pictures(datetime.fromisoformat(until))

    def _headers(self, study: str) -> Mapping[str, bytes | None] | None:
        """Return what stays of a study's images, by path; ``None`` when they stay themselves.

        Files are read here, not inside the transaction, where others would wait for it.
        """
        with self._database.connect() as connection:
            if not rules.may_go(connection, PurgeKind.IMAGES, study, self._limits):
                return None
            wanted = headers.wanted(connection, study)
        try:
            return {row.path: context.extract(self._objects.local(row.path)) for row in wanted}
        except (OSError, ThoracleError) as error:
            logger.error("retention: images of %s stay: %s", study, type(error).__name__)
            return None

    def _unlink(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._objects.delete(path)
            self._done.files += 1
        with self._database.begin() as connection:
            stored.gone(connection, paths)

    def _pictures(self) -> None:
        """Delete the pictures that nobody looked at: copies of what has its own event."""
        if days := self._settings.retention.pictures_days:
            self._delete_pictures(self._limits.moment - timedelta(days=days))

    def _delete_pictures(self, until: datetime) -> None:
        folder = self._settings.data_folder / rights.PICTURES
        self._done.pictures += files.delete_untouched(folder, until.timestamp())

    def _orphans(self) -> None:
        """Delete what starts of the gateway have set aside; it was when its name changed."""
        if not (days := self._settings.retention.orphans_days):
            return
        before = (self._limits.moment - timedelta(days=days)).timestamp()
        due = [one.name for one in self._objects.orphans() if one.since < before]
        if not due:
            return
        with self._database.begin() as connection:
            rules.files_deleted(connection, "orphans", len(due), days)
        for name in due:
            self._objects.delete_orphan(name)
        self._done.orphans += len(due)

    def _workflows(self) -> None:
        limits = self._settings.retention
        ages = [
            (timedelta(hours=limits.workflow_hours), engine.SUCCEEDED),
            (timedelta(days=limits.workflow_days), engine.ENDED),
        ]
        for age, states in ages:
            if age:
                before = self._limits.moment - age
                forget = partial(engine.delete_ended, self._database, before, WORKFLOWS, states)
                self._done.workflows += self._repeat(forget, WORKFLOWS)

    def _audit(self) -> None:
        days = self._settings.retention.audit_days
        repositories = [one.name for one in self._settings.audit_repository]
        path = self._settings.data_folder / ANCHORS_FILE
        kept = read_anchors(path) if days else []
        while True:
            with self._database.begin() as connection:
                found = rules.cut(connection, days, repositories, self._limits.moment, kept)
            self._done.events += self._repeat(self._delete_events, EVENTS)
            if found.stopped_by and not found.rows and days:
                logger.warning("retention: no row of the audit goes: %s", found.stopped_by)
            if not found.more or self._stopped.is_set():
                break
        if self._done.events and (signer := signing.existing(self._settings.data_folder)):
            with self._database.begin() as connection:
                signing.announce(connection, signer)  # its row may have gone

    def _delete_events(self) -> int:
        with self._database.begin() as connection:
            return stored.delete_events(connection, EVENTS)

    def _repeat(self, step: Callable[[], int], most: int) -> int:
        """Return how much a step did until it had less than the most to do."""
        total = 0
        while not self._pause():
            number = step()
            total += number
            if number < most:
                break
        return total


@contextmanager
def _alone(data_folder: Path) -> Iterator[None]:
    # Not for the user of the pages: who can open a file can lock it.
    descriptor = os.open(data_folder / "retention.lock", os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataFolderInUse(
                f"{data_folder}: found another purge at work, required: none"
            ) from error
        yield


class RetentionJob(threading.Thread):
    """Deletes in the gateway, every so many hours, what is due."""

    def __init__(self, database: Engine, settings: Settings, stopped: threading.Event) -> None:
        super().__init__(name="retention", daemon=True)
        self._database = database
        self._settings = settings
        self._stopped = stopped
        self.fault = ""
        """The kind of error with which the newest run ended early."""

    def run(self) -> None:
        """Look until the gateway stops."""
        seconds = self._settings.retention.every_hours * 3600
        wait = min(FIRST_SECONDS, seconds)
        while not self._stopped.wait(wait):
            wait = seconds
            try:
                done = Purge(self._database, self._settings, self._stopped).run()
                logger.info("retention: gone are %s", done)
                self.fault = ""
            except Exception as error:
                self.fault = type(error).__name__
                # The database may be out of reach for a while; the next look is not far.
                logger.exception("retention: the run ended early")
