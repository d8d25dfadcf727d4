"""Parameters of a FHIR search, taken strictly: one that is not known is refused, never ignored.

A parameter that a server overlooks makes a search find the results of other patients.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from thoracle.fhir.conditions import Search, Token
from thoracle.web.api.fhir_values import (
    DEFAULT_COUNT,
    MOST_PARAMETERS,
    Parameter,
    SearchError,
    check_format,
    codes,
    count_of,
    period,
    tokens,
)

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
            "By identifier alone: the Accession Number, as with patient.",
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
            raise SearchError(f"{name}: found twice, required is once")
        names.append(name)
        if len(names) > MOST_PARAMETERS:
            raise SearchError(
                f"found more than {MOST_PARAMETERS} parameters, required are fewer", "too-costly"
            )
        if not value:
            raise SearchError(f"{name}: found no value, required is one")
        if name == "_count":
            count = count_of(value)
        elif name == "_format":
            check_format(value)
        elif name in readers:
            search = readers[name](search, value)
        else:
            known = ", ".join(sorted({*readers, "_count", "_format"} - {"_after"}))
            raise SearchError(
                f"{name[:64]}: not supported, required is one of {known}", "not-supported"
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
            f"status: found {sorted(unknown)[0][:64]!r}, required is one of "
            f"{', '.join(STATUSES[type_].split())}"
        )
    return found


def _cursor(value: str) -> tuple[str, str]:
    match = re.fullmatch(
        r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)~([0-9.]{1,64})", value, re.ASCII
    )
    if match is None:
        raise SearchError("_after: found none of ours, required is the link `next` as it was given")
    return match[1], match[2]
