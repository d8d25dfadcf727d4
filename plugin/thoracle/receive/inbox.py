"""The durable file store: what is acknowledged lies fsynced under a name of our own.

Nothing from a message ever becomes part of a path. A file is written in ``incoming``, checked,
fsynced, renamed into one of 256 folders of ``images`` and that folder fsynced; only then is its
row committed and the sender answered.
"""

import hashlib
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from thoracle.errors import ObjectsAway, OutOfResources
from thoracle.settings import Receive
from thoracle.store import database as databases
from thoracle.store.database import Database
from thoracle.store.files import sync_folder
from thoracle.store.object_files import Objects

# ---- files ---------------------------------------------------------------------------------------

MEGABYTE = 1_000_000


class IncomingFile:
    """The file that pynetdicom writes an object's fragments to.

    Stands in for ``tempfile.NamedTemporaryFile`` there. A failed write must not raise, because
    pynetdicom would end the association without an answer: the error is kept for the handler,
    which answers 0xA700, and the rest of the object is discarded.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.name = str(path)
        self.file = self
        self.error: str | None = None
        self._left = limit
        self._fragment = b""
        self._sha256 = hashlib.sha256()
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        except OSError as error:
            self.refuse(error.strerror or str(error))

    def write(self, data: bytes) -> int:
        """Write a fragment, or remember why that is not possible."""
        self._fragment = data
        self._write(memoryview(data))
        return len(data)

    def append(self, fragment: memoryview) -> None:
        """Write a fragment of the data set and take it into the digest, without a copy."""
        self._fragment = b""
        self._write(fragment)
        if self._descriptor is not None:
            self._sha256.update(fragment)

    def _write(self, view: memoryview) -> None:
        if self._descriptor is None:
            return
        self._left -= len(view)
        if self._left < 0:
            self.refuse("object larger than receive.maximum_object_megabytes")
            return
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            self.refuse(error.strerror or str(error))

    def flush(self) -> None:
        """Take the last fragment into the digest; writes are not buffered.

        pynetdicom flushes after each fragment of the data set and not after preamble and File
        Meta Information, which are its own and differ from time to time.
        """
        self._sha256.update(self._fragment)

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the data set that came."""
        return self._sha256.hexdigest()

    def sync(self) -> None:
        """Bring the file's content to the disk.

        Raises
        ------
        OutOfResources
            When this or an earlier write failed.
        """
        self.raise_error()
        if self._descriptor is not None:
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                self.refuse(error.strerror or str(error))
        self.raise_error()

    def raise_error(self) -> None:
        """Raise OutOfResources when a write failed."""
        if self.error is not None:
            raise OutOfResources(self.error)

    def close(self) -> None:
        """Close the file; also a second time."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def refuse(self, error: str) -> None:
        """Discard what came and what will come; ``error`` says why."""
        self.error = error
        self.remove()  # give the space back at once

    def remove(self) -> None:
        """Close the file, and remove it if it is still there.

        Never raises, as of a file system that can only be read: the next start clears what stays.
        """
        self.close()
        with suppress(OSError):
            Path(self.name).unlink()


class Inbox:
    """The folders ``incoming`` and ``images`` below the data folder.

    Parameters
    ----------
    owner
        Of several gateways with one data folder, the executor that writes here. It has a folder of
        its own in ``incoming``, and its mark is in the names of its files: so what another left
        unfinished can be told from what another is about to row.
    objects
        Where objects are kept; default: in files below the data folder.
    """

    def __init__(
        self,
        data_folder: Path,
        settings: Receive,
        owner: str = "",
        objects: Objects | None = None,
    ) -> None:
        self.data_folder = data_folder
        self.objects = objects or Objects(data_folder)
        self._owner = owner
        self._incoming = data_folder / "incoming" / owner
        self._probe = self._incoming / "probe" if owner else data_folder / "probe"
        self._images = data_folder / "images"
        self._settings = settings
        self._refusal = (float("-inf"), "")
        self._incoming.mkdir(parents=True, exist_ok=True, mode=0o700)
        for number in range(256):
            (self._images / f"{number:02x}").mkdir(parents=True, exist_ok=True)
        sync_folder(self._images)
        sync_folder(data_folder)

    def clear_unfinished(self, known_paths: set[str]) -> int:
        """Clear away what a crash left, before the listener starts; return how many files.

        Unfinished files are removed. A whole file without a row was never acknowledged, unless
        the database is not the one it belongs to: it is set aside in ``orphans``, not deleted.
        """
        unfinished = sum(_removed(path) for path in list(self._incoming.iterdir()))
        return unfinished + self._set_aside(self.objects.images(), known_paths)

    def clear_of_others(
        self, alive: Callable[[], set[str]], known_paths: Callable[[], set[str]]
    ) -> int:
        """Clear away what gateways left that are gone, while others go on; return how many files.

        Parameters
        ----------
        alive
            Asked after the files were listed: those of executors that are not among them get no
            row any more, and those that got one are among ``known_paths``, asked for last.
        """
        folders = list((self.data_folder / "incoming").iterdir())
        images = self.objects.images()
        executors = alive()
        marks = {mark_of(one) for one in executors}
        gone = [path for path in images if Path(path).stem.partition("-")[2] not in marks]
        unfinished = sum(_removed(path) for path in folders if path.name not in executors)
        return unfinished + self._set_aside(gone, known_paths())

    def clear_incoming(self, alive: Callable[[], set[str]]) -> int:
        """Clear away what executors left unfinished in this data folder that are gone.

        For one that does not lead, and whose data folder the one that leads may not see.
        """
        others = [path for path in self._incoming.parent.iterdir() if path != self._incoming]
        executors = alive() if others else set()
        return sum(_removed(path) for path in others if path.name not in executors)

    def _set_aside(self, images: list[str], known_paths: set[str]) -> int:
        orphans = [path for path in images if path not in known_paths]
        self.objects.set_aside(orphans)
        return len(orphans)

    def close(self) -> None:
        """Remove the folder of an owner that writes no more."""
        if self._owner:
            shutil.rmtree(self._incoming, ignore_errors=True)

    def open(self) -> IncomingFile:
        """Return a file for an object that begins to arrive."""
        file = IncomingFile(
            self._incoming / file_name(self._owner),
            self._settings.maximum_object_megabytes * MEGABYTE,
        )
        if not self.has_room() and file.error is None:
            required = self._settings.reserve_megabytes
            file.refuse(f"{self._free_megabytes()} MB free, required {required}")
        return file

    def has_room(self) -> bool:
        """Return whether the disk has at least ``reserve_megabytes`` left."""
        return self._free_megabytes() >= self._settings.reserve_megabytes

    def note_refusal(self, reason: str) -> None:
        """Remember that an object was refused for want of resources, and why."""
        self._refusal = (time.monotonic(), reason)

    def refusal(self, seconds: float) -> str:
        """Return why an object was refused in the last seconds; empty: none was."""
        when, reason = self._refusal
        return reason if time.monotonic() - when <= seconds else ""

    def fault(self) -> str:
        """Return why no file could be kept now; empty when one could."""
        if not self.has_room():
            required = self._settings.reserve_megabytes
            return f"{self._free_megabytes()} MB free, required {required}"
        try:
            self._probe.write_bytes(b"1")
            self._probe.unlink()
        except OSError as error:
            return f"the data folder: {error.strerror or type(error).__name__}"
        return self.objects.fault()

    def _free_megabytes(self) -> int:
        return shutil.disk_usage(self._incoming).free // MEGABYTE

    def keep(self, file: IncomingFile) -> str:
        """Return the path, below the data folder, under which a checked file now lies durably.

        Raises
        ------
        OutOfResources
            When the disk, or the bucket, does not take it; the file is gone then.
        """
        file.sync()
        name = Path(file.name).name
        below = f"images/{name[:2]}/{name}"
        try:
            self.objects.adopt(Path(file.name), below)
        except OSError as error:
            raise OutOfResources(error.strerror or str(error)) from error
        return below

    def discard(self, path: str) -> None:
        """Remove a kept file that got no row; what cannot be removed now is set aside later."""
        try:
            self.objects.delete(path)
        except ObjectsAway as error:
            logger.warning("an object without a row stays until the next start: %s", error)


def mark_of(owner: str) -> str:
    """Return what the names of an executor's files end with: what is random in its own."""
    return owner.rpartition("-")[2]


def file_name(owner: str) -> str:
    """Return a new name for an image that an executor writes."""
    mark = mark_of(owner)
    return f"{secrets.token_hex(16)}{mark and f'-{mark}'}.dcm"


def _removed(path: Path) -> int:
    """Remove a file, or a folder with what is in it; return how many files those were."""
    if not path.is_dir():
        path.unlink()
        return 1
    found = list(path.iterdir())
    shutil.rmtree(path)
    return len(found)


# ---- readiness -----------------------------------------------------------------------------------
# Whether an object could be stored now: what C-ECHO answers, and what an alarm says.

logger = logging.getLogger(__name__)

FAULT_SECONDS = 1.0
"""An answer holds so long: a monitor, or a flood of C-ECHOs, costs one look a second."""


class Readiness:
    """Looks whether files and rows can be written; nothing that it writes stays."""

    def __init__(self, inbox: Inbox, database: Database) -> None:
        self._inbox = inbox
        self._database = database
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._fault = ""

    def fault(self) -> str:
        """Return why no object could be stored now; empty when one could."""
        with self._lock:
            if time.monotonic() - self._looked > FAULT_SECONDS:
                found = self._inbox.fault() or databases.fault(self._database)
                if found != self._fault:
                    logger.warning("storing of objects: %s", found or "possible again")
                self._fault, self._looked = found, time.monotonic()
            return self._fault
