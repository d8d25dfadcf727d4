"""Pictures that are rendered before somebody asks for them: those of the studies to be read next.

Nothing of it goes to a browser, so nobody has seen anything and the audit has no row. One thread
does it, one picture at a time; what does not fit into its queue is not rendered early.
"""

import contextlib
import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence

from fastapi import Request

from thoracle.errors import ThoracleError
from thoracle.study import rows as studies
from thoracle.study.rows import StudyRows
from thoracle.web.pages import pictures
from thoracle.web.site import Site, site_of

logger = logging.getLogger(__name__)

WAITING = 12
"""Studies in the queue."""
QUIET_SECONDS = 1.0
"""Time without a page that asks: what somebody waits for now has the processor to itself."""
REMEMBERED = 2000
"""Studies that are not tried again while nothing of them changes."""


class Preparation:
    """The thread of a process of pages, and what it has done already."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._queue: queue.Queue[str] = queue.Queue(WAITING)
        self._asked = 0.0
        self._done: OrderedDict[tuple[str, ...], None] = OrderedDict()
        threading.Thread(target=self._work, name="pictures", daemon=True).start()

    def ask(self, study_instance_uids: Sequence[str]) -> None:
        """Have pictures of studies rendered when there is time."""
        self._asked = time.monotonic()
        with contextlib.suppress(queue.Full):
            for uid in study_instance_uids:
                self._queue.put_nowait(uid)

    def _work(self) -> None:
        while True:
            uid = self._queue.get()
            while (left := self._asked + QUIET_SECONDS - time.monotonic()) > 0:
                time.sleep(left)
            try:
                self._prepare(uid)
            except Exception as error:  # noqa: BLE001 - it is only early: who opens the study is told
                logger.debug("no picture made early: %s", type(error).__name__)

    def _prepare(self, uid: str) -> None:
        with self._site.database.connect() as connection:
            rows = studies.rows(connection, uid)
        if rows is None or not rows.images:
            return
        key = (uid, *(one.sha256 for one in rows.images), *(one.sha256 for one in rows.results))
        if key in self._done:
            return
        self._done[key] = None
        while len(self._done) > REMEMBERED:
            self._done.popitem(last=False)
        image = max(rows.images, key=lambda one: _probability(rows, one.sop_instance_uid))
        for kind in (pictures.RADIOGRAPH, pictures.OVERLAY, pictures.PIXELS):
            found = pictures.order(self._site.settings, rows, image, kind)
            if found is not None:
                with contextlib.suppress(ThoracleError):
                    pictures.stored_picture(self._site.settings, *found)


def _probability(rows: StudyRows, sop_instance_uid: str) -> float:
    reading = rows.readings.get(sop_instance_uid)
    return -1 if reading is None or reading.probability is None else float(reading.probability)


_CREATION = threading.Lock()


def prepare(request: Request, study_instance_uids: Sequence[str]) -> None:
    """Have pictures of studies rendered that somebody is about to open."""
    state = request.app.state
    with _CREATION:  # pages are answered in several threads
        if not hasattr(state, "preparation"):
            state.preparation = Preparation(site_of(request))
    state.preparation.ask(study_instance_uids)
