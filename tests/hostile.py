"""Data sets that cost a receiver more than they weigh, made byte by byte."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    generate_uid,
)

ITEM, ITEM_END, SEQUENCE_END = (struct.pack("<HH", 0xFFFE, one) for one in (0xE000, 0xE00D, 0xE0DD))
UNDEFINED = 0xFFFFFFFF
_LONG = ("OB", "OW", "SQ", "UN", "UT")


@dataclass(frozen=True)
class Hostile:
    """An object to be sent: its transfer syntax, UID and data set."""

    syntax: UID
    sop_instance_uid: str
    data_set: bytes


def element(group: int, number: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """Return an element; ``length`` is what it claims instead of its own."""
    value += (b"\0" if vr in ("UI", "OB", "UN") else b" ") * (len(value) % 2)
    length = len(value) if length is None else length
    head = struct.pack("<HH", group, number) + vr.encode()
    if vr in _LONG:
        return head + struct.pack("<HI", 0, length) + value
    return head + struct.pack("<H", length) + value


def implicit(group: int, number: int, value: bytes) -> bytes:
    """Return an element of implicit VR."""
    return struct.pack("<HHI", group, number, len(value)) + value


def item(content: bytes, length: int | None = None) -> bytes:
    """Return an item of a sequence."""
    return ITEM + struct.pack("<I", len(content) if length is None else length) + content


def sequence(content: bytes) -> bytes:
    """Return a Referenced Image Sequence of undefined length."""
    return element(8, 0x1140, "SQ", content, UNDEFINED) + SEQUENCE_END + bytes(4)


def image(
    before: bytes = b"",
    *,
    behind: bytes = b"",
    patient: bytes = b"",
    rows: int = 32,
    columns: int = 32,
    pixels: bytes | None = None,
    syntax: UID = ExplicitVRLittleEndian,
    uid: str | None = None,
    study: str | None = None,
) -> Hostile:
    """Return a small image in explicit VR, with elements in group 8 or 9, or behind group 28."""
    uid = generate_uid() if uid is None else uid
    study = generate_uid() if study is None else study
    dx = ComputedRadiographyImageStorage.encode()
    data_set = element(8, 0x16, "UI", dx) + element(8, 0x18, "UI", uid.encode())
    data_set += element(8, 0x60, "CS", b"CR") + before
    data_set += patient or element(0x10, 0x20, "LO", b"HOSTILE")
    data_set += element(0x18, 0x15, "CS", b"CHEST") + element(0x18, 0x5101, "CS", b"PA")
    data_set += element(0x20, 0xD, "UI", study.encode())
    data_set += element(0x20, 0xE, "UI", generate_uid().encode())
    data_set += element(0x28, 2, "US", b"\1\0") + element(0x28, 4, "CS", b"MONOCHROME2")
    data_set += element(0x28, 0x10, "US", struct.pack("<H", rows))
    data_set += element(0x28, 0x11, "US", struct.pack("<H", columns))
    for number, bits in ((0x100, 8), (0x101, 8), (0x102, 7), (0x103, 0)):
        data_set += element(0x28, number, "US", struct.pack("<H", bits))
    data_set += behind
    data_set += element(0x7FE0, 0x10, "OB", bytes(rows * columns)) if pixels is None else pixels
    return Hostile(syntax, uid, data_set)


def nested(levels: int) -> Hostile:
    """Sequences of defined length in each other."""
    inner = b""
    for _ in range(levels):
        inner = element(8, 0x1140, "SQ", item(inner))
    return image(inner)


def nested_undefined(levels: int) -> Hostile:
    """Sequences of undefined length in each other."""
    down = element(8, 0x1140, "SQ", item(b"", UNDEFINED), UNDEFINED)
    up = ITEM_END + bytes(4) + SEQUENCE_END + bytes(4)
    return image(down * levels + up * levels)


def nested_unknown(levels: int) -> Hostile:
    """As ``nested``, and the outermost one says that its VR is not known."""
    inner = b""
    for _ in range(levels - 1):
        inner = implicit(8, 0x1140, item(inner))
    return image(element(8, 0x1140, "UN", item(inner)))


def nested_faulty(levels: int) -> Hostile:
    """As ``nested``, and no item begins with the tag of one: pydicom goes in all the same."""
    inner = b""
    for _ in range(levels):
        inner = element(8, 0x1140, "SQ", struct.pack("<HHI", 8, 1, len(inner)) + inner)
    return image(inner)


def items(number: int) -> Hostile:
    """Empty items of one sequence."""
    return image(sequence(item(b"") * number))


def elements(number: int) -> Hostile:
    """Empty elements of the outermost data set."""
    return image(element(9, 0x10, "LO", b"MAKER") + element(9, 0x1001, "LO", b"") * number)


def elements_of_item(number: int) -> Hostile:
    """Empty elements of one item."""
    content = element(9, 0x1001, "LO", b"") * number
    return image(sequence(item(content, UNDEFINED) + ITEM_END + bytes(4)))


def deflated(megabytes: int) -> Hostile:
    """A private value of zeros, deflated; padded, so that the ratio alone says nothing."""
    plain = image(
        behind=element(0x29, 0x10, "LO", b"MAKER")
        + element(0x29, 0x1001, "OB", bytes(megabytes * 1_000_000))
    )
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(plain.data_set) + deflate.flush()
    padding = bytes(max(0, len(plain.data_set) // 100 + 1000 - len(packed)))
    return Hostile(DeflatedExplicitVRLittleEndian, plain.sop_instance_uid, packed + padding)


def fragments(number: int) -> Hostile:
    """Empty fragments of encapsulated pixel data."""
    content = item(b"") * number + SEQUENCE_END + bytes(4)
    pixels = element(0x7FE0, 0x10, "OB", content, UNDEFINED)
    return image(pixels=pixels, syntax=JPEGBaseline8Bit)


def long_name(characters: int) -> Hostile:
    """A patient's name of separators."""
    return image(patient=element(0x10, 0x10, "PN", b"^" * characters))


def character_sets(number: int) -> Hostile:
    """Names of character sets."""
    names = b"\\".join([b"ISO 2022 IR 87"] * number)[:65534]
    plain = image()
    return Hostile(
        plain.syntax, plain.sop_instance_uid, element(8, 5, "CS", names) + plain.data_set
    )


def long_text(characters: int) -> Hostile:
    """Text without an end that a value representation would set."""
    return image(behind=element(0x40, 0xA160, "UT", b"x" * characters))


COSTLY: dict[str, tuple[Callable[[int], Hostile], int, str]] = {
    "sequences of defined length": (nested, 3000, "nested deeper than 64"),
    "sequences of undefined length": (nested_undefined, 3000, "nested deeper than 64"),
    "sequences of unknown VR": (nested_unknown, 3000, "nested deeper than 64"),
    "sequences of faulty items": (nested_faulty, 3000, "nested deeper than 64"),
    "items": (items, 10_000_000, "more than 10000 items of sequences"),
    "elements": (elements, 10_000_000, "more than 20000 data elements"),
    "elements of an item": (elements_of_item, 10_000_000, "more than 20000 data elements"),
    "deflated": (deflated, 900, "more than 32000000 bytes beside Pixel Data"),
    "fragments": (fragments, 10_000_000, "more than 20000 fragments"),
    "name": (long_name, 65_000, "(0010,0010) has 65000 bytes, at most 4096"),
    "character sets": (character_sets, 5000, "(0008,0005) has 65534 bytes, at most 4096"),
    "text": (long_text, 10_000_000, "(0040,A160) has 10000000 bytes of text, at most 64000"),
}
"""What is refused: how it is made, how much of it (ten times what brought a receiver down), and
what the refusal says."""
