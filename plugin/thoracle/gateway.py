"""The gateway: the parts put together, started, watched and stopped."""

import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
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
from thoracle.monitoring.duties import HOUSEKEEPING_SECONDS, Duties, of_gateway
from thoracle.monitoring.housekeeping import Housekeeping
from thoracle.pipeline import Line
from thoracle.pipeline.reader import ImageClassifier, Reader
from thoracle.receive.duplicates import Frames
from thoracle.receive.inbox import Inbox, Readiness, mark_of
from thoracle.receive.storescp import Listener
from thoracle.records import BundleIdentity
from thoracle.report.builder import Builder
from thoracle.routing import rank, rules
from thoracle.settings import Settings
from thoracle.store import bundles, copies, engine, objects, rights, running, signing, trail
from thoracle.store import database as databases
from thoracle.store.clock import Clock
from thoracle.store.database import Database
from thoracle.store.lease import Alone
from thoracle.store.tables import timestamp
from thoracle.study import instances
from thoracle.ups.scp import Workitems
from thoracle.ups.subscriptions import EventReports

logger = logging.getLogger(__name__)

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
    objects.of(settings).require()
    with (
        _locked(settings),
        databases.of_gateway(settings, _end) as (database, lease),
        Decoder(settings.decode.memory_megabytes, settings.decode.timeout_seconds) as decoder,
        Decoder(settings.decode.memory_megabytes, settings.decode.timeout_seconds) as comparing,
        Builder(settings.report.memory_megabytes, settings.report.timeout_seconds) as builder,
    ):
        frames = Frames(objects.of(settings), comparing, settings.receive.budget)
        _run(settings, database, lease, decoder, frames, builder, stopped)
    logger.info("stopped")
    logging.shutdown()
    # Steps that did not end in time still run in threads that Python would wait for. They are
    # left as after a crash, and taken up again at the next start.
    os._exit(0)


@contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    """Hold the data folder, with the database that belongs to it or with neither."""
    several = settings.gateway.one_of_several
    with engine.lock(settings.data_folder, shared=several) as lock:
        rights.keep(settings)
        continuity.require(settings)
        if not several:  # the rows of leases say it of each
            listens = f"{settings.receive.host}:{settings.receive.port}"
            running.announce(lock, os.getpid(), listens)
        yield


def _end(reason: str) -> None:
    """End at once, as after a crash: another gateway may have begun with the same work."""
    said = "%s: it ends here, to be started again; nothing is lost that was acknowledged"
    # In a thread of its own: a log that takes nothing must not keep this process alive.
    last = threading.Thread(target=logger.critical, args=(said, reason), daemon=True)
    last.start()
    last.join(1.0)
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


class Opening:
    """What comes while the listener takes objects already and the engine has not started yet."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._early: dict[str, bool] = {}

    def is_over(self) -> bool:
        """Return whether the engine has started."""
        return self._started.is_set()

    def is_early(self, study_instance_uid: str, *, released: bool) -> bool:
        """Return whether the study of an arrival is kept until the end of this."""
        self._early[study_instance_uid] = released
        return not self._started.is_set()  # asked last: who sees it set tells of it itself

    def end(self) -> None:
        """Begin the quiet periods of the studies that have come."""
        self._started.set()
        for study_instance_uid, released in self._early.copy().items():
            pipeline.start_quiet_period(study_instance_uid, released)


def _run(
    settings: Settings,
    database: Database,
    lease: Alone,
    decoder: Decoder,
    frames: Frames,
    builder: Builder,
    stopped: threading.Event,
) -> None:
    identity = _identified(settings, database)
    lease.declare_bundle(identity.digest)
    classifier = LateClassifier()
    inbox = Inbox(settings.data_folder, settings.receive, lease.owner, objects.of(settings))
    signer = signing.existing_or_new(settings.data_folder)
    _record_start(settings, database, lease, identity, inbox, signer)
    reader = Reader(settings, identity, decoder, classifier, builder.build)
    pipeline.bind(Line(settings, database, reader, builder.with_patient_of))
    opening = Opening()
    readiness = Readiness(inbox, database)
    listener = _listener(settings, database, lease, inbox, frames, opening, readiness)
    if settings.gateway.role != "read":
        _listen(listener, settings)
    with _exit_on_error():
        engine.start(database, settings.deliver, lease, settings.gateway.role)
        opening.end()
        lease.begun()
        duties = Duties(settings, database, lease, inbox, signer, stopped)
        if lease.leads():
            duties.begin()
        if settings.gateway.role != "receive":
            threading.Thread(target=builder.start, name="builder", daemon=True).start()
            # In a thread of its own, so that a signal is heard meanwhile.
            load = partial(_load_or_exit, classifier, settings)
            threading.Thread(target=load, name="classifier", daemon=True).start()
        _supervise(settings, database, lease, inbox, duties, readiness, stopped)
        logger.info("stopping")
        listener.stop(DRAIN_SECONDS)
        engine.stop(DRAIN_SECONDS)
        with database.begin() as connection:
            trail.record(connection, trail.Event.APPLICATION_STOPPED, of_gateway(lease))
        duties.end()
        inbox.close()


def _record_start(
    settings: Settings,
    database: Database,
    lease: Alone,
    identity: BundleIdentity,
    inbox: Inbox,
    signer: signing.Signer,
) -> None:
    """Record the start; what the one gateway left unfinished is cleared away first."""
    detail = of_gateway(lease).get("detail", {})
    if not lease.owner:  # else the one that leads does so
        with database.connect() as connection:
            known = instances.known_paths(connection)
        # In no transaction: PostgreSQL ends one in which nothing happens for a minute.
        detail = {"files_cleared": inbox.clear_unfinished(known)}
    with database.begin() as connection:
        signing.announce(connection, signer)
        columns: trail.Columns = {
            "bundle_digest": identity.digest,
            "finding": identity.finding.key,
            "detail": detail,
        }
        bundles.remember(connection, identity)
        forwarding.begin(connection, settings.audit_repository)
        starts.record(connection, settings, columns)


def _listener(
    settings: Settings,
    database: Database,
    lease: Alone,
    inbox: Inbox,
    frames: Frames,
    opening: Opening,
    readiness: Readiness,
) -> Listener:
    def on_stored(study_instance_uid: str, released: bool) -> None:
        if opening.is_over() or not opening.is_early(study_instance_uid, released=released):
            whole = released and not _comes_elsewhere(settings, database, lease, study_instance_uid)
            pipeline.start_quiet_period(study_instance_uid, whole)

    def on_commitment(calling_ae_title: str, answer: CommitmentAnswer) -> bool:
        if not opening.is_over():
            raise RuntimeError("not started yet")  # the archive is told to report again
        return pipeline.committed(calling_ae_title, answer)

    def on_reports(reports: EventReports) -> None:
        if opening.is_over():  # what waits earlier is found when it is
            pipeline.enqueue(reports)

    more = Workitems(settings, database.begin, on_reports).support if settings.ups.offer else None
    ready = readiness.fault if settings.receive.echo_tells_storage else str
    return Listener(
        settings.receive, inbox, frames, database, on_stored, on_commitment, more, ready
    )


def _comes_elsewhere(settings: Settings, database: Database, lease: Alone, study: str) -> bool:
    """Return whether another gateway stored an image of a study a moment ago.

    Its sender may have several associations, to several gateways: the last release that one sees
    says nothing of the others.
    """
    if not lease.owner:
        return False
    moment = datetime.now(UTC) - timedelta(seconds=settings.complete.quiet_otherwise_seconds)
    with database.connect() as connection:
        mark = mark_of(lease.owner)
        return instances.came_elsewhere(connection, study, mark, timestamp(moment))


def _identified(settings: Settings, database: Database) -> BundleIdentity:
    """Return the bundle of the settings; that it is another one is a security event."""
    try:
        return bundle.identify(settings.classify)
    except BundleError as error:
        with database.begin() as connection:
            starts.record_refusal(connection, settings.classify.digest, str(error))
        raise


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
    lease: Alone,
    inbox: Inbox,
    duties: Duties,
    readiness: Readiness,
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

    others = Housekeeping({"gateways": duties.look})
    own = Housekeeping({"work that stopped": recover, **copies.steps(database, settings)})
    shared = Housekeeping(duties.housekeeping())

    def alarms() -> Iterator[Comparison]:
        """Yield what is wrong with this process."""
        yield from (one for steps in (others, own, shared) for one in steps.alarms())
        yield from certificates()
        yield from conditions.of_process(
            readiness.fault(),
            errors.recent(ERROR_SECONDS),
            duties.fault,
            inbox.refusal(ERROR_SECONDS),
            clock.recent(ERROR_SECONDS),
        )

    every = min(ALARM_SECONDS, settings.gateway.lease_seconds / 2)
    due = time.monotonic() + HOUSEKEEPING_SECONDS
    while not stopped.is_set():
        others.run()
        if time.monotonic() >= due:
            due = time.monotonic() + HOUSEKEEPING_SECONDS
            for steps in (shared, own) if duties.begun else (own,):
                steps.run()
        try:
            _correct_delays(database, lease, clock)
            if duties.begun:
                monitor.check(tuple(alarms()))
            else:
                lease.fault = " ".join(one.sentence for one in alarms())
        except Exception as error:  # noqa: BLE001 - the database may be away; the next check is near
            logger.error("could not check for alarms: %s", type(error).__name__)
        stopped.wait(every)


def _correct_delays(database: Database, lease: Alone, clock: Clock) -> None:
    """Have delays end earlier that the clock of this machine began before it was set back.

    Of several gateways others have begun delays, too, by clocks that nobody has set.
    """
    step = clock.step()
    if step < 0 and not lease.owner:
        engine.bring_delays_forward(database, -step)


def _load_or_exit(classifier: LateClassifier, settings: Settings) -> None:
    try:
        classifier.load(settings)
    except Exception:
        logger.exception("the bundle cannot be loaded")
        # At once, as after a crash: analyses under way wait for the classifier, and an orderly
        # end would record them as failed. They are taken up again at the next start.
        os._exit(1)
    logger.info("classifier loaded")
