"""What is measured of each image file: digests, a perceptual hash, and the properties of the file.

Pixels come from ``codecs``, as in training and serving.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from thoracle.dataset.layout import Entry
from thoracle.errors import NotAnalysable
from thoracle.image.codecs import decode_file
from thoracle.records import Reason

SIDE = 32
"""Rows and columns of the thumbnail that is hashed."""
LONGER_SIDE = 64
"""Of the small image in which cropped copies are looked for."""
LOWEST = 16
"""Spatial frequencies kept in each direction, so the hash has 256 bits."""

_WAVES = np.cos(np.pi / SIDE * np.outer(np.arange(LOWEST), np.arange(SIDE) + 0.5))
"""Rows of the discrete cosine transform, type II."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What was measured of one file."""

    sha256: str
    """Of the file's bytes, hexadecimal."""
    pixels_sha256: str
    """Of the decoded pixels, their shape and depth, hexadecimal."""
    bits: NDArray[np.bool_]
    """``(256,)`` perceptual hash: alike for images that look alike."""
    thumbnail: NDArray[np.float32]
    """``(1024,)`` of mean 0 and length 1, so a product of two is their correlation."""
    small: NDArray[np.float32]
    """Brightness, longer side 64, shape kept: to look for cropped copies."""
    properties: dict[str, float | str]
    """Of the file, not of what it shows: ``format``, ``mode``, ``channels``, ``columns``, ..."""


def fingerprints(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Fingerprint | NotAnalysable]]:
    """Yield each file with what was measured of it, or with the reason why nothing was."""
    # Codecs release the interpreter's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from zip(entries, pool.map(_try, entries), strict=True)


def _try(entry: Entry) -> Fingerprint | NotAnalysable:
    try:
        return fingerprint(entry)
    except NotAnalysable as error:
        return error


def fingerprint(entry: Entry) -> Fingerprint:
    """Return what is measured of a file.

    Raises
    ------
    NotAnalysable
        The file cannot be read or decoded, or is neither PNG nor JPEG.
    """
    try:
        content = entry.path.read_bytes()
    except OSError as error:
        raise NotAnalysable(Reason.UNDECODABLE, f"the file cannot be read ({error})") from error
    check_signature(content)
    array = decode_file(entry.path).array
    digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    digest.update(array.tobytes())
    picture = _brightness(array)
    thumbnail = _scaled(picture, SIDE, SIDE)
    scale = LONGER_SIDE / max(picture.size)
    sides = [max(LONGER_SIDE // 4, round(side * scale)) for side in picture.size]
    return Fingerprint(
        hashlib.sha256(content).hexdigest(),
        digest.hexdigest(),
        _hash(thumbnail),
        _normalized(thumbnail),
        _scaled(picture, *sides),
        _properties(entry, content),
    )


def check_signature(content: bytes) -> None:
    """Refuse a file whose first bytes are neither those of PNG nor of JPEG."""
    if not content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        found = f"first bytes {content[:8].hex(' ')}" if content else "an empty file"
        raise NotAnalysable(Reason.UNDECODABLE, f"found {found}, required: a PNG or JPEG file")


def _brightness(array: NDArray[Any]) -> Image.Image:
    if array.dtype == np.uint8:
        return Image.fromarray(array).convert("L")
    return Image.fromarray(array.astype(np.float32))


def _scaled(picture: Image.Image, columns: int, rows: int) -> NDArray[np.float32]:
    """Return brightness averaged into ``(rows, columns)`` cells."""
    return np.asarray(picture.resize((columns, rows), Image.Resampling.BOX), np.float32)


def _hash(thumbnail: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which low frequencies are above their median: scale and contrast leave that alone."""
    frequencies = (_WAVES @ thumbnail @ _WAVES.T).ravel()
    return np.asarray(frequencies > np.median(frequencies))


def _normalized(thumbnail: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = thumbnail.ravel() - thumbnail.mean()
    return np.asarray(centred / (np.linalg.norm(centred) or 1), np.float32)


def _properties(entry: Entry, content: bytes) -> dict[str, float | str]:
    """Return properties of the file that should not tell what the patient has."""
    with Image.open(BytesIO(content), formats=("PNG", "JPEG")) as picture:
        mode, format_, (columns, rows) = picture.mode, str(picture.format), picture.size
    return {
        "format": format_,
        "extension": entry.path.suffix,
        "mode": mode,
        "channels": len(Image.new(mode, (1, 1)).getbands()),
        "bits": {"1": 1, "I": 16}.get(mode.partition(";")[0], 8),
        "columns": columns,
        "rows": rows,
        "rows/columns": round(rows / columns, 4),
        "bytes": len(content),
        "bytes/pixel": round(len(content) / (rows * columns), 4),
    }
