"""One walk over the bytes of a data set, with constant memory and within a budget.

The rule: nothing is parsed anywhere before this walk has been through it. It goes into sequences of
defined and undefined length alike, reads no value but those that it was asked for, and counts
what an object makes others do: elements, items, fragments, depth, bytes beside the pixels, text,
inflated bytes and time. What goes beyond the budget is refused, with the name of the budget.

It reads as pydicom does, faults included: what stands in a value of defined length and cannot be
parsed costs that value alone, while a fault of the data set's own structure is refused.
"""

import struct
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO

from pydicom.datadict import dictionary_VR, private_dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from thoracle.errors import BeyondBudget, CannotUnderstand
from thoracle.receive.data_set_bytes import CHUNK, Inflated, Plain, Source
from thoracle.settings import Budget

UNDEFINED_LENGTH = 0xFFFFFFFF
LARGEST_PADDING = 1024 * 1024
PIXEL_DATA = Tag("PixelData")
IDENTITY = frozenset(
    Tag(keyword)
    for keyword in (
        *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
        *("PatientID", "IssuerOfPatientID"),
    )
)
"""What may not stand twice with different values: one reader takes the first, the next the last."""
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR"))
_LONG |= frozenset((b"UT", b"UV"))
"""Explicit VRs with a length of four bytes (PS3.5 Section 7.1.2)."""
_BINARY = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"UN", b"AT", b"FD", b"FL", b"SL"))
_BINARY |= frozenset((b"SS", b"SV", b"UL", b"US", b"UV"))
ELEMENTS, ITEMS, FRAGMENTS = "data elements", "items of sequences", "fragments"
BYTES = "bytes beside Pixel Data"
_LOOK_AT_CLOCK = 1024
"""Elements between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """Where Pixel Data lies."""

    position: int
    """Of its first byte; of a deflated data set, in what it inflates to."""
    length: int
    """Bytes, or ``UNDEFINED_LENGTH`` when encapsulated."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a walk brings back."""

    elements: dict[BaseTag, DataElement | RawDataElement]
    """The wanted elements of the outermost data set."""
    pixels: Pixels | None


class _Kind(Enum):
    DATA_SET = "data set"
    ITEMS = "items"
    FRAGMENTS = "fragments"


@dataclass(slots=True)
class _Frame:
    kind: _Kind
    end: int | None
    """Where it ends; ``None``: at its delimiter, or at the end of all."""
    box: int | None
    """The end of the value of defined length that it is in; faults in there end there."""
    implicit: bool


def walk(
    file: BinaryIO,
    size: int,
    syntax: UID,
    wanted: Container[BaseTag],
    longest: int,
    budget: Budget,
    clock: Callable[[], float] = time.thread_time,
) -> Found:
    """Return the wanted elements of a data set that is whole and within the budget.

    Parameters
    ----------
    file
        At the beginning of the data set.
    size
        Where the file ends, bytes.
    syntax
        The transfer syntax.
    wanted
        Tags of the outermost data set whose values are returned.
    longest
        Bytes that such a value may have.
    budget
        What the object may cost.
    clock
        Seconds; of this thread's processor time, so that a busy machine refuses nothing.

    Raises
    ------
    CannotUnderstand
        The data set is cut short, or its structure has a fault.
    BeyondBudget
        It asks for more than the budget.
    """
    source: Source = Plain(file, size)
    if syntax == DeflatedExplicitVRLittleEndian:
        compressed = size - source.position
        source = Inflated(file, compressed, budget.inflated_megabytes * 1024 * 1024)
    return _Walk(source, size, syntax, wanted, longest, budget, clock).run()


class _Walk:
    def __init__(
        self,
        source: Source,
        size: int,
        syntax: UID,
        wanted: Container[BaseTag],
        longest: int,
        budget: Budget,
        clock: Callable[[], float],
    ) -> None:
        self._source = source
        self._size = size
        self._wanted = wanted
        self._longest = longest
        self._budget = budget
        self._clock = clock
        self._deadline = clock() + budget.seconds
        self._little = syntax.is_little_endian
        order = "<" if self._little else ">"
        self._tag = struct.Struct(f"{order}HH").unpack_from
        self._short = struct.Struct(f"{order}H").unpack_from
        self._long = struct.Struct(f"{order}I").unpack_from
        self._counts = {ELEMENTS: 0, ITEMS: 0, FRAGMENTS: 0, BYTES: 0}
        self._depth = 0
        self._creators: dict[int, str] = {}
        self._found: dict[BaseTag, DataElement | RawDataElement] = {}
        self._pixels: Pixels | None = None
        # As pydicom: what the first element looks like counts more than the transfer syntax.
        implicit = _looks_implicit(source.peek(6), syntax.is_implicit_VR)
        self._frames = [_Frame(_Kind.DATA_SET, None, None, implicit)]

    def run(self) -> Found:
        steps = {
            _Kind.DATA_SET: self._element,
            _Kind.ITEMS: self._item,
            _Kind.FRAGMENTS: self._fragment,
        }
        while self._frames:
            frame = self._frames[-1]
            ends = [end for end in (frame.end, frame.box) if end is not None]
            if ends and self._source.position >= min(ends):
                self._leave()
                continue
            if frame.box is not None and frame.box - self._source.position < 8:
                self._leave_box(frame.box)
                continue
            head = self._source.read(8)
            if len(head) == 8:
                steps[frame.kind](frame, head)
            elif len(self._frames) == 1 and not head.strip(b"\0"):
                break  # the end, with less than eight zeros behind it
            else:
                raise CannotUnderstand(f"data set ends within an element, at byte {self._place()}")
        return Found(self._found, self._pixels)

    def _place(self) -> str:
        return f"{self._source.position} of {self._size}"

    # ---- the budget ----------------------------------------------------------------------------

    def _count(self, what: str, allowed: int, more: int = 1) -> None:
        self._counts[what] += more
        if self._counts[what] > allowed:
            raise BeyondBudget(f"more than {allowed} {what}")

    def _enter(self, frame: _Frame) -> None:
        if frame.kind is _Kind.ITEMS:
            self._depth += 1
            if self._depth > self._budget.nesting:
                raise BeyondBudget(f"sequences nested deeper than {self._budget.nesting}")
        self._frames.append(frame)

    def _leave(self) -> None:
        frame = self._frames.pop()
        if frame.kind is _Kind.ITEMS:
            self._depth -= 1

    def _leave_box(self, end: int) -> None:
        """Give up a value of defined length that cannot be parsed."""
        while (box := self._frames[-1].box) is not None and box <= end:
            self._leave()
        rest = end - self._source.position
        self._count(BYTES, self._budget.header_megabytes * 1_000_000, rest)
        if not self._source.skip(rest):
            raise CannotUnderstand(f"a sequence is cut short, at byte {self._place()}")

    # ---- data sets -----------------------------------------------------------------------------

    def _element(self, frame: _Frame, head: bytes) -> None:
        group, number = self._tag(head)
        tag = group << 16 | number
        outermost = len(self._frames) == 1
        if tag == _ITEM_END and not outermost:
            self._leave()
            return
        if outermost and tag == 0:
            self._padding(head)
            return
        if outermost and group == 0xFFFE:
            raise CannotUnderstand(f"{Tag(tag)} outside a sequence, at byte {self._place()}")
        if outermost and group == 2 and not self._counts[ELEMENTS]:
            # Behind File Meta Information all readers would take it for a part of that.
            raise CannotUnderstand(f"{Tag(tag)} in a data set (PS3.5 Section 7.1)")
        self._count(ELEMENTS, self._budget.elements)
        if self._counts[ELEMENTS] % _LOOK_AT_CLOCK == 0 and self._clock() > self._deadline:
            raise BeyondBudget(f"reading takes more than {self._budget.seconds:g} seconds")
        if frame.box is not None and frame.box - self._source.position < 4:
            self._leave_box(frame.box)  # too short for the length of a long value, and for a value
            return
        vr, length, implicit = self._vr_and_length(frame, head)
        if length == UNDEFINED_LENGTH:
            self._undefined(frame, tag, vr, outermost)
        else:
            self._defined(frame, tag, vr, length, implicit, outermost)

    def _vr_and_length(self, frame: _Frame, head: bytes) -> tuple[bytes | None, int, bool]:
        """Return the VR, ``None`` when implicit, the length, and whether the VR is implicit."""
        vr = head[4:6]
        # As pydicom: some writers go over to implicit VR in the middle.
        if frame.implicit or not b"AA" <= vr <= b"ZZ":
            return None, int(self._long(head, 4)[0]), frame.implicit
        if vr not in _LONG:
            return vr, int(self._short(head, 6)[0]), False
        length = self._source.read(4)
        if len(length) < 4:
            raise CannotUnderstand(f"data set ends within an element, at byte {self._place()}")
        return vr, int(self._long(length)[0]), False

    def _undefined(self, frame: _Frame, tag: int, vr: bytes | None, outermost: bool) -> None:
        _require_value(tag, outermost=outermost)
        fragments = tag == PIXEL_DATA or vr in (b"OB", b"OW")
        if outermost and tag == PIXEL_DATA:
            self._pixels = Pixels(self._source.position, UNDEFINED_LENGTH)
        kind = _Kind.FRAGMENTS if fragments else _Kind.ITEMS
        self._enter(_Frame(kind, None, frame.box, frame.implicit))

    def _defined(
        self,
        frame: _Frame,
        tag: int,
        vr: bytes | None,
        length: int,
        implicit: bool,
        outermost: bool,
    ) -> None:
        position = self._source.position
        end = position + length
        if frame.box is not None:
            end = min(end, frame.box)
        elif isinstance(self._source, Plain) and end > self._size:
            raise CannotUnderstand(f"{Tag(tag)} ends at byte {end} of {self._size}")
        if outermost and tag == PIXEL_DATA:
            self._pixels = Pixels(position, length)
            self._skip(tag, end - position)
            return
        if self._is_sequence(tag, vr, length):
            _require_value(tag, outermost=outermost)
            self._enter(_Frame(_Kind.ITEMS, end, end, frame.implicit))
            return
        self._count(BYTES, self._budget.header_megabytes * 1_000_000, end - position)
        if outermost and tag in self._wanted:
            name = None if vr is None else vr.decode("ascii", "replace")
            value = self._value(tag, length)
            self._keep(
                RawDataElement(
                    BaseTag(tag),
                    name,
                    length,
                    value,
                    position,
                    implicit or vr is None,
                    self._little,
                )
            )
        elif tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF and end - position <= 64:
            creator = self._value(tag, end - position)
            self._creators[tag] = creator.decode("ascii", "replace").strip(" \0")
        else:
            self._limit_text(tag, vr, length)
            self._skip(tag, end - position)

    def _keep(self, element: RawDataElement) -> None:
        if self._pixels is not None:
            return  # behind Pixel Data nobody looks who reads a header (PS3.5 Section 7.1)
        before = self._found.get(element.tag)
        if element.tag in IDENTITY and before is not None and before.value != element.value:
            raise CannotUnderstand(f"{element.tag} is there twice, with different values")
        self._found[element.tag] = element

    def _value(self, tag: int, length: int) -> bytes:
        if length > self._longest:
            raise BeyondBudget(f"{Tag(tag)} has {length} bytes, at most {self._longest}")
        value = self._source.read(length)
        if len(value) < length:
            raise CannotUnderstand(f"{Tag(tag)} is cut short, at byte {self._place()}")
        return value

    def _skip(self, tag: int, length: int) -> None:
        if not self._source.skip(length):
            raise CannotUnderstand(f"{Tag(tag)} is cut short, at byte {self._place()}")

    def _limit_text(self, tag: int, vr: bytes | None, length: int) -> None:
        allowed = self._budget.text_kilobytes * 1000
        if length <= allowed or vr in _BINARY or vr == b"SQ":
            return
        if vr is None and self._known_vr(tag)[:2].encode() in (*_BINARY, b"SQ", b""):
            return
        raise BeyondBudget(f"{Tag(tag)} has {length} bytes of text, at most {allowed}")

    def _is_sequence(self, tag: int, vr: bytes | None, length: int) -> bool:
        if vr is not None and vr != b"UN":
            return vr == b"SQ"
        if length >= 8 and self._starts_with_item():
            return True
        return self._known_vr(tag) == "SQ"

    def _starts_with_item(self) -> bool:
        head = self._source.peek(4)
        return len(head) == 4 and self._tag(head) == (0xFFFE, 0xE000)

    def _known_vr(self, tag: int) -> str:
        """Return the VR that pydicom takes where none is given; empty when it has none."""
        try:
            if tag >> 16 & 1:
                creator = self._creators.get(tag & 0xFFFF0000 | tag >> 8 & 0xFF, "")
                return private_dictionary_VR(tag, creator)
            return dictionary_VR(tag)
        except KeyError:
            return ""

    def _padding(self, head: bytes) -> None:
        """Go to the end over zeros, which some writers pad with; those are no loss."""
        place, length = self._place(), len(head)
        more = head
        while more:
            if more.strip(b"\0") or length > LARGEST_PADDING:
                raise CannotUnderstand(f"data set ends at byte {place}")
            more = self._source.read(CHUNK)
            length += len(more)
        self._frames.clear()

    # ---- sequences and fragments ---------------------------------------------------------------

    def _item(self, frame: _Frame, head: bytes) -> None:
        group, number = self._tag(head)
        tag, length = group << 16 | number, int(self._long(head, 4)[0])
        if tag == _SEQUENCE_END:
            if frame.end is not None:
                self._leave_box(frame.end)
            else:
                self._leave()
            return
        if tag != _ITEM and frame.box is None:
            raise CannotUnderstand(f"a sequence with {Tag(tag)}, at byte {self._place()}")
        self._count(ITEMS, self._budget.items)
        end = None if length == UNDEFINED_LENGTH else self._source.position + length
        strict = frame.box is None and isinstance(self._source, Plain)
        if strict and end is not None and end > self._size:
            raise CannotUnderstand(f"an item ends at byte {end} of {self._size}")
        implicit = frame.implicit
        if not implicit and length:
            implicit = _looks_implicit(self._source.peek(6), implicit)
        self._enter(_Frame(_Kind.DATA_SET, end, frame.box, implicit))

    def _fragment(self, frame: _Frame, head: bytes) -> None:
        group, number = self._tag(head)
        tag, length = group << 16 | number, int(self._long(head, 4)[0])
        if tag == _SEQUENCE_END:
            self._leave()
            return
        if tag != _ITEM or length == UNDEFINED_LENGTH:
            if frame.box is not None:
                self._leave_box(frame.box)
                return
            raise CannotUnderstand(f"{Tag(tag)} among fragments, at byte {self._place()}")
        self._count(FRAGMENTS, self._budget.fragments)
        end = self._source.position + length
        if frame.box is not None and end > frame.box:
            self._leave_box(frame.box)
        elif not self._source.skip(length):
            raise CannotUnderstand(f"a fragment ends at byte {end} of {self._size}")


def _require_value(tag: int, *, outermost: bool) -> None:
    """Refuse a sequence in place of an identity: a reader takes it where it comes second."""
    if outermost and tag in IDENTITY:
        raise CannotUnderstand(f"{Tag(tag)} is a sequence, required: one value")


def _looks_implicit(head: bytes, assumed: bool) -> bool:
    """Return whether the element that begins with these bytes has no VR."""
    vr = head[4:6]
    if len(vr) < 2:
        return assumed
    return not (0x40 < vr[0] < 0x5B and 0x40 < vr[1] < 0x5B)
