"""Matching of workitems with the Identifier of a C-FIND (PS3.4 Section C.2.2.2).

Universal, single value, list of UID, wildcard, range and sequence matching, for every attribute
that a workitem has. Names of persons match whatever their case; everything else as it is written.
"""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.multival import MultiValue

NOT_KEYS = frozenset({"SpecificCharacterSet", "TimezoneOffsetFromUTC", "QueryRetrieveLevel"})
"""Say how the rest is meant."""
WILDCARDS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
"""Value representations in which * and ? stand for others (PS3.4 Section C.2.2.2.4)."""
RANGES = frozenset({"DA", "TM", "DT"})
FIRST, LAST = "00010101000000.000000", "99991231235959.999999"


def matches(identifier: Dataset, item: Dataset) -> bool:
    """Return whether a workitem, or an item of one, matches all keys of an Identifier."""
    zone = _zone(identifier)
    return all(_match(key, item.get(key.tag), zone) for key in _keys(identifier))


def answer(identifier: Dataset, item: Dataset) -> Dataset:
    """Return the attributes that an Identifier asks for; empty those that the item lacks."""
    found = Dataset()
    for key in _keys(identifier):
        element = item.get(key.tag)
        if element is None:
            found.add(DataElement(key.tag, key.VR, [] if key.VR == "SQ" else None))
        elif element.VR == "SQ" and key.VR == "SQ" and key.value and len(key.value[0]):
            items = [answer(key.value[0], one) for one in element.value]
            found.add(DataElement(key.tag, "SQ", items))
        else:
            found.add(element)
    return found


def _keys(identifier: Dataset) -> list[DataElement]:
    return [key for key in identifier if key.keyword not in NOT_KEYS]


def _match(key: DataElement, element: DataElement | None, zone: tzinfo | None) -> bool:
    if key.VR == "SQ":
        if not key.value or not len(key.value[0]):
            return True
        items = element.value if element is not None and element.VR == "SQ" else []
        inner = key.value[0]
        return any(all(_match(k, one.get(k.tag), zone) for k in _keys(inner)) for one in items)
    wanted = _values(key)
    if not wanted:
        return True
    have = [] if element is None else _values(element)
    if key.VR in RANGES:
        return any(_in_range(key.VR, want, one, zone) for want in wanted for one in have)
    return any(_alike(key.VR, want, one) for want in wanted for one in have)


def _values(element: DataElement) -> list[str]:
    value: Any = element.value
    many = value if isinstance(value, (MultiValue, list, tuple)) else [value]
    return [text for one in many if one is not None and (text := str(one).strip(" \0"))]


def _alike(vr: str, want: str, have: str) -> bool:
    if vr == "PN":
        want, have = (_person(text) for text in (want, have))
    if vr in WILDCARDS and ("*" in want or "?" in want):
        return _fits(want, have)
    if vr in ("DS", "IS", "FL", "FD"):
        try:
            return float(want) == float(have)
        except ValueError:
            return False
    return want == have


def _fits(pattern: str, text: str) -> bool:
    """Return whether a text fits a pattern; in time of both lengths' product at most."""
    at = place = 0
    star, tried = -1, 0
    while at < len(text):
        if place < len(pattern) and pattern[place] == "*":
            star, tried = place, at
            place += 1
        elif place < len(pattern) and pattern[place] in ("?", text[at]):
            place, at = place + 1, at + 1
        elif star >= 0:  # let the last star stand for one character more
            tried += 1
            place, at = star + 1, tried
        else:
            return False
    return pattern[place:].strip("*") == ""


def _person(text: str) -> str:
    """Return a name without the delimiters that may be left out at the end, in one case."""
    return "=".join(part.rstrip("^ ") for part in text.casefold().split("=")).rstrip("=")


# ---- dates and times ---------------------------------------------------------------------------


def _zone(identifier: Dataset) -> tzinfo | None:
    return _offset(str(identifier.get("TimezoneOffsetFromUTC") or ""))


def _offset(text: str) -> tzinfo | None:
    found = re.fullmatch(r"([+-])(\d\d)(\d\d)", text.strip())
    if found is None:
        return None
    minutes = int(found[2]) * 60 + int(found[3])
    return timezone(timedelta(minutes=minutes if found[1] == "+" else -minutes))


def _in_range(vr: str, want: str, have: str, zone: tzinfo | None) -> bool:
    """Return whether a value lies in a range, its ends included; a single value is a range, too.

    What is written with fewer digits means all of that hour, day, month or year.
    """
    low, high = _ends(want)
    if vr == "DT":
        moment = _moment(have, FIRST, zone)
        start = _moment(low or FIRST, FIRST, zone)
        end = _moment(high or LAST, LAST, zone)
        return None not in (moment, start, end) and start <= moment <= end  # type: ignore[operator]  # seen
    have, low, high = (re.sub(r"[.:]", "", text) for text in (have, low, high))
    if not have.isdigit():
        return False
    return low <= have[: len(low) or None] and (not high or have[: len(high)] <= high)


_MOMENT = re.compile(r"(\d{4,14})(\.\d{1,6})?([+-]\d{4})?")


def _ends(want: str) -> tuple[str, str]:
    """Return both ends of a range, empty where it is open; a hyphen may begin an offset, too."""
    whole = _MOMENT.fullmatch(want)
    # "20261124-0500" may be a time west of Greenwich, or a range from a date to a year: PS3.4
    # C.2.2.2.5.2 has it be the first when the offset can be one.
    if whole is not None and (not whole[3] or int(whole[3][1:]) <= 1400):
        return want, want
    for place in (one.start() for one in re.finditer("-", want)):
        low, high = want[:place], want[place + 1 :]
        if all(
            not end or _MOMENT.fullmatch(end) or ":" in end or len(end) <= 2 for end in (low, high)
        ):
            return low, high
    return want, want


def _moment(text: str, pattern: str, zone: tzinfo | None) -> datetime | None:
    found = _MOMENT.fullmatch(text)
    if found is None:
        return None
    digits, fraction, offset = found[1], found[2] or "", found[3] or ""
    filled = digits + pattern[len(digits) : 14] + (fraction + pattern[14 + len(fraction) :])
    try:
        moment = datetime.strptime(filled, "%Y%m%d%H%M%S.%f")  # noqa: DTZ007 - zone below
    except ValueError:
        # The last day of a month with fewer than 31.
        shorter = f"{filled[:6]}{min(int(filled[6:8] or 28), 28):02d}{filled[8:]}"
        try:
            moment = datetime.strptime(shorter, "%Y%m%d%H%M%S.%f")  # noqa: DTZ007 - zone below
        except ValueError:
            return None
        moment = _last_day(moment)
    known = _offset(offset) or zone
    try:
        return (moment.replace(tzinfo=known) if known else moment.astimezone()).astimezone(UTC)
    except (OverflowError, ValueError):  # the first and the last year
        return moment.replace(tzinfo=UTC)


def _last_day(moment: datetime) -> datetime:
    following = (moment.replace(day=28) + timedelta(days=4)).replace(day=1)
    return following - timedelta(days=1)
