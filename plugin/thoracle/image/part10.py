"""A Part 10 file is taken apart by pydicom, also where its Specific Character Set is no text.

pydicom looks at that one element while it reads, and raises; what it says of the others can wait
until :mod:`attributes` reads them.
"""

from io import BytesIO
from typing import BinaryIO, NamedTuple

from pydicom import dcmread
from pydicom.dataset import FileDataset

_CHARACTER_SET = b"\x08\x00\x05\x00"
_BIG_ENDIAN_CHARACTER_SET = b"\x00\x08\x00\x05"
_BEHIND_PREFIX = 132


class Parsed(NamedTuple):
    """A file that was taken apart."""

    ds: FileDataset
    file: BinaryIO
    """Where it stands now: at Pixel Data, if these were not read."""
    without_character_set: bool
    """Whether its Specific Character Set was left out."""


def parse(
    file: BinaryIO,
    *,
    stop_before_pixels: bool = False,
    specific_tags: tuple[str, ...] | None = None,
) -> Parsed:
    """Return the elements of a file.

    Raises
    ------
    Exception
        Whatever pydicom raises: the elements cannot be told apart.
    """
    tags = None if specific_tags is None else list(specific_tags)
    try:
        ds = dcmread(file, stop_before_pixels=stop_before_pixels, specific_tags=tags)
        return Parsed(ds, file, False)
    except Exception:
        file.seek(0)
        content = file.read()
        places = [
            content.find(tag, _BEHIND_PREFIX) for tag in (_CHARACTER_SET, _BIG_ENDIAN_CHARACTER_SET)
        ]
        at = min((place for place in places if place >= 0), default=None)
        if at is None:
            raise
    # An odd group is private, and so read by nobody.
    odd = bytes(byte | 1 if byte == 8 else byte for byte in content[at : at + 2])
    file = BytesIO(content[:at] + odd + content[at + 2 :])
    ds = dcmread(file, stop_before_pixels=stop_before_pixels, specific_tags=tags)
    return Parsed(ds, file, True)
