"""kill -9 at random moments while studies stream in: nothing acknowledged is lost or done twice."""

import gc
import hashlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from gateway import Gateway
from ledger import eventually, files, residue, rows
from pacs import Pacs
from radiographs import radiograph
from sender import NotAnswered, Sender, encoded
from thoracle import settings
from thoracle.audit import verification
from thoracle.store import anchors, database

SENDERS = 3
PATIENCE = 240.0
"""Seconds until work counts as lost: the gateway looks each minute for what stopped."""


class Listening(Protocol):
    """What studies are sent to: a gateway, or what stands before several."""

    @property
    def port(self) -> int: ...


class Modality:
    """Sends studies over several associations, and again what was not acknowledged."""

    def __init__(self, to: Listening) -> None:
        self.acknowledged: dict[str, str] = {}
        """SOP Instance UID -> SHA-256 of the data set."""
        self.broken = 0
        """C-STOREs that were under way when the gateway was killed."""
        self._to = to
        self._waiting: SimpleQueue[Dataset | None] = SimpleQueue()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]

    def queue(self, number: int) -> None:
        """Have so many new studies of one image each sent."""
        for _ in range(number):
            self._waiting.put(picture())

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Send inside the block; at its end, when the queue is empty."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        except BaseException:
            self._stopped.set()
            raise
        finally:
            for _ in self._threads:
                self._waiting.put(None)
            for thread in self._threads:
                thread.join()

    def _send(self) -> None:
        while (ds := self._waiting.get()) is not None:
            while not self._stopped.is_set() and not self._deliver(ds):
                time.sleep(0.05)  # the gateway is away

    def _deliver(self, ds: Dataset) -> bool:
        try:
            with Sender(self._to.port) as sender:
                if sender.store(ds).status != 0x0000:
                    raise NotAnswered
        except (NotAnswered, OSError, RuntimeError) as error:
            self.broken += "not established" not in str(error)
            return False
        wire = encoded(ds, ExplicitVRLittleEndian)
        self.acknowledged[ds.SOPInstanceUID] = hashlib.sha256(wire).hexdigest()
        return True


def picture() -> Dataset:
    """Return a radiograph of noise: each is different, and large enough to be classified."""
    return radiograph(np.random.default_rng().integers(0, 4096, (512, 512), np.uint16))


def random_moment(
    random_: random.Random, turn: int, modality: Modality, pacs: Pacs, studies: int
) -> None:
    """Return while new studies arrive, or while they are analysed and delivered, in turn."""
    arriving = turn % 2 == 0

    def progress() -> int:
        return len(modality.acknowledged if arriving else pacs.kept)

    goal = progress() + random_.randint(1, studies if arriving else studies // 2)
    eventually(lambda: progress() >= goal, PATIENCE)
    # Not to wait for anything: this is the random part.
    time.sleep(random_.uniform(0, 0.03 if arriving else 0.5))


def stream_and_kill(
    folder: Path, pacs: Pacs, kills: int, studies: int, **tables: dict[str, Any]
) -> tuple[Gateway, Modality, list[float]]:
    """Stream studies through a gateway that is killed and restarted; return when all is done."""
    seed = int(os.environ.get("THORACLE_SEED") or random.SystemRandom().getrandbits(32))
    print(f"THORACLE_SEED={seed} repeats the choice of moments")
    random_ = random.Random(seed)
    gateway = Gateway(folder, pacs, **tables)
    modality = Modality(gateway)
    seconds = []
    each = studies // (kills + 1)
    with gateway:
        with modality.sending():
            for turn in range(kills):
                modality.queue(each)
                random_moment(random_, turn, modality, pacs, each)
                gateway.kill()
                started = time.monotonic()
                gateway.start()
                seconds.append(time.monotonic() - started)
            modality.queue(studies - kills * each)
        eventually(lambda: len(pacs.kept) >= studies, PATIENCE + studies)
        waiting = "SELECT 1 FROM outbox WHERE state <> 'delivered'"
        eventually(lambda: not rows(gateway, waiting), PATIENCE)
        eventually(lambda: not rows(gateway, UNFINISHED), PATIENCE)
        assert gateway.terminate() == 0
    return gateway, modality, seconds


UNFINISHED = "SELECT 1 FROM workflow_status WHERE status NOT IN ('SUCCESS')"


def assert_nothing_lost_or_done_twice(gateway: Gateway, modality: Modality, pacs: Pacs) -> None:
    """Compare what was acknowledged with rows, files, audit and archive."""
    stored = rows(gateway, "SELECT * FROM instance")
    assert {row["sop_instance_uid"]: row["sha256"] for row in stored} == modality.acknowledged
    assert len(stored) == len(modality.acknowledged), "a repetition became a version"
    for row in stored:
        content = (gateway.data_folder / row["path"]).read_bytes()
        assert hashlib.sha256(content[-row["size"] :]).hexdigest() == row["sha256"]
    assert residue(gateway) == []
    studies = {row["study_instance_uid"] for row in stored}
    for statement in (
        "SELECT * FROM analysis WHERE state = 'done'",
        "SELECT * FROM reading",
        "SELECT * FROM result",
        "SELECT * FROM audit_event WHERE event = 'instance stored'",
        "SELECT * FROM audit_event WHERE event = 'study complete'",
        "SELECT * FROM audit_event WHERE event = 'image read'",
        "SELECT * FROM audit_event WHERE event = 'result created'",
        "SELECT * FROM audit_event WHERE event = 'delivery succeeded'",
    ):
        assert once(rows(gateway, statement)) == studies, statement
    assert_chain_verifies(gateway)
    assert {ds.StudyInstanceUID for ds in pacs.datasets()} == studies
    assert len(pacs.kept) == len(studies), "a study has two reports"
    assert all(len(set(copies)) == 1 for copies in pacs.kept.values()), "a repetition differs"


def assert_chain_verifies(gateway: Gateway) -> None:
    """Follow the chain of the audit to its end, and hold it against the anchors."""
    found = anchors.read_anchors(gateway.data_folder / anchors.ANCHORS_FILE)
    assert found, "no anchor was dropped"
    engine = database.existing(settings.load(gateway.config))
    with engine.connect() as connection:
        result = verification.verify(connection, found)
    engine.dispose()
    assert result.well, result
    assert result.rows == rows(gateway, "SELECT count(*) AS n FROM audit_event")[0]["n"]


def once(found: list[dict[str, Any]]) -> set[str]:
    """Return the studies of the rows; each has to have exactly one."""
    number = Counter(row["study_instance_uid"] for row in found)
    assert set(number.values()) <= {1}, number.most_common(3)
    return set(number)


def report(gateway: Gateway, modality: Modality, pacs: Pacs, seconds: list[float]) -> None:
    """Print what happened, for `pytest -rP`."""
    again = sum(len(copies) - 1 for copies in pacs.kept.values())
    print(
        f"{len(seconds)} kills, {len(modality.acknowledged)} studies, "
        f"{modality.broken} C-STOREs broken off, {again} reports sent again, "
        f"{len(files(gateway, 'orphans'))} orphans; "
        f"listening again after {max(seconds):.2f} s at most"
    )


def say_where_it_stands(gateway: Gateway) -> None:
    """Print what a person needs to find out why nothing goes on."""
    for question in (
        "SELECT count(*) FROM instance",
        "SELECT state, count(*) FROM analysis GROUP BY 1",
        "SELECT state, count(*) FROM outbox GROUP BY 1",
        "SELECT name, status, count(*) FROM workflow_status GROUP BY 1, 2",
    ):
        print(question, rows(gateway, question))
    print(gateway.log.read_text()[-4000:])


def crash(folder: Path, kills: int, studies: int, **tables: dict[str, Any]) -> None:
    """Stream, kill, compare; ``tables`` are further settings."""
    with Pacs() as pacs:
        try:
            gateway, modality, seconds = stream_and_kill(folder, pacs, kills, studies, **tables)
        except TimeoutError:
            say_where_it_stands(Gateway(folder, **tables))
            raise
        assert len(modality.acknowledged) == studies
        assert_nothing_lost_or_done_twice(gateway, modality, pacs)
    report(gateway, modality, pacs, seconds)
    gc.collect()  # sockets of associations that died


@pytest.mark.timeout(900)
def test_three_kills_while_forty_studies_stream_in(tmp_path: Path) -> None:
    crash(tmp_path, kills=3, studies=40)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_while_three_hundred_studies_stream_in(tmp_path: Path) -> None:
    crash(tmp_path, kills=20, studies=300)
