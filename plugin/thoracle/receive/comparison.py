"""Whether two objects have the same frames, whatever their encoding.

The same bytes of pixels under the same description are the same frames; this is looked at first, in
constant memory. Else both are decoded, in a child with limits of memory and time, and the digests
of what comes out are compared. What cannot be compared is not the same.
"""

import hashlib
from pathlib import Path
from typing import Any

from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from thoracle.errors import CannotUnderstand, NotAnalysable
from thoracle.image.decoder import Decoder
from thoracle.receive import completeness
from thoracle.receive.completeness import Walked
from thoracle.receive.walk import UNDEFINED_LENGTH
from thoracle.settings import Budget
from thoracle.study.instances import Received

_CHUNK = 1_048_576
_DESCRIBING = (
    *("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)
"""Elements that say how bytes become stored values (PS3.3 Section C.7.6.3)."""


class Frames:
    """Compares a received object with a version that is kept.

    Parameters
    ----------
    data_folder
        Where the paths of both begin.
    decoder
        The child; its own, so that reading and receiving do not wait for each other.
    budget
        What a walk over an object may cost.
    """

    def __init__(self, data_folder: Path, decoder: Decoder, budget: Budget) -> None:
        self._data_folder = data_folder
        self._decoder = decoder
        self._budget = budget

    def same(self, previous: Any, received: Received) -> str | None:
        """Return the digest of the frames that both have, ``None`` when it was not needed.

        Raises
        ------
        CannotUnderstand
            They have other frames, or it cannot be told.
        """
        known: str | None = previous.frames_sha256
        old, new = (self._data_folder / one.path for one in (previous, received))
        if old.exists() and previous.transfer_syntax_uid == received.transfer_syntax_uid:
            encoded = self._encoded(old, received)
            if encoded is not None and encoded == self._encoded(new, received):
                return known
        try:
            known = known or self._decoder.digest(old)
            found = self._decoder.digest(new)
        except NotAnalysable as error:
            detail = "SOP Instance UID is known; its pixels cannot be compared"
            raise CannotUnderstand(f"{detail}: {error.detail}") from error
        if found != known:
            raise CannotUnderstand("SOP Instance UID is known with other pixels")
        return known

    def _encoded(self, path: Path, received: Received) -> tuple[object, ...] | None:
        """Return what describes the pixels and the digest of their bytes, ``None`` when unknown."""
        syntax = UID(received.transfer_syntax_uid)
        if syntax == DeflatedExplicitVRLittleEndian:
            return None
        try:
            walked = completeness.walked(path, syntax, self._budget)
            described = tuple(str(walked.header.get(name)) for name in _DESCRIBING)
            return (*described, _digest(path, walked))
        except CannotUnderstand:  # kept by a version without this budget
            return None


def _digest(path: Path, walked: Walked) -> str:
    """Return the digest of native pixels without padding, or of all fragments in a row."""
    assert walked.pixels is not None
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(walked.pixels.position)
        if walked.pixels.length != UNDEFINED_LENGTH:
            left = completeness.required_bytes(walked)
            while left > 0 and (chunk := file.read(min(left, _CHUNK))):
                sha256.update(chunk)
                left -= len(chunk)
            return sha256.hexdigest()
        first = True  # the Basic Offset Table, which is no pixels (PS3.5 Section A.4)
        while (head := file.read(8))[:4] == b"\xfe\xff\x00\xe0":
            left = int.from_bytes(head[4:], "little")
            while left > 0 and (chunk := file.read(min(left, _CHUNK))):
                if not first:
                    sha256.update(chunk)
                left -= len(chunk)
            first = False
    return sha256.hexdigest()
