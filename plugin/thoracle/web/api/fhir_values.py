"""Values of a FHIR search, and the refusal of what is none."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from thoracle.errors import ThoracleError
from thoracle.fhir.conditions import Token
from thoracle.store.tables import timestamp

DEFAULT_COUNT, LARGEST_COUNT = 50, 200
MOST_PARAMETERS = 16
"""Of a search; a planner of statements takes longer with each."""
MOST_ALTERNATIVES = 100
FORMATS = ("json", "application/json", "application/fhir+json")


class SearchError(ThoracleError):
    """A search that cannot be understood, or would not do what it seems to do."""

    def __init__(self, message: str, code: str = "invalid") -> None:
        super().__init__(message)
        self.code = code
        """IssueType of R4."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A search parameter as the CapabilityStatement tells of it."""

    name: str
    type: str
    documentation: str


def _split(value: str, separator: str) -> list[str]:
    r"""Return the parts of a value; the separator after a ``\`` is none (R4 3.1.1.4.0.1)."""
    parts = [""]
    pieces = re.findall(r"\\.|[^\\]|\\$", value, re.DOTALL)
    for piece in pieces:
        if piece == separator:
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def _plain(value: str) -> str:
    return re.sub(r"\\([\\,|$])", r"\1", value)


def _alternatives(value: str) -> list[str]:
    parts = _split(value, ",")
    if not all(parts) or len(parts) > MOST_ALTERNATIVES:
        raise SearchError(
            f"found {len(parts)} values of which some may be empty, required are 1 to "
            f"{MOST_ALTERNATIVES} that are not"
        )
    return parts


def codes(value: str) -> tuple[str, ...]:
    """Return the alternatives of a value."""
    return tuple(_plain(one) for one in _alternatives(value))


def tokens(value: str) -> tuple[Token, ...]:
    """Return the alternatives of a value, each with its system."""
    found = []
    for one in _alternatives(value):
        parts = [_plain(part) for part in _split(one, "|")]
        if len(parts) > 2 or not any(parts):
            raise SearchError("found no token, required is system|value, |value, system| or value")
        found.append(Token(*parts) if len(parts) == 2 else Token(None, parts[0]))
    return tuple(found)


def count_of(value: str) -> int:
    """Return how many are wanted at most on a page, which a server may lower (R4 3.1.1.5.4)."""
    if not re.fullmatch(r"[0-9]{1,9}", value, re.ASCII):
        raise SearchError("_count: found no number, required is 0 or more")
    return min(int(value), LARGEST_COUNT)


def check_format(value: str) -> None:
    """Return when a format is ours."""
    # "+" in a query is a blank, and few write %2B.
    if value.replace(" ", "+").partition(";")[0] not in FORMATS:
        raise SearchError(f"_format: found another one, required is {FORMATS[-1]}", "not-supported")


_MOMENT = re.compile(
    r"(?P<prefix>eq|ge|gt|le|lt)?(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)"
    r"(?:T(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6})\d*)?)?"
    r"(?P<zone>Z|[+ -]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)


def period(name: str, value: str) -> tuple[tuple[str, str], ...]:
    """Return what a date demands: the span of its precision, cut at one end or both."""
    match = _MOMENT.fullmatch(value)
    if match is None:
        raise SearchError(
            f"{name}: found no date, required is e.g. ge2026-11-22 or gt2026-11-22T18:30:00Z"
        )
    try:
        begin, end = _span(match)
    except (ValueError, OverflowError):
        raise SearchError(f"{name}: found no date of the calendar, required is one") from None
    first, last = timestamp(begin), timestamp(end)
    return {
        "ge": ((">=", first),),
        "gt": ((">=", last),),
        "lt": (("<", first),),
        "le": (("<", last),),
    }.get(match["prefix"] or "eq", ((">=", first), ("<", last)))


def _span(match: re.Match[str]) -> tuple[datetime, datetime]:
    names = ("year", "month", "day", "hour", "minute", "second")
    given = [int(match[name]) for name in names if match[name]]
    zone = (match["zone"] or "Z").replace(" ", "+")  # "+" in a query is a blank
    begin = datetime.fromisoformat(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}".format(*given, *[1, 1, 1, 0, 0, 0][len(given) :])
        + (f".{match['fraction'].ljust(6, '0')}" if match["fraction"] else "")
        + zone
    ).astimezone(UTC)
    if len(given) == 1:
        return begin, begin.replace(year=begin.year + 1)
    if len(given) == 2:
        return begin, (begin + timedelta(days=31)).replace(day=1)
    if match["fraction"]:
        return begin, begin + timedelta(seconds=10 ** -len(match["fraction"]))
    return begin, begin + timedelta(**{("days", "hours", "minutes", "seconds")[len(given) - 3]: 1})
