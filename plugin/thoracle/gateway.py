"""The gateway: the parts put together, started, watched and stopped."""

import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

from thoracle import pipeline
from thoracle.audit import continuity, forwarding, starts
from thoracle.classify import bundle, load_classifier
from thoracle.deliver.commitment import CommitmentAnswer
from thoracle.errors import BundleError, SettingsError
from thoracle.image.decoder import Decoder
from thoracle.monitoring import conditions
from thoracle.monitoring.alarms import AlarmMonitor, outbox_of
from thoracle.monitoring.certificates import CertificateAlarms
from thoracle.monitoring.comparison import Comparison
from thoracle.monitoring.housekeeping import Housekeeping
from thoracle.notify import witness
from thoracle.pipeline import Line
from thoracle.pipeline.reader import ImageClassifier, Reader
from thoracle.receive.duplicates import Frames
from thoracle.receive.inbox import Inbox, Readiness
from thoracle.receive.storescp import Listener
from thoracle.records import BundleIdentity
from thoracle.report.builder import Builder
from thoracle.retention.purge import RetentionJob
from thoracle.routing import rank, rules
from thoracle.settings import Settings
from thoracle.store import anchors, bundles, engine, objects, rights, running, signing, trail
from thoracle.store import database as databases
from thoracle.store.clock import Clock
from thoracle.store.database import Database
from thoracle.study import instances
from thoracle.ups.scp import Workitems
from thoracle.ups.subscriptions import EventReports

logger = logging.getLogger(__name__)

HOUSEKEEPING_SECONDS = 60.0
ALARM_SECONDS = 10.0
"""Between two checks for alarms."""
ERROR_SECONDS = 600.0
"""An error of the database is an alarm so long."""
DRAIN_SECONDS = 5
"""For associations under way, and again for workflows: ten seconds in all (R11)."""


class LateClassifier:
    """A classifier that loads while the listener already stores: importing torch takes seconds."""

    def __init__(self) -> None:
        self._loaded = threading.Event()
        self._classifier: ImageClassifier | None = None

    def __call__(self) -> ImageClassifier:
        """Return the classifier as soon as it is loaded."""
        self._loaded.wait()
        assert self._classifier is not None
        return self._classifier

    def load(self, settings: Settings) -> None:
        """Load the classifier and let those who wait for it go on."""
        self._classifier = load_classifier(settings.classify)
        # pynetdicom's listener collects garbage every few seconds. What was loaded stays, and to
        # look through it takes a quarter of a second in which nothing else runs.
        gc.collect()
        gc.freeze()
        self._loaded.set()


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then drain.

    Raises
    ------
    DataFolderInUse, BundleError, DatabaseError, SettingsError
        When it cannot start.
    """
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    _refuse_faulty_rules(settings)
    bundle.runtime_of(settings.classify)  # one that is not installed ends it here, in one line
    with (
        _locked(settings),
        databases.of_gateway(settings, _end) as database,
        Decoder(settings.decode.memory_megabytes, settings.decode.timeout_seconds) as decoder,
        Decoder(settings.decode.memory_megabytes, settings.decode.timeout_seconds) as comparing,
        Builder(settings.report.memory_megabytes, settings.report.timeout_seconds) as builder,
    ):
        frames = Frames(objects.of(settings), comparing, settings.receive.budget)
        _run(settings, database, decoder, frames, builder, stopped)
    logger.info("stopped")
    logging.shutdown()
    # Steps that did not end in time still run in threads that Python would wait for. They are
    # left as after a crash, and taken up again at the next start.
    os._exit(0)


@contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    """Hold the data folder, with the database that belongs to it or with neither."""
    with engine.lock(settings.data_folder) as lock:
        rights.keep(settings)
        continuity.require(settings)
        running.announce(lock, os.getpid(), f"{settings.receive.host}:{settings.receive.port}")
        yield


def _end(reason: str) -> None:
    """End at once, as after a crash: another gateway may have begun with the same work."""
    logger.critical(
        "the connection that makes this process the one gateway of its database is lost (%s): it "
        "ends here, to be started again; nothing is lost that was acknowledged",
        reason,
    )
    logging.shutdown()
    os._exit(1)


@contextmanager
def _exit_on_error() -> Iterator[None]:
    """End the process when something fails inside the block.

    The threads that listen would go on without those that work, and without the lock that makes
    this process the one gateway.
    """
    try:
        yield
    except BaseException:
        logger.exception("the service cannot go on; it ends here, to be started again")
        logging.shutdown()
        os._exit(1)


def _run(
    settings: Settings,
    database: Database,
    decoder: Decoder,
    frames: Frames,
    builder: Builder,
    stopped: threading.Event,
) -> None:
    identity = _identified(settings, database)
    classifier = LateClassifier()
    inbox = Inbox(settings.data_folder, settings.receive)
    signer = signing.existing_or_new(settings.data_folder)
    with database.begin() as connection:
        signing.announce(connection, signer)
        cleared = inbox.clear_unfinished(instances.known_paths(connection))
        columns: trail.Columns = {
            "bundle_digest": identity.digest,
            "finding": identity.finding.key,
            "detail": {"files_cleared": cleared},
        }
        bundles.remember(connection, identity)
        forwarding.begin(connection, settings.audit_repository)
        starts.record(connection, settings, columns)
    reader = Reader(settings, identity, decoder, classifier, builder.build)
    pipeline.bind(Line(settings, database, reader, builder.with_patient_of))
    started = threading.Event()

    def on_stored(study_instance_uid: str, released: bool) -> None:
        if started.is_set():  # what arrives earlier is found by the recovery at the start
            pipeline.start_quiet_period(study_instance_uid, released)

    def on_commitment(calling_ae_title: str, answer: CommitmentAnswer) -> bool:
        if not started.is_set():
            raise RuntimeError("not started yet")  # the archive is told to report again
        return pipeline.committed(calling_ae_title, answer)

    def on_reports(reports: EventReports) -> None:
        if started.is_set():  # what waits earlier is found when it is
            pipeline.enqueue(reports)

    more = Workitems(settings, database.begin, on_reports).support if settings.ups.offer else None
    readiness = Readiness(inbox, database)
    ready = readiness.fault if settings.receive.echo_tells_storage else str
    listener = Listener(
        settings.receive, inbox, frames, database, on_stored, on_commitment, more, ready
    )
    _listen(listener, settings)
    with _exit_on_error():
        forwarders = forwarding.start_forwarding(settings, database)
        engine.start(database, settings.deliver)
        started.set()
        threading.Thread(target=builder.start, name="builder", daemon=True).start()
        _recover(settings, stopped)
        retention = RetentionJob(database, settings, stopped)
        retention.start()
        # In a thread of its own, so that a signal is heard meanwhile.
        load = partial(_load_or_exit, classifier, settings)
        threading.Thread(target=load, name="classifier", daemon=True).start()
        anchor = partial(_anchor, settings, database, signer)
        anchor()
        _supervise(settings, database, inbox, retention, readiness, anchor, stopped)
        logger.info("stopping")
        listener.stop(DRAIN_SECONDS)
        engine.stop(DRAIN_SECONDS)
        with database.begin() as connection:
            trail.record(connection, trail.Event.APPLICATION_STOPPED, {})
        forwarding.stop_forwarding(forwarders)
        anchor()


def _anchor(settings: Settings, database: Database, signer: signing.Signer) -> None:
    """Keep an anchor of what is new in the audit, and have it witnessed."""
    path = settings.data_folder / anchors.ANCHORS_FILE
    anchors.drop_anchor(database, path, signer)
    witness.offer(database, settings)


def _identified(settings: Settings, database: Database) -> BundleIdentity:
    """Return the bundle of the settings; that it is another one is a security event."""
    try:
        return bundle.identify(settings.classify)
    except BundleError as error:
        with database.begin() as connection:
            starts.record_refusal(connection, settings.classify.digest, str(error))
        raise


def _recover(settings: Settings, stopped: threading.Event) -> None:
    """Begin with what is left from before, and with the worklists of others."""
    pipeline.recover_unplanned_studies(untouched_seconds=0)
    pipeline.recover()
    pipeline.report_restart()
    for manager in settings.workflow_manager:
        pipeline.WorklistPoller(manager, stopped).start()


def _refuse_faulty_rules(settings: Settings) -> None:
    """Refuse rules that cannot be decided: one that holds would hold every study."""
    faults = [f"rule {name}: {text}" for name, text in rules.faults(settings)]
    faults += [f"rank {name}: {text}" for name, text in rank.faults(settings)]
    if faults:
        raise SettingsError("\n".join(faults))


def _listen(listener: Listener, settings: Settings) -> None:
    where = f"{settings.receive.host}:{settings.receive.port}"
    try:
        listener.start()
    except OSError as error:
        raise SettingsError(
            f"receive.port: {where}: {error.strerror}, required: a free port of this machine"
        ) from error
    logger.info("listening as %s on %s", settings.receive.ae_title, where)


def _supervise(
    settings: Settings,
    database: Database,
    inbox: Inbox,
    retention: RetentionJob,
    readiness: Readiness,
    anchor: Callable[[], object],
    stopped: threading.Event,
) -> None:
    """Run alarms and housekeeping until the service is to stop."""
    errors = databases.Errors(database)
    monitor = AlarmMonitor(database, settings, outbox_of(settings))
    certificates = CertificateAlarms(settings)
    clock = Clock()
    idle: set[str] = set()

    def recover() -> None:
        nonlocal idle
        idle = engine.requeue_stalled(idle) if inbox.has_room() else set()

    untouched = settings.complete.quiet_otherwise_seconds + HOUSEKEEPING_SECONDS
    housekeeping = Housekeeping(
        {
            "deleted database": partial(_rescue, database),
            "complete studies": partial(pipeline.recover_unplanned_studies, untouched),
            "analyses given up": pipeline.fail_abandoned_analyses,
            "audit anchors": anchor,
            "outbox": pipeline.recover,  # sends what is new of these, and alarms
            "work that stopped": recover,
        }
    )

    def alarms() -> Iterator[Comparison]:
        yield from housekeeping.alarms()
        yield from certificates()
        yield from conditions.of_process(
            readiness.fault(),
            errors.recent(ERROR_SECONDS),
            retention.fault,
            inbox.refusal(ERROR_SECONDS),
            clock.recent(ERROR_SECONDS),
        )

    due = time.monotonic() + HOUSEKEEPING_SECONDS
    while not stopped.is_set():
        if time.monotonic() >= due:
            due = time.monotonic() + HOUSEKEEPING_SECONDS
            housekeeping.run()
        try:
            _correct_delays(database, clock)
            monitor.check(tuple(alarms()))
        except Exception as error:  # noqa: BLE001 - the database may be away; the next check is near
            logger.error("could not check for alarms: %s", type(error).__name__)
        stopped.wait(ALARM_SECONDS)


def _correct_delays(database: Database, clock: Clock) -> None:
    """Have delays end earlier that the clock of this machine began before it was set back."""
    step = clock.step()
    if step < 0:
        engine.bring_delays_forward(database, -step)


def _rescue(database: Database) -> None:
    """Copy a database that was deleted, as long as this process still has it."""
    copied = databases.rescue(database)
    if copied is not None:
        logger.critical(
            "the database was deleted; nothing more is acknowledged. %s is a copy of it: stop the "
            "gateway, rename the copy, and start again",
            copied,
        )


def _load_or_exit(classifier: LateClassifier, settings: Settings) -> None:
    try:
        classifier.load(settings)
    except Exception:
        logger.exception("the bundle cannot be loaded")
        # At once, as after a crash: analyses under way wait for the classifier, and an orderly
        # end would record them as failed. They are taken up again at the next start.
        os._exit(1)
    logger.info("classifier loaded")
