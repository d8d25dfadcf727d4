"""UIDs that follow from what they name: the same UID always means the same bytes.

All are below ``2.25`` (PS3.5 Section B.2), which needs no registered root.
"""

import hashlib
from typing import Final

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID

NAME: Final = "Thoracle"
"""Manufacturer (0008,0070) and Manufacturer's Model Name (0008,1090) of everything we make."""


def derived_uid(kind: str, *names: str) -> UID:
    """Return the UID for ``kind`` of object with these names, at most 44 characters.

    The number is a UUID of version 8 (RFC 9562 Section 5.8) made of a SHA-256.
    """
    digest = bytearray(hashlib.sha256("\0".join((kind, *names)).encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80  # version
    digest[8] = digest[8] & 0x3F | 0x80  # variant
    return UID(f"2.25.{int.from_bytes(digest)}")


def device_uid(bundle_digest: str) -> UID:
    """Return the Device UID of a model: a retrained model is another device (IHE AIR)."""
    return derived_uid("device", bundle_digest)


def digest(ds: Dataset) -> str:
    """Return a SHA-256 (hexadecimal) over every attribute, nested ones too.

    A walk costs a tenth of encoding a report.
    """
    lines = (f"{element.tag}{element.VR}{_summary(element)}" for element in ds.iterall())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _summary(element: DataElement) -> object:
    match element.value:
        case bytes() as pixels:
            return hashlib.sha256(pixels).hexdigest()
        case items if element.VR == "SQ":
            return len(items)
        case value:
            return value
