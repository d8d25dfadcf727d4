"""Objects as files below the data folder: what each store of objects does.

Rows name an object by a path below the data folder, wherever it is (store/objects.py).
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from thoracle.store import files

ORPHANS = "orphans"
"""Where objects without a row are set aside."""


@dataclass(frozen=True, slots=True)
class Digest:
    """What a row knows of its object."""

    sha256: str
    size: int | None = None
    """Of an image the data set counts: so many bytes at its end. ``None``: all."""


Known = Callable[[], Digest | None]
"""Asks a row, where that is needed."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """An object without a row that was set aside."""

    name: str
    since: float
    """When it was set aside, seconds of the epoch."""


class Objects:
    """Files below the data folder.

    Parameters
    ----------
    folder
        The data folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # ---- one object --------------------------------------------------------------------------

    def local(self, below: str, known: Known | None = None) -> Path:
        """Return a local file of an object to read; there is none when there is no such object.

        Parameters
        ----------
        known
            What is fetched from elsewhere must have this digest.

        Raises
        ------
        ObjectsAway
            It cannot be told now; a later attempt may do.
        ThoracleError
            The path is none of an object, or what was fetched has another digest.
        """
        del known  # a file is where it was written
        return files.stored(self.folder, below)

    def opened(self, below: str) -> BufferedReader:
        """Open an object where it is kept, past any copy; raises as :meth:`local`.

        Raises
        ------
        FileNotFoundError
            There is no such object.
        """
        return files.stored(self.folder, below).open("rb")

    def exists(self, below: str) -> bool:
        """Return whether an object is kept; raises as :meth:`local`."""
        return files.stored(self.folder, below).exists()

    def adopt(self, source: Path, below: str) -> None:
        """Keep a file that is whole and synchronised to the disk; it is moved.

        Raises
        ------
        OSError
            It is not kept.
        """
        target = files.stored(self.folder, below)
        try:
            source.rename(target)
            files.sync_folder(target.parent)
        except OSError:
            with suppress(OSError):
                target.unlink()
            raise

    def write(self, below: str, content: bytes, behind: tuple[Path, int] | None = None) -> str:
        """Keep an object, in place of one of that name; return its hexadecimal SHA-256.

        It waits for room while the disk is full. ``behind`` is that of
        :func:`~thoracle.store.files.write_durably`.

        Raises
        ------
        ObjectsAway
            It cannot be kept now.
        """
        return files.write_retrying(files.stored(self.folder, below), content, behind)

    def delete(self, below: str) -> None:
        """Delete an object, if there is one; raises as :meth:`local`."""
        files.stored(self.folder, below).unlink(missing_ok=True)

    # ---- all of them -------------------------------------------------------------------------

    def images(self) -> list[str]:
        """Return the paths of all received images; raises as :meth:`local`."""
        found = (self.folder / "images").glob("*/*")
        return [str(path.relative_to(self.folder)) for path in found]

    def set_aside(self, paths: Iterable[str]) -> None:
        """Move objects without a row to the orphans; raises as :meth:`local`."""
        for below in paths:
            (self.folder / ORPHANS).mkdir(exist_ok=True, mode=0o700)
            path = files.stored(self.folder, below)
            path.rename(self.folder / ORPHANS / path.name)

    def orphans(self) -> list[Orphan]:
        """Return what was set aside; a file's change of name is its last change."""
        found = (self.folder / ORPHANS).glob("*")
        return [Orphan(path.name, path.stat().st_ctime) for path in found]

    def opened_orphan(self, name: str) -> BufferedReader:
        """Open what was set aside; raises as :meth:`opened`."""
        return (self.folder / ORPHANS / name).open("rb")

    def delete_orphan(self, name: str) -> None:
        """Delete what was set aside, if it is there."""
        (self.folder / ORPHANS / name).unlink(missing_ok=True)

    # ---- the place ---------------------------------------------------------------------------

    def where(self) -> str:
        """Return where orphans are, for a person."""
        return str(self.folder / ORPHANS)

    def fault(self) -> str:
        """Return why no object could be kept elsewhere now; empty when one could."""
        return ""

    def require(self) -> None:
        """Return when objects can be kept, read, listed and deleted; raises as :meth:`local`."""
