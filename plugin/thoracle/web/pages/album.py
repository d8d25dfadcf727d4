"""Pictures for the page of a study: made once, by a child process, and kept below the data folder.

A picture is kept under the SHA-256 of what it is made of, so a corrected image has another. What
was not looked at for longest goes when there are too many; none is the only copy of anything.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from thoracle.errors import ThoracleError
from thoracle.image.codecs import LONGEST_DETAIL
from thoracle.settings import Settings
from thoracle.web.pages.rendering import SIGNATURE, Order

EDITION = "1"
"""Changes when the same files make another picture."""
LARGEST_ALBUM = 512 * 2**20
"""Bytes of all pictures kept."""
AT_A_TIME = 2
"""Pictures under way: each may take the memory that ``[decode]`` allows."""
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")

_places = threading.BoundedSemaphore(AT_A_TIME)


class NoPicture(ThoracleError):
    """There is no picture, for a reason that can be shown: it has no patient data."""


def stored_picture(settings: Settings, order: Order, digests: Sequence[str]) -> bytes:
    """Return the PNG file that an order asks for.

    Parameters
    ----------
    order
        Paths below the data folder.
    digests
        SHA-256 of the files in it.

    Raises
    ------
    NoPicture
        The image cannot be decoded, or not within the limits of ``[decode]``.
    """
    name = _name(order, digests)
    folder = settings.data_folder / "cache" / "pictures"
    kept = folder / name[:2] / f"{name}.png"
    with contextlib.suppress(OSError):
        found = kept.read_bytes()
        os.utime(kept)
        return found
    made = _made(settings, order)
    with contextlib.suppress(OSError):  # e.g. a full disk: a picture is shown without being kept
        _keep(kept, made)
        _make_room(folder)
    return made


def _name(order: Order, digests: Sequence[str]) -> str:
    parts = {"edition": EDITION, "order": order, "digests": list(digests)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _made(settings: Settings, order: Order) -> bytes:
    folder, limits = settings.data_folder.absolute(), settings.decode
    absolute = Order(
        image=str(folder / order["image"]),
        states=[str(folder / one) for one in order["states"]],
        segmentations=[str(folder / one) for one in order["segmentations"]],
        key_image=order["key_image"],
    )
    limit = [str(limits.memory_megabytes), str(limits.timeout_seconds)]
    # A file, because the system keeps the child from filling it; a pipe would take any amount.
    with _places, tempfile.TemporaryFile() as answer:
        try:
            status = subprocess.run(
                [sys.executable, "-P", "-m", "thoracle.web.pages.rendering", *limit],
                input=json.dumps(absolute).encode(),
                stdout=answer,
                stderr=subprocess.DEVNULL,  # its traceback may quote the patient's name
                timeout=limits.timeout_seconds,
                check=False,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
                | {"OPENBLAS_NUM_THREADS": "1"},  # each of its threads reserves address space
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise NoPicture(
                f"making it took longer than the {limits.timeout_seconds:g} seconds allowed"
            ) from error
        answer.seek(0)
        made = answer.read()
    if status != 0:
        raise NoPicture("the process that makes pictures ended without one")
    if not made.startswith(SIGNATURE):
        raise NoPicture(made[:LONGEST_DETAIL].decode("utf-8", "replace"))
    return made


def _keep(path: Path, made: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        file.write(made)
    Path(file.name).replace(path)


def _make_room(folder: Path) -> None:
    """Delete what was not looked at for longest, until the rest is small enough."""
    found = sorted((one.stat().st_mtime, one.stat().st_size, one) for one in folder.glob("*/*"))
    size = sum(length for _, length, _ in found)
    for _, length, path in found:
        if size <= LARGEST_ALBUM:
            return
        path.unlink(missing_ok=True)
        size -= length
