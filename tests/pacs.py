"""The one double of the tests and the demo: an archive in this process that keeps what it gets.

A Storage SCP over a real socket. It can be told to refuse, to accept fewer SOP Classes, and to be
away for a while.
"""

import socket
import threading
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any, Self

from pydicom import Dataset, dcmread
from pydicom.uid import UID, Comprehensive3DSRStorage, ComprehensiveSRStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import


def free_port() -> int:
    """Return a TCP port of the loopback address that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Pacs:
    """An archive; a context manager that is reachable inside the block."""

    def __init__(
        self,
        ae_title: str = "PACS",
        sop_classes: tuple[UID, ...] = (Comprehensive3DSRStorage, ComprehensiveSRStorage),
    ) -> None:
        self.ae_title = ae_title
        self.port = free_port()
        self.status = 0x0000
        """What it answers to a C-STORE; it keeps the object only when this is success."""
        self.delay = 0.0
        """Seconds before it answers."""
        self.kept: dict[str, list[bytes]] = {}
        """SOP Instance UID -> the data set of each time it came, encoded."""
        self.arrived: dict[str, float] = {}
        """SOP Instance UID -> time of its first arrival, seconds of ``time.time``."""
        self.calling_ae_titles: list[str] = []
        self._changed = threading.Condition(threading.RLock())
        self._ae = AE(ae_title=ae_title)
        self._ae.add_supported_context(Verification)
        for sop_class in sop_classes:
            self._ae.add_supported_context(sop_class)
        self._server: Any = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Become reachable."""
        self._server = self._ae.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )

    def stop(self) -> None:
        """Become unreachable."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _store(self, event: evt.Event) -> int:
        time.sleep(self.delay)
        uid = str(event.request.AffectedSOPInstanceUID)  # type: ignore[union-attr]  # C-STORE
        with self._changed:
            self.calling_ae_titles.append(str(event.assoc.requestor.ae_title))
            if self.status == 0x0000:
                self.kept.setdefault(uid, []).append(event.encoded_dataset())
                self.arrived.setdefault(uid, time.time())
            self._changed.notify_all()
        return self.status

    def datasets(self) -> list[Dataset]:
        """Return what is kept, each object once, in order of arrival."""
        with self._changed:
            return [dcmread(BytesIO(copies[0])) for copies in self.kept.values()]

    def reports_on(self, study_instance_uid: str) -> list[Dataset]:
        """Return the kept objects of a study."""
        return [ds for ds in self.datasets() if ds.StudyInstanceUID == study_instance_uid]

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Return when a condition over what is kept holds; ``TimeoutError`` when it does not."""
        with self._changed:
            if not self._changed.wait_for(condition, seconds):
                raise TimeoutError(f"not so after {seconds} s, {len(self.kept)} objects are kept")

    def wait_for(self, number: int, seconds: float) -> None:
        """Return when so many different objects are kept; ``TimeoutError`` when they are not."""
        self.wait_until(lambda: len(self.kept) >= number, seconds)
