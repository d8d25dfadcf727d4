"""Each attribute of a header read by itself: one that cannot be read costs itself alone.

What other modules get is a data set in which every value is of its kind (PS3.6, PS3.5 Section 6.2):
a value that does not parse is as if it were absent, and a fault says so. pydicom converts a value
when it is looked at and raises whatever it finds, so that no ``try`` around a use can be complete.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from math import isfinite
from typing import Any, NamedTuple

from pydicom import Dataset, config
from pydicom.datadict import (
    dictionary_description,
    dictionary_has_tag,
    dictionary_keyword,
    dictionary_VM,
)
from pydicom.datadict import dictionary_VR as vr_in_dictionary
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.dataset import FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from thoracle.image import characters
from thoracle.image.characters import Repertoire

DEEPEST = 16
"""Levels of sequences that are read."""
LONGEST_QUOTE = 40
LARGEST = 1e30
"""Numbers are below it; no quantity comes near."""
MOST_SENTENCES = 20
"""Faults that are told one by one; of more their number is told."""

_DEFAULT_REPERTOIRE = {"AE", "AS", "CS", "DA", "DT", "TM", "UI", "UR"}
_TEXT = _DEFAULT_REPERTOIRE | {"LO", "LT", "PN", "SH", "ST", "UC", "UT"}
_UNSPLIT = {"LT", "ST", "UT", "UR"}
"""One value, in which a backslash is a character."""
_LINES = {"LT", "ST", "UT"}
"""Text that may have lines; in any other a control is no character (PS3.5 Section 6.1.3, 6.2)."""
_BREAKS = re.compile(r"[\t\n\f\r]+")
_WHOLE = {"IS", "SL", "SS", "SV", "UL", "US", "US or SS", "UV"}
_BROKEN = {"DS", "FD", "FL"}
_OF_TEXT = _TEXT | {"IS", "DS"}
_TEXTUAL_NUMBERS = re.compile(
    r"[+-]?(\d{1,20}(\.\d{0,40})?|\.\d{1,40})([eE][+-]?\d{1,3})?", re.ASCII
)
_JUDGED = {"BodyPartExamined", "ImageType", "Modality", "ViewPosition"}
"""Code strings of which a word in another script is judged, and that are copied nowhere."""
_CHARACTER_SET = Tag("SpecificCharacterSet")
_OPAQUE = (Tag("PixelData"), Tag("FloatPixelData"), Tag("DoubleFloatPixelData"))

FALLBACKS = {
    "BitsStored": "Bits Allocated is taken",
    "HighBit": "Bits Stored - 1 is taken",
    "ImagerPixelSpacing": "another spacing is taken, or square pixels",
    "LossyImageCompressionRatio": "the ratio is not stated",
    "ModalityLUTSequence": "no Modality LUT is applied",
    "NominalScannedPixelSpacing": "another spacing is taken, or square pixels",
    "NumberOfFrames": "one frame is taken",
    "PatientAge": "the dates are taken",
    "PatientBirthDate": "Patient's Age is taken",
    "PhotometricInterpretation": "MONOCHROME2 is taken",
    "PixelAspectRatio": "square pixels are taken",
    "PixelPaddingRangeLimit": "Pixel Padding Value is taken alone",
    "PixelPaddingValue": "no padding is taken",
    "PixelRepresentation": "unsigned values are taken",
    "PixelSpacing": "another spacing is taken, or square pixels",
    "RescaleIntercept": "0 is taken",
    "RescaleSlope": "1 is taken",
    "SamplesPerPixel": "the Photometric Interpretation decides",
    "TimezoneOffsetFromUTC": "the zone of the gateway is taken",
    "VOILUTFunction": "LINEAR is taken",
    "VOILUTSequence": "the window is taken, or percentiles of the grey values",
    "WindowCenter": "percentiles of the grey values are taken",
    "WindowWidth": "percentiles of the grey values are taken",
}
"""What is taken where an attribute cannot be read; any other is left out."""


class Fault(NamedTuple):
    """An attribute that could not be read as it came."""

    keyword: str
    found: str
    """What was found; quoted only where it cannot name a patient."""
    required: str
    fallback: str = ""
    """What is taken instead; empty: what ``FALLBACKS`` says."""
    within: str = ""
    """Name of the sequence at the top in whose items it stands."""

    @property
    def detail(self) -> str:
        """Element, what was found and what is required."""
        tag = Tag(self.keyword)
        name = f"{dictionary_description(tag)} ({tag.group:04X},{tag.element:04X})"
        where = f"{self.within} > {name}" if self.within else name
        return f"{where}: found {self.found}, required: {self.required}"

    @property
    def sentence(self) -> str:
        """The fault for the report: the detail, and what is taken instead."""
        return f"{self.detail}; {self.fallback or FALLBACKS.get(self.keyword, 'it is left out')}."


NO_CHARACTER_SET = Fault(
    "SpecificCharacterSet", "no text", "a defined term of PS3.3 Section C.12.1.1.2", "it is ignored"
)


def sentences(faults: tuple[Fault, ...]) -> tuple[str, ...]:
    """Return faults as sentences, each once and not too many."""
    said = tuple(dict.fromkeys(fault.sentence for fault in faults))
    if len(said) <= MOST_SENTENCES:
        return said
    more = len(said) - MOST_SENTENCES
    return (*said[:MOST_SENTENCES], f"{more} more attributes could not be read.")


def readable(ds: Dataset) -> tuple[Dataset, tuple[Fault, ...]]:
    """Return the standard attributes of a data set that can be read, and what is wrong with others.

    Private elements, group lengths, overlays and pixel data are left out. A value with a backslash
    where the standard has one value stays one value (PS3.5 Section 6.2).
    """
    found, faults = _read(ds, Repertoire(), 0)
    encoding = getattr(ds, "original_encoding", (None, None))
    implicit, little = encoding[0] is not False, encoding[1] is not False
    found.set_original_encoding(implicit, little, "utf_8")
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = _transfer_syntax(ds, implicit, little)
    return found, tuple(faults)


def _transfer_syntax(ds: Dataset, implicit: bool, little: bool) -> UID:
    """Return the transfer syntax that is stated, else the native one in which it was read."""
    with suppress(Exception):  # whatever is wrong with it, then it is not stated
        stated = UID(str(ds.file_meta.TransferSyntaxUID))
        if stated.is_transfer_syntax:
            return stated
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def text(ds: Dataset, keyword: str) -> str:
    """Return an element as one text without padding, empty when absent.

    Several values are joined by the backslashes that parted them.
    """
    value = ds.get(keyword)
    if value is None:
        return ""
    several = value if isinstance(value, MultiValue | list | tuple) else [value]
    return "\\".join(map(str, several)).strip(" \0")


def _read(ds: Dataset, inherited: Repertoire, depth: int) -> tuple[Dataset, list[Fault]]:
    found = Dataset()
    repertoire, faults = _repertoire(ds, inherited, found)
    for tag in sorted(ds.keys()):
        if tag == _CHARACTER_SET or _is_left_out(tag):
            continue
        vr, keyword = vr_in_dictionary(tag), dictionary_keyword(tag)
        try:
            faults += _Element(ds, tag, vr, keyword, repertoire, depth).into(found)
        except _Unreadable as error:
            faults.append(Fault(keyword, error.found, str(error)))
        # pydicom raises all kinds of errors on bytes from outside, and more in future.
        except Exception:  # noqa: BLE001 - whatever it was, this attribute cannot be read
            faults.append(Fault(keyword, "what cannot be read", f"a value of VR {vr}"))
    return found, faults


def _repertoire(
    ds: Dataset, inherited: Repertoire, found: Dataset
) -> tuple[Repertoire, list[Fault]]:
    """Return the character sets of a data set or item, and add them to ``found``."""
    if _CHARACTER_SET not in ds:
        return inherited, []
    repertoire = characters.declared(_terms(ds))
    if repertoire.terms:
        _add(found, _CHARACTER_SET, "CS", list(repertoire.terms))
    return repertoire, [
        NO_CHARACTER_SET._replace(found=repr(term[:LONGEST_QUOTE])) for term in repertoire.unknown
    ]


class _Unreadable(Exception):
    """A value is not of its kind; the message says what is required."""

    def __init__(self, found: str, required: str) -> None:
        super().__init__(required)
        self.found = found


class _Element(NamedTuple):
    """An element of a data set as it came."""

    ds: Dataset
    tag: BaseTag
    vr: str
    """That of the dictionary."""
    keyword: str
    repertoire: Repertoire
    depth: int

    def into(self, found: Dataset) -> Iterator[Fault]:
        """Add the element, read, to a data set; return what was replaced in it.

        Raises
        ------
        Exception
            Whatever pydicom raises; ``_Unreadable`` where it does not.
        """
        stored = self.ds.get_item(self.tag)
        if self.vr == "SQ":
            return iter(self._sequence(stored, found))
        if stored is None or stored.value is None or stored.value in (b"", ""):
            vr = self.vr[:2]
            _add(found, self.tag, vr, empty_value_for_VR(vr))
            return iter(())
        if self.vr in _TEXT:
            return iter(self._text(stored, found))
        if self.vr in _WHOLE | _BROKEN:
            self._numbers(stored, found)
        else:
            self._others(found)
        return iter(())

    def _sequence(self, stored: Any, found: Dataset) -> list[Fault]:
        if getattr(stored, "VR", None) not in ("SQ", "UN", None):
            raise _Unreadable(f"VR {stored.VR}", "a sequence")
        if self.depth == DEEPEST:
            raise _Unreadable("deeper items", f"at most {DEEPEST} levels of items")
        items, faults = [], []
        for item in self.ds[self.tag].value or []:
            read, wrong = _read(item, self.repertoire, self.depth + 1)
            items.append(read)
            faults += wrong
        _add(found, self.tag, "SQ", items)
        name = dictionary_description(self.tag)
        return [fault._replace(within=name) for fault in faults]

    def _characters(self, stored: Any) -> characters.Text:
        """Return a stored value as text, with padding."""
        value = stored.value
        if isinstance(stored, RawDataElement):
            if stored.VR not in (None, "UN") and stored.VR not in _OF_TEXT:
                raise _Unreadable(f"VR {stored.VR}", "text")
            return characters.decode(value, self.repertoire, name=self.vr == "PN")
        if isinstance(value, bytes):
            return characters.decode(value, self.repertoire, name=self.vr == "PN")
        if stored.VR not in _OF_TEXT:
            raise _Unreadable(f"VR {stored.VR}", "text")
        several = value if isinstance(value, MultiValue | list | tuple) else [value]
        joined = "\\".join("" if one is None else str(one) for one in several)
        return characters.decode(joined.encode("utf_8", "replace"), _UTF_8)

    def _text(self, stored: Any, found: Dataset) -> list[Fault]:
        decoded = self._characters(stored)
        several = dictionary_VM(self.tag) != "1" and self.vr not in _UNSPLIT
        text = decoded.text
        if self.vr not in _LINES:
            text = _BREAKS.sub(" ", text)
        parts = text.split("\\") if several else [text]
        strip = str.strip if self.vr in _PADDED_BEFORE else str.rstrip
        parts = [strip(part, " \0") for part in parts]
        ascii_only = self.vr in _DEFAULT_REPERTOIRE and self.keyword not in _JUDGED
        if ascii_only and not decoded.text.isascii():
            raise _Unreadable("other characters", "text in ASCII")
        if self.vr == "UI" and not all(re.fullmatch(r"[0-9.]{0,64}", part) for part in parts):
            raise _Unreadable("other text", "a UID")
        _add(found, self.tag, self.vr, parts)
        faults = []
        if text.strip() != decoded.text.strip():
            faults += [Fault(self.keyword, "line breaks", "one line", "a space stands for each")]
        if decoded.replaced:
            required = "text of the declared character set"
            said = f"{characters.REPLACEMENT} stands for what is no character"
            faults += [Fault(self.keyword, "other bytes", required, said)]
        elif decoded.guessed:
            stated = "\\".join(self.repertoire.terms) or "none"
            required = f"text of the Specific Character Set, here {stated}"
            said = f"read as {decoded.guessed}"
            faults += [Fault(self.keyword, "other bytes", required, said)]
        return faults

    def _numbers(self, stored: Any, found: Dataset) -> None:
        kind = "a decimal number" if self.vr in _BROKEN else "a whole number"
        most = dictionary_VM(self.tag)
        required = kind if most == "1" else f"{kind}, or several"
        parts = self._parts(stored, required)
        if not parts:
            _add(found, self.tag, self.vr[:2], empty_value_for_VR("US"))
            return
        if not all(map(self._is_number, parts)) or (most == "1" and len(parts) != 1):
            raise _Unreadable(self._shown(parts), required)
        vr = self.vr
        if vr in ("US", "UL", "UV", "FL", "FD", "SS", "SL", "SV", "US or SS"):
            parts = [float(part) if vr in _BROKEN else int(float(part)) for part in parts]
        elif vr == "IS":
            parts = [
                part if str(part).lstrip("+-").isdigit() else int(float(part)) for part in parts
            ]
        if vr == "US or SS":
            known = self.ds[self.tag].VR if stored.VR not in _OF_TEXT else ""
            vr = known if known in ("US", "SS") else "SS" if min(parts) < 0 else "US"
        _add(found, self.tag, vr, parts)

    def _parts(self, stored: Any, required: str) -> list[Any]:
        """Return numbers or their text, one for each value."""
        in_text = stored.VR in _OF_TEXT or (stored.VR in (None, "UN") and self.vr in ("IS", "DS"))
        if in_text:
            parts = self._characters(stored).text.split("\\")
            return [part.strip(" \0") for part in parts if part.strip(" \0")]
        try:
            value = self.ds[self.tag].value
        except Exception as error:
            raise _Unreadable(f"{len(stored.value)} bytes", required) from error
        if self.vr == "US or SS" and isinstance(value, bytes) and len(value) % 2 == 0:
            # Which of the two stands in an element that is not there, or cannot be read.
            return [int.from_bytes(value[at : at + 2], "little") for at in range(0, len(value), 2)]
        if isinstance(value, str | bytes):
            raise _Unreadable(f"VR {stored.VR}", required)
        return list(value) if isinstance(value, MultiValue | list | tuple) else [value]

    def _is_number(self, part: Any) -> bool:
        if part is None or (isinstance(part, str) and not _TEXTUAL_NUMBERS.fullmatch(part)):
            return False
        number = float(part)
        if not isfinite(number) or abs(number) >= LARGEST:
            return False
        unsigned = self.vr in ("US", "UL", "UV")
        return self.vr in _BROKEN or (number.is_integer() and (number >= 0 or not unsigned))

    def _shown(self, parts: list[Any]) -> str:
        """Return numbers as they were written; only those of the image's own groups."""
        if self.tag.group not in (0x0018, 0x0028, 0x0054, 0x2050):
            return "another value"
        return repr("\\".join(map(str, parts))[:LONGEST_QUOTE])

    def _others(self, found: Dataset) -> None:
        """Add words, bytes and what may be one or the other, as pydicom has them."""
        element = self.ds[self.tag]
        value, vr = element.value, element.VR
        if vr in _OF_TEXT or vr == "SQ" or isinstance(value, str | float):
            raise _Unreadable(f"VR {vr}", f"a value of VR {self.vr}")
        found.add(DataElement(self.tag, vr, value, already_converted=True))


_UTF_8 = characters.declared(["ISO_IR 192"])
_PADDED_BEFORE = frozenset(("AE", "CS", "LO", "SH", "UI"))
"""VRs whose leading spaces say nothing, as trailing ones (PS3.5 Table 6.2-1)."""


def _terms(ds: Dataset) -> list[str]:
    """Return the values of Specific Character Set as they came; none when they are no text."""
    stored = ds.get_item(_CHARACTER_SET)
    value = getattr(stored, "value", None)
    if isinstance(value, bytes):
        value = value.decode("latin_1").split("\\")
    if isinstance(value, str):
        value = value.split("\\")
    return [str(one) for one in value] if isinstance(value, MultiValue | list | tuple) else []


def _is_left_out(tag: BaseTag) -> bool:
    repeating = 0x5000 <= tag.group < 0x5100 or 0x6000 <= tag.group < 0x6100
    unknown = tag.is_private or not dictionary_has_tag(tag)
    return bool(unknown or tag.element == 0 or repeating or tag in _OPAQUE)


def _add(found: Dataset, tag: BaseTag, vr: str, value: Any) -> None:
    """Add an element whose value is a list of what stands between backslashes, or as it is."""
    found.add(DataElement(tag, vr, value, validation_mode=config.IGNORE))
