"""Parameters of a FHIR search, taken strictly: one that is not known is refused, never ignored.

Those of results, and those of AuditEvents (ITI-81).
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from thoracle.audit.audit_event import DCM, ROLE_SYSTEM, TYPE_SYSTEM
from thoracle.audit.search import EventSearch
from thoracle.errors import ThoracleError
from thoracle.fhir import elements
from thoracle.fhir.rows import Search, Token
from thoracle.store.tables import timestamp

# ---- values --------------------------------------------------------------------------------------
# Values of a FHIR search, and the refusal of what is none.

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
            f"found {len(parts)} values of which some may be empty, required: 1 to "
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
            raise SearchError("found no token, required: system|value, |value, system| or value")
        found.append(Token(*parts) if len(parts) == 2 else Token(None, parts[0]))
    return tuple(found)


def count_of(value: str) -> int:
    """Return how many are wanted at most on a page, which a server may lower (R4 3.1.1.5.4)."""
    if not re.fullmatch(r"[0-9]{1,9}", value, re.ASCII):
        raise SearchError("_count: found no number, required: 0 or more")
    return min(int(value), LARGEST_COUNT)


def check_format(value: str) -> None:
    """Return when a format is ours."""
    # "+" in a query is a blank, and few write %2B.
    if value.replace(" ", "+").partition(";")[0] not in FORMATS:
        raise SearchError(f"_format: found another one, required: {FORMATS[-1]}", "not-supported")


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
            f"{name}: found no date, required: e.g. ge2026-11-22 or gt2026-11-22T18:30:00Z"
        )
    try:
        begin, end = _span(match)
    except (ValueError, OverflowError):
        raise SearchError(f"{name}: found an impossible date, required: a calendar date") from None
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


# ---- results -------------------------------------------------------------------------------------
# Parameters of a FHIR search, taken strictly: one that is not known is refused, never ignored.
#
# A parameter that a server overlooks makes a search find the results of other patients.

STATUSES = {
    # Required bindings of R4, all of them: one that no resource of ours has finds nothing.
    "DiagnosticReport": "registered partial preliminary final amended corrected appended cancelled "
    "entered-in-error unknown",
    "Observation": "registered preliminary final amended corrected cancelled entered-in-error "
    "unknown",
    "ImagingStudy": "registered available cancelled entered-in-error unknown",
    "Task": "draft requested received accepted rejected ready cancelled in-progress on-hold failed "
    "completed entered-in-error",
}


@dataclass(frozen=True, slots=True)
class ResultSearch:
    """What a search asks for."""

    search: Search
    count: int
    names: tuple[str, ...] = field(default=())
    """Of the parameters given, for the audit."""


_ORDER = {"ImagingStudy": "basedon"}  # so it is called in R4
_STUDY = {"Observation": "derived-from", "Task": "focus"}
_PATIENT = ("patient", "subject")


def parameters(type_: str) -> tuple[Parameter, ...]:
    """Return the search parameters of a type of resource."""
    found = [
        Parameter("_id", "token", "Study Instance UID."),
        Parameter("_lastUpdated", "date", "With eq, ge, gt, le or lt."),
        Parameter("identifier", "token", _identifiers(type_)),
        Parameter("status", "token", "Codes of R4."),
        Parameter(
            "patient",
            "reference",
            "By identifier alone, as patient:identifier or patient.identifier; so is subject.",
        ),
        Parameter(
            _ORDER.get(type_, "based-on"),
            "reference",
            "By identifier only: the Accession Number, as with patient.",
        ),
    ]
    if type_ in _STUDY:
        found.append(Parameter(_STUDY[type_], "reference", "ImagingStudy, or by its identifier."))
    return tuple(found)


def _identifiers(type_: str) -> str:
    if type_ in ("DiagnosticReport", "Observation"):
        return "Study Instance UID, or SOP Instance UID of the structured report."
    return "Study Instance UID, or Accession Number."


def parse_result_search(type_: str, given: Iterable[tuple[str, str]]) -> ResultSearch:
    """Return what the parameters of a query ask for.

    Raises
    ------
    SearchError
        A parameter is not known or not supported for this type, or its value is none.
    """
    search, count, names = Search(type_), DEFAULT_COUNT, []
    readers = _readers(type_)
    for name, value in given:
        if name in ("_count", "_after", "_format") and name in names:
            raise SearchError(f"{name}: found twice, required: once")
        names.append(name)
        if len(names) > MOST_PARAMETERS:
            raise SearchError(
                f"found more than {MOST_PARAMETERS} parameters, required: fewer", "too-costly"
            )
        if not value:
            raise SearchError(f"{name}: found no value, required: one")
        if name == "_count":
            count = count_of(value)
        elif name == "_format":
            check_format(value)
        elif name in readers:
            search = readers[name](search, value)
        else:
            known = ", ".join(sorted({*readers, "_count", "_format"} - {"_after"}))
            raise SearchError(
                f"{name[:64]}: not supported, required: one of {known}", "not-supported"
            )
    return ResultSearch(search, count, tuple(names))


Reader = Callable[[Search, str], Search]


def _readers(type_: str) -> dict[str, Reader]:
    """Return what reads each parameter, by its name with modifier or chain."""
    readers: dict[str, Reader] = {
        "_id": lambda s, v: replace(s, ids=(*s.ids, codes(v))),
        "_lastUpdated": lambda s, v: replace(s, updated=(*s.updated, *period("_lastUpdated", v))),
        "_after": lambda s, v: replace(s, after=_cursor(v)),
        "identifier": lambda s, v: replace(s, identifiers=(*s.identifiers, tokens(v))),
        "status": lambda s, v: replace(s, statuses=(*s.statuses, _statuses(type_, v))),
    }
    for joint in (":identifier", "."):
        suffix = joint if joint != "." else ".identifier"
        for name in _PATIENT:
            readers[name + suffix] = lambda s, v: replace(s, patients=(*s.patients, tokens(v)))
        order = _ORDER.get(type_, "based-on")
        readers[order + suffix] = lambda s, v: replace(s, accessions=(*s.accessions, tokens(v)))
        if type_ in _STUDY:
            readers[_STUDY[type_] + suffix] = lambda s, v: replace(
                s, studies=(*s.studies, tokens(v))
            )
    if type_ in _STUDY:
        readers[_STUDY[type_]] = lambda s, v: replace(s, studies=(*s.studies, _references(v)))
    return readers


# ---- Values ------------------------------------------------------------------------------------


def _references(value: str) -> tuple[Token, ...]:
    return tuple(Token(None, one.removeprefix("ImagingStudy/")) for one in codes(value))


def _statuses(type_: str, value: str) -> tuple[str, ...]:
    found = tuple(one.code for one in tokens(value))
    if unknown := set(found) - set(STATUSES[type_].split()):
        raise SearchError(
            f"status: found {sorted(unknown)[0][:64]!r}, required: one of "
            f"{', '.join(STATUSES[type_].split())}"
        )
    return found


def _cursor(value: str) -> tuple[str, str]:
    match = re.fullmatch(
        r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)~([0-9.]{1,64})", value, re.ASCII
    )
    if match is None:
        raise SearchError(
            "_after: found an invalid value, required: the link `next` as it was given"
        )
    return match[1], match[2]


# ---- events of the audit -------------------------------------------------------------------------
# Parameters of a search for AuditEvents: those of ITI-81, taken as strictly as the others.
#
# Who asks for no span of time asks for everything: both bounds are required, as ITI-81 says.

AUDIT_PARAMETERS = (
    Parameter("date", "date", "Required: a lower and an upper bound, with eq, ge, gt, le or lt."),
    Parameter("_id", "token", "Number of the row."),
    Parameter("address", "string", "Network address, or its beginning."),
    Parameter("agent", "reference", "By identifier only: as agent.identifier."),
    Parameter("agent.identifier", "token", "User, AE title, destination, or this log itself."),
    Parameter("altid", "token", "AE title, calling or called."),
    Parameter("user", "token", "User: an account, or a user of the machine."),
    Parameter("patient.identifier", "token", "Patient ID, with or without its issuer."),
    Parameter("entity", "reference", "By identifier only: as entity.identifier."),
    Parameter(
        "entity.identifier",
        "token",
        "Study or SOP Instance UID, Accession Number, or Patient ID.",
    ),
    Parameter("entity-type", "token", "1 person, 2 system object."),
    Parameter(
        "entity-role", "token", "1 patient, 3 report, 13 security resource, 20 job, 24 query."
    ),
    Parameter("source", "reference", "By identifier only: as source.identifier."),
    Parameter("source.identifier", "token", "Name of this log: receive.ae_title."),
    Parameter("type", "token", "EventID of PS3.15 A.5, e.g. 110103."),
    Parameter("subtype", "token", "EventTypeCode, or our verb with hyphens, e.g. image-read."),
    Parameter("outcome", "token", "0 success, 4 minor, 8 serious, 12 major failure."),
    Parameter("action", "token", "C, R, U, D or E."),
)
_SYSTEMS = {
    "type": (DCM,),
    "subtype": (DCM, elements.SCHEME_URI),
    "entity-type": (TYPE_SYSTEM,),
    "entity-role": (ROLE_SYSTEM,),
    "outcome": ("http://hl7.org/fhir/audit-event-outcome",),
    "action": ("http://hl7.org/fhir/audit-event-action",),
}
"""Systems of the codes that we write; a code of another finds nothing."""
_REFERENCES = {
    "agent": ("Device/", "Practitioner/"),
    "entity": ("ImagingStudy/", "Patient/", "ServiceRequest/", "Task/"),
    "source": ("Device/",),
}
_NOWHERE = Token("", "")
MOST_VALUES = 64
"""Alternatives of all parameters together: a database plans no more in time."""


@dataclass(frozen=True, slots=True)
class AuditSearch:
    """What a search asks for."""

    search: EventSearch
    count: int
    given: tuple[tuple[str, str], ...]
    """Name and value of each parameter, but for those of the page."""


def parse_audit_search(given: Iterable[tuple[str, str]]) -> AuditSearch:
    """Return what the parameters of a query ask for.

    Raises
    ------
    SearchError
        A parameter is not known, its value is none, or ``date`` leaves one end open.
    """
    terms: list[tuple[str, tuple[Token, ...]]] = []
    recorded: list[tuple[str, str]] = []
    paging: dict[str, str] = {}
    asked: list[tuple[str, str]] = []
    for name, value in given:
        if not value:
            raise SearchError(f"{name[:64]}: found no value, required: one")
        if name in ("_count", "_after", "_format"):
            if name in paging:
                raise SearchError(f"{name}: found twice, required: once")
            paging[name] = value
            continue
        asked.append((name, value))
        if name == "date":
            recorded += period("date", value)
        else:
            terms.append(_term(name, value))
    if len(asked) > MOST_PARAMETERS or sum(len(tokens) for _, tokens in terms) > MOST_VALUES:
        raise SearchError(
            f"found more than {MOST_PARAMETERS} parameters or {MOST_VALUES} values, required: "
            "fewer",
            "too-costly",
        )
    if {comparison for comparison, _ in recorded} != {">=", "<"}:
        raise SearchError(
            "date: found no lower and upper bound, required: both, e.g. "
            "date=ge2026-11-01&date=le2026-11-30",
            "required",
        )
    count, after = _page(paging)
    return AuditSearch(EventSearch(tuple(terms), tuple(recorded), after), count, tuple(asked))


def _page(paging: dict[str, str]) -> tuple[int, tuple[str, int] | None]:
    if "_format" in paging:
        check_format(paging["_format"])
    count = count_of(paging["_count"]) if "_count" in paging else DEFAULT_COUNT
    return count, _audit_cursor(paging["_after"]) if "_after" in paging else None


def _term(name: str, value: str) -> tuple[str, tuple[Token, ...]]:
    plain = name.replace(":identifier", ".identifier")
    if plain not in {one.name for one in AUDIT_PARAMETERS}:
        known = ", ".join(one.name for one in AUDIT_PARAMETERS)
        raise SearchError(
            f"{name[:64]}: not supported, required: one of {known}, _count, _format",
            "not-supported",
        )
    if plain == "address":
        return plain, tuple(Token(None, one) for one in codes(value))
    if plain in _REFERENCES:
        return plain, tuple(_referred(plain, one) for one in codes(value))
    found = tokens(value)
    if plain.endswith(".identifier"):
        return plain.removesuffix(".identifier"), found
    return plain, tuple(_coded(plain, one) for one in found)


def _referred(name: str, value: str) -> Token:
    for beginning in _REFERENCES[name]:
        value = value.removeprefix(beginning)
    return Token(None, value)


def _coded(name: str, token: Token) -> Token:
    if name not in _SYSTEMS or token.system is None or token.system in _SYSTEMS[name]:
        return token
    return _NOWHERE


def _audit_cursor(value: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)~([0-9]{1,18})", value, re.ASCII)
    if match is None:
        raise SearchError(
            "_after: found an invalid value, required: the link `next` as it was given"
        )
    return match[1], int(match[2])
