"""Fields of HL7 v2.5.1 segments from values of DICOM: escaped, and no longer than they may be.

Functions have the names of the data types in Chapter 2.A. python-hl7 is not used for it: its
``escape`` pads the number of a control character with a blank and gives other letters more digits
than bytes, so that neither is read back.
"""

import re
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sr.coding import Code as Concept

NULL = '""'
"""The null value of Chapter 2.5.3: takes away what an earlier message said; empty would keep it."""
LONGEST = 199
"""Characters of a component of data type ST (Chapter 2.A.74). DICOM's VRs allow 64 and less."""
LONGEST_TEXT = 4000
"""Characters of a sentence; TX takes 65536, many screens do not."""

_ESCAPES = str.maketrans(
    {"|": "\\F\\", "^": "\\S\\", "~": "\\R\\", "\\": "\\E\\", "&": "\\T\\"}
    | {chr(number): f"\\X{number:02X}\\" for number in (*range(0x20), 0x7F)}
)
"""Chapter 2.7.1 and 2.7.5; the control characters have in them what ends segments and frames."""
_CLOCK = re.compile(r"((?:[01]\d|2[0-3])(?:[0-5]\d(?:[0-5]\d|60)?)?)(?:\.(\d{1,4})\d*)?", re.ASCII)


def segment(name: str, fields: dict[int, str]) -> str:
    """Return a segment of fields that are encoded already, each by its number in the standard."""
    first = 2 if name == "MSH" else 1  # MSH-1 is the separator itself
    values = [fields.get(number, "") for number in range(first, max(fields) + 1)]
    return "|".join([name, *values]).rstrip("|")


def value(source: Dataset, keyword: str) -> str:
    """Return a value as text, without padding; empty when there is none. Not escaped yet."""
    found: Any = source.get(keyword)
    if isinstance(found, MultiValue):
        found = "\\".join(map(str, found))
    return "" if found is None else str(found).strip(" \0")


def text(value: str, longest: int = LONGEST) -> str:
    """Return what people read, cut where it is longer, and escaped."""
    if len(value) > longest:
        value = f"{value[: longest - 3]}..."
    return _escaped(value)


def exact(value: str) -> str:
    """Return an identifier, escaped, or nothing when too long: a part may be another one's."""
    return _escaped(value) if len(value) <= LONGEST else ""


def _escaped(value: str) -> str:
    if value == NULL:  # as a name it is two quotation marks, not the order to delete the name
        return "\\X22\\\\X22\\"
    return value.translate(_ESCAPES)


def ce(concept: Concept) -> str:
    """Return a code as CE or CWE: identifier, text, name of the coding system."""
    parts = (exact(concept.value), text(concept.meaning), exact(concept.scheme_designator))
    return "^".join(parts)


def cx(source: Dataset, keyword: str, issuer: str, identifier_type: str) -> str:
    """Return an identifier with its issuer and type (HL7 Table 0203); empty when there is none.

    Parameters
    ----------
    source
        The header.
    keyword
        Of the identifier.
    issuer
        Keyword of its issuer as text; the keyword of the sequence about the issuer begins alike.
    identifier_type
        ``MR`` or ``VN``.
    """
    identifier = exact(value(source, keyword))
    if not identifier:
        return ""
    items = source.get(f"{issuer}QualifiersSequence") or source.get(f"{issuer}Sequence")
    qualifiers = items[0] if items else Dataset()
    authority = (
        value(source, issuer) or value(qualifiers, "LocalNamespaceEntityID"),
        value(qualifiers, "UniversalEntityID"),
        value(qualifiers, "UniversalEntityIDType"),
    )
    return f"{identifier}^^^{'&'.join(map(exact, authority)).rstrip('&')}^{identifier_type}"


def xpn(person_name: str) -> str:
    """Return a Person Name, a repetition for each component group (PS3.5 Section 6.2.1.1).

    DICOM has the prefix before the suffix, HL7 after it. With more groups than one each says its
    representation (HL7 Table 0465): alphabetic, ideographic, phonetic.
    """
    groups = person_name.split("=", 2)
    names = []
    for group, representation in zip(groups, "AIP", strict=False):
        # What follows a fifth "^" is against the rules, and belongs to a name all the same.
        family, given, middle, prefix, suffix = (*group.split("^", 4), *[""] * 4)[:5]
        parts = [text(part.strip()) for part in (family, given, middle, suffix, prefix)]
        if any(parts):
            parts += ["", "", representation] if len(groups) > 1 else []
            names.append("^".join(parts).rstrip("^"))
    return "~".join(names)


def ts(moment: datetime) -> str:
    """Return a time that knows its zone, to the second."""
    return f"{moment:%Y%m%d%H%M%S%z}"


def ts_date(date: str) -> str:
    """Return a date of DICOM, which HL7 writes alike; empty when it is none."""
    try:
        return f"{datetime.strptime(date, '%Y%m%d'):%Y%m%d}" if len(date) == 8 else ""  # noqa: DTZ007 - a day has no zone
    except ValueError:
        return ""


def ts_study(source: Dataset) -> str:
    """Return date and time of the study, with a zone where the header states one."""
    date = ts_date(value(source, "StudyDate"))
    clock = _CLOCK.fullmatch(value(source, "StudyTime"))
    if not date or not clock:
        return date
    digits = clock[1].ljust(4, "0")  # TS has no hours without minutes
    fraction = f".{clock[2]}" if clock[2] and len(digits) == 6 else ""
    zone = re.fullmatch(r"[+-][0-9]{4}", value(source, "TimezoneOffsetFromUTC"))
    return f"{date}{digits}{fraction}{zone[0] if zone else ''}"
