"""THE STRAIGHT LINE: study_complete -> analyse -> deliver, as durable workflows.

Stages meet here and nowhere else. Each workflow is a list of steps whose results are kept; after
a crash it goes on behind the last finished step. So clocks, files, the network and the database
are touched inside steps and transactions alone, and a step that ran twice must not show: result
UIDs and bytes are deterministic, and rows are written in the transaction of their checkpoint.
"""

import logging
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dbos import DBOS, Debouncer, SetEnqueueOptions, SetWorkflowID
from pydicom import Dataset, dcmread
from sqlalchemy import Connection, Engine

from thoracle import engine
from thoracle.audit import commits
from thoracle.deliver import storescu
from thoracle.deliver.association import Peer
from thoracle.errors import ArchiveRefused, ArchiveUnavailable
from thoracle.reader import Reader, header_of
from thoracle.records import Reading
from thoracle.report import header, sr
from thoracle.settings import Destination, Settings
from thoracle.store import files, instances, results
from thoracle.store.results import AnalysisKey, Result
from thoracle.store.tables import timestamp

# ---- what the workflows work with ------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """The parts that ``service.py`` put together."""

    settings: Settings
    database: Engine
    reader: Reader
    destinations: dict[str, Destination] = field(init=False)

    def __post_init__(self) -> None:
        by_name = {destination.name: destination for destination in self.settings.destination}
        object.__setattr__(self, "destinations", by_name)

    def path(self, below: str) -> Path:
        """Return the path of a file below the data folder."""
        return self.settings.data_folder / below


logger = logging.getLogger(__name__)

_line: Line | None = None


def bind(line: Line) -> None:
    """Give the workflows their parts; once, before the engine starts."""
    global _line
    _line = line


def _parts() -> Line:
    if _line is None:
        raise RuntimeError("pipeline.bind() comes first")
    return _line


# ---- complete --------------------------------------------------------------------------------


def arrived(study_instance_uid: str, released: bool) -> None:
    """Start or push back the quiet period after which a study counts as complete."""
    settings = _parts().settings.complete
    debouncer = Debouncer.create(
        study_complete, queue=engine.INTAKE, debounce_timeout_sec=settings.cap_seconds
    )
    quiet = settings.quiet_after_release_seconds if released else settings.quiet_otherwise_seconds
    debouncer.debounce(study_instance_uid, quiet, study_instance_uid)


def sweep(untouched_seconds: float) -> None:
    """Complete studies whose arrival was not queued, e.g. for a crash."""
    before = timestamp(datetime.now(UTC) - timedelta(seconds=untouched_seconds))
    with _parts().database.connect() as connection:
        studies = instances.unplanned_studies(connection, before)
    for study_instance_uid in studies:
        arrived(study_instance_uid, released=True)


def bury() -> None:
    """Record as failed the analyses that the engine gave up, e.g. for killing the process."""
    given_up = DBOS.list_workflows(
        name="analyse",
        status=["MAX_RECOVERY_ATTEMPTS_EXCEEDED", "ERROR"],
        load_input=False,
        load_output=False,
    )
    with _parts().database.begin() as connection:
        unfinished = results.planned(connection)
        for workflow in given_up:
            _, study, digest, generation = workflow.workflow_id.split(":")
            key = AnalysisKey(study, int(generation), digest)
            if key in unfinished:
                detail = f"the engine gave up: {workflow.status}"
                commits.fail(connection, key, detail, workflow.workflow_id)


def _fail(
    connection: Connection, study: str, generation: int, digest: str, detail: str, workflow_id: str
) -> None:
    commits.fail(connection, AnalysisKey(study, generation, digest), detail, workflow_id)


@DBOS.workflow(name="study_complete", max_recovery_attempts=None)
def study_complete(study_instance_uid: str) -> None:
    """Make the images present now a generation of the study, and have it analysed."""
    digest = _parts().reader.bundle.digest
    plan = engine.transaction(commits.plan, study_instance_uid, digest, str(DBOS.workflow_id))
    if plan is not None:
        _enqueue_analyse(study_instance_uid, digest, plan["generation"], plan["priority"])


# ---- analyse ---------------------------------------------------------------------------------


def _enqueue_analyse(study: str, digest: str, generation: int, priority: int) -> None:
    with (
        SetWorkflowID(f"analyse:{study}:{digest}:{generation}"),
        SetEnqueueOptions(priority=priority),
    ):
        DBOS.enqueue_workflow(engine.ANALYSE, analyse, study, digest, generation, priority)


@DBOS.workflow(name="analyse", max_recovery_attempts=5)
def analyse(study_instance_uid: str, digest: str, generation: int, priority: int) -> None:
    """Read each image of a generation, report, and have the report delivered."""
    key = (study_instance_uid, generation, digest)
    begin = engine.transaction(_begin, *key)
    if begin["digest"] != digest:  # the bundle was exchanged while this waited
        _enqueue_analyse(study_instance_uid, begin["digest"], generation, priority)
        return
    sources = [path for _, _, path in begin["sources"]]
    if not sources:
        return
    readings = [_read(path) for path in sources]
    try:
        made = _report(*key, sources, readings, begin["predecessor"])
    except Exception as error:
        engine.transaction(_fail, *key, str(error), str(DBOS.workflow_id))
        raise
    for name in engine.transaction(_conclude, *key, readings, made):
        _enqueue_deliver(name, made["sop_instance_uid"], 1, priority, None)


def _begin(connection: Connection, study: str, generation: int, digest: str) -> dict[str, Any]:
    key = AnalysisKey(study, generation, digest)
    return commits.begin(connection, key, _parts().reader.bundle.digest)


@DBOS.step(name="read")
def _read(path: str) -> dict[str, Any]:
    return _parts().reader.read(_parts().path(path)).to_json()


@DBOS.step(name="report")
def _report(
    study: str,
    generation: int,
    digest: str,
    sources: list[str],
    readings: list[dict[str, Any]],
    predecessor: list[str] | None,
) -> dict[str, Any]:
    parts = _parts()
    with parts.database.connect() as connection:
        row = results.analysis_row(connection, AnalysisKey(study, generation, digest))
    report = sr.build(
        [header_of(parts.path(path)) for path in sources],
        [Reading.from_json(values) for values in readings],
        parts.reader.bundle,
        content_datetime=datetime.fromisoformat(row.content_datetime).astimezone(),
        settings=parts.settings.report,
        predecessor=sr.Predecessor(*predecessor) if predecessor else None,
    )
    path, sha256 = _keep(report)
    return asdict(
        Result(
            sop_instance_uid=str(report.SOPInstanceUID),
            sop_class_uid=str(report.SOPClassUID),
            series_instance_uid=str(report.SeriesInstanceUID),
            kind="sr",
            path=path,
            sha256=sha256,
        )
    )


def _keep(report: Dataset) -> tuple[str, str]:
    """Write a report durably; return its path below the data folder and its SHA-256."""
    uid = str(report.SOPInstanceUID)  # ours, so it may be a file name
    below = f"results/{uid[-2:]}/{uid}.dcm"
    return below, files.keep_patiently(_parts().path(below), header.encode(report))


def _conclude(
    connection: Connection,
    study: str,
    generation: int,
    digest: str,
    readings: list[dict[str, Any]],
    made: dict[str, Any],
) -> list[str]:
    parts = _parts()
    destinations = list(parts.destinations)
    commits.conclude(
        connection,
        AnalysisKey(study, generation, digest),
        parts.reader.bundle,
        [Reading.from_json(values) for values in readings],
        Result(**made),
        destinations,
        str(DBOS.workflow_id),
    )
    return destinations


# ---- deliver ---------------------------------------------------------------------------------


def _enqueue_deliver(
    destination: str, sop_instance_uid: str, attempt: int, priority: int, delay: float | None
) -> None:
    with (
        SetWorkflowID(f"deliver:{destination}:{sop_instance_uid}:{attempt}"),
        SetEnqueueOptions(priority=priority, queue_partition_key=destination, delay_seconds=delay),
    ):
        DBOS.enqueue_workflow(
            engine.DELIVER, deliver, destination, sop_instance_uid, attempt, priority
        )


@DBOS.workflow(name="deliver", max_recovery_attempts=None)
def deliver(destination: str, sop_instance_uid: str, attempt: int, priority: int) -> None:
    """Make one attempt; a failed one that time may heal is followed by another, later.

    Waiting is a delayed row, not a sleeping thread: an outage of days costs rows alone.
    """
    answer = _send(destination, sop_instance_uid)
    delay = engine.transaction(_attempted, destination, sop_instance_uid, attempt, answer)
    if delay is not None:
        _enqueue_deliver(destination, sop_instance_uid, attempt + 1, priority, delay)


@DBOS.step(name="send")
def _send(destination: str, sop_instance_uid: str) -> dict[str, Any]:
    parts = _parts()
    if destination not in parts.destinations:
        return {"state": "failed", "detail": f"{destination} is no longer in the settings"}
    with parts.database.connect() as connection:
        report = parts.path(results.result_row(connection, sop_instance_uid).path)

    def comprehensive() -> Path:
        path, _ = _keep(sr.as_comprehensive_sr(dcmread(report)))
        return parts.path(path)

    try:
        peer = peer_of(parts.destinations[destination], parts.settings)
        receipt = storescu.deliver(peer, report, comprehensive)
    except (ArchiveUnavailable, OSError) as error:
        return {"state": "waiting", "detail": str(error)}
    except ArchiveRefused as error:
        return {"state": "refused", "detail": str(error)}
    except Exception as error:
        # A fault of ours: without an end here the delivery would wait for ever, unseen.
        logger.exception("report not sent to %s", destination)
        return {"state": "failed", "detail": f"{type(error).__name__}, see log"}
    return {
        "state": "delivered",
        "detail": None,
        "status": receipt.status,
        "proof": "status",
        "delivered_sop_instance_uid": receipt.sop_instance_uid,
    }


def peer_of(destination: Destination, settings: Settings) -> Peer:
    """Return whom to call for a destination that has no ``url``."""
    # settings.py sees to it
    assert destination.ae_title is not None
    assert destination.host is not None
    assert destination.port is not None
    return Peer(
        ae_title=destination.ae_title,
        host=destination.host,
        port=destination.port,
        calling_ae_title=destination.calling_ae_title or settings.receive.ae_title,
        timeout_seconds=settings.deliver.timeout_seconds,
        tls=destination.tls,
    )


def _attempted(
    connection: Connection,
    destination: str,
    sop_instance_uid: str,
    attempt: int,
    answer: dict[str, Any],
) -> float | None:
    return commits.attempted(
        connection,
        destination,
        sop_instance_uid,
        attempt,
        answer,
        _parts().settings.deliver,
        str(DBOS.workflow_id),
    )
