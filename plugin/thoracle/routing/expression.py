"""Conditions over DICOM keywords and a result, in CEL, typed before they ever run.

CEL (Common Expression Language, https://cel.dev) has no loops, no assignments and no way out of
the values it is given. The library's own limits bound it further: nesting to 32 levels, 10,000
steps of `all`, `exists`, `map` and `filter` together, and RE2 for `matches`, which takes time
linear in the text. What a header says is bound as a value and never becomes part of the text.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

from cel_expr_python import cel  # type: ignore[import-untyped]  # its stubs lack a py.typed
from pydicom import Dataset
from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_dict, tag_for_keyword
from pydicom.multival import MultiValue

from thoracle.errors import SettingsError
from thoracle.image.selection import age_years

LONGEST = 4000
"""Characters of a condition."""
LONGEST_TEXT = 10240
"""Characters of a value that a condition sees: the longest LT (PS3.5 Table 6.2-1)."""
LARGEST = 2**63
"""Numbers of CEL are below it; no quantity comes near, and "not a number" is not below it."""
MOST_VALUES = 100
"""Values of an attribute that a condition sees."""
MOST_IMAGES = 1000
"""Images with different values of which a condition is asked."""
AGE = "PatientAge"
"""The one text that is a number here: years, from Patient's Age or the dates."""
SENDER = "CallingAETitle"
RESULT: dict[str, type] = {
    "result.outcome": str,
    "result.probability": float,
    "result.reason": str,
    "result.bundle.name": str,
    "result.bundle.version": str,
}
"""Facts of a result and their types."""
_KNOWN = "known."
"""Before a keyword: whether the header has a value."""

_TYPES: dict[str, type] = {
    **dict.fromkeys(("IS", "US", "SS", "UL", "SL", "UV", "SV", "US or SS"), int),
    **dict.fromkeys(("DS", "FL", "FD"), float),
    **dict.fromkeys(
        ["AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"],
        str,
    ),
}
"""PS3.5 Table 6.2-1: how a value of each VR is seen. Bytes, sequences and tags are not."""
_CEL = {int: cel.Type.INT, float: cel.Type.DOUBLE, str: cel.Type.STRING}

# The standard's checker takes no whole number beside a broken one (`PatientAge < 16`), though
# evaluation does. So the comparisons are declared anew, for all pairs of numbers.
_COMPARISONS = {"_<_": "less", "_<=_": "less_equals", "_>_": "greater", "_>=_": "greater_equals"}
_NUMBERS = {"int64": cel.Type.INT, "double": cel.Type.DOUBLE}

_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
LITERAL = r"""[rR]?(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
"""A text in quotation marks, as a regular expression."""
_PATTERN = re.compile(rf"\bmatches\(\s*({LITERAL})\s*\)")
_FAULT = re.compile(r"^(?:INVALID_ARGUMENT: )?ERROR: <input>:(\d+):(\d+): (.*)", re.MULTILINE)
_UNDECLARED = re.compile(r"undeclared reference to '([^']+)'")


class PartialHeader(Dataset):
    """A header that cannot be read in full: a condition over what cannot be read is undecided.

    Parameters
    ----------
    found
        What can be read.
    unreadable
        Keywords of what cannot; ``None``: everything.
    """

    def __init__(self, found: Dataset, unreadable: frozenset[str] | None) -> None:
        super().__init__(found)
        self.unreadable = unreadable


class Undecided(Exception):
    """A condition has no answer for these values; the message names no value."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that is known to be true or false, given its values."""

    text: str
    names: frozenset[str]
    """The variables that it names."""
    keywords: tuple[str, ...]
    """DICOM keywords of which it needs the values."""
    _program: Any

    @property
    def uses_result(self) -> bool:
        """Whether it asks for the result."""
        return not self.names.isdisjoint(RESULT)

    def holds(self, values: dict[str, Any]) -> bool:
        """Return whether it holds for values as :meth:`values` returns them.

        Raises
        ------
        Undecided
            A value that it needs is not there, or is of no use, such as a divisor of 0.
        """
        try:
            answer = self._program.eval(data=values)
            if answer.type() == cel.Type.BOOL:
                return bool(answer.plain_value())
            fault = str(answer.plain_value())
        except Exception as error:  # noqa: BLE001 - whatever it is, there is no answer
            fault = str(error)
        if missing := re.search(r'No value with name "([\w.]+)"', fault):
            raise Undecided(f"found no value of {missing[1]}, required: one")
        known = ("divide by zero", "Iteration budget exceeded", "invalid regular expression")
        raise Undecided(next((text for text in known if text in fault), "cannot be evaluated"))

    def values(self, ds: Dataset) -> dict[str, Any]:
        """Return what a header says of the keywords named, as the condition sees it.

        A text that the header lacks is empty and so is a list; a number that it lacks, and any
        value that cannot be read, is left out. Of a header that cannot be read at all even
        ``known.KEYWORD`` is left out.
        """
        unreadable = ds.unreadable if isinstance(ds, PartialHeader) else frozenset[str]()
        found: dict[str, Any] = {}
        if unreadable is None:
            return found
        for keyword in self.keywords:
            try:
                value = None if keyword in unreadable else _value(ds, keyword)
            except Exception:  # noqa: BLE001 - pydicom raises all kinds for bytes from outside
                value = None
            if value is not None:
                found[keyword] = value
            found[_KNOWN + keyword] = value not in (None, "", [])
        return found

    def first(self, headers: Sequence[Dataset], common: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the values of the first image for which it holds, ``common`` ones among them.

        Raises
        ------
        Undecided
            It holds for none, and for one of them that could not be told.
        """
        try:
            return self._first(headers, common)
        except Undecided:
            raise
        except Exception as error:
            raise Undecided(f"cannot be evaluated ({type(error).__name__})") from error

    def _first(
        self, headers: Sequence[Dataset], common: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        undecided: Undecided | None = None
        for number, found in enumerate(self._distinct(headers)):
            if number == MOST_IMAGES:
                raise Undecided(
                    f"found more than {MOST_IMAGES} different images, required: at most so many"
                )
            values = {**common, **found}
            try:
                if self.holds(values):
                    return values
            except Undecided as error:
                undecided = undecided or error
        if undecided is not None:
            raise undecided
        return None

    def _distinct(self, headers: Sequence[Dataset]) -> Iterator[dict[str, Any]]:
        """Yield the values of the images, the same ones once, and none if it asks for none."""
        if not self.keywords:
            yield {}
            return
        seen = set()
        for ds in headers:
            values = self.values(ds)
            if (key := repr(values)) not in seen:
                seen.add(key)
                yield values

    def constant(self) -> bool | None:
        """Return what it is whatever the values are; ``None`` when that depends on them."""
        try:
            return self.holds({})
        except Undecided:
            return None


@cache
def condition(text: str) -> Condition:
    """Return the condition that a text is.

    Raises
    ------
    SettingsError
        It is none. Each fault is named with line and column, counted from 1.
    """
    if len(text) > LONGEST:
        raise SettingsError(f"found {len(text)} characters, required: at most {LONGEST}")
    if faults := list(_misused(text)):
        raise SettingsError("; ".join(faults))
    try:
        program = _environment().compile(text)
    except RuntimeError as error:
        faults = [_fault(*found) for found in _FAULT.findall(str(error))]
        raise SettingsError("; ".join(faults) or str(error)) from error
    if program.return_type() != cel.Type.BOOL:
        found = program.return_type().name().lower()
        raise SettingsError(f"line 1, column 1: found {found}, required: true or false")
    if faults := list(_bad_patterns(text)):
        raise SettingsError("; ".join(faults))
    names = frozenset(_names(text))
    needed = {name.removeprefix(_KNOWN) for name in names}
    return Condition(text, names, tuple(sorted(needed & _keywords().keys())), program)


def _names(text: str) -> Iterator[str]:
    """Yield the variables outside of quotation marks: `Rows` for itself, `result.outcome` whole."""
    for token in _NAME.findall(re.sub(LITERAL, " ", text)):
        parts = token.split(".")
        heads = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
        if variable := next((head for head in heads if head in _variables()), None):
            yield variable


def _misused(text: str) -> Iterator[str]:
    """Yield each has(): of a name with a point it would give the value, and not whether it is."""
    # Blanks in place of what is quoted keep the places.
    bare = re.sub(LITERAL, lambda found: " " * len(found[0]), text)
    for found in re.finditer(r"\bhas\s*\(", bare):
        yield f"{_place(text, found.start())}: found has(), required: known.KEYWORD"


def _bad_patterns(text: str) -> Iterator[str]:
    """Yield the faults of regular expressions that the text itself has: a trial finds them."""
    for found in _PATTERN.finditer(text):
        answer = _environment().compile(f'"".matches({found[1]})').eval(data={})
        if answer.type() != cel.Type.BOOL:
            place = _place(text, found.start(1))
            yield f"{place}: {str(answer.plain_value()).partition(': ')[2]}"


def _place(text: str, start: int) -> str:
    line, column = text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)
    return f"line {line}, column {column}"


def _fault(line: str, column: str, said: str) -> str:
    if unknown := _UNDECLARED.search(said):
        name = unknown[1]
        said = f"unknown name {name}"
        keyword = name.removeprefix(_KNOWN)
        if tag_for_keyword(keyword) is not None:
            said = f"{keyword} is {dictionary_VR(keyword)}, required: a text or a number"
        elif near := get_close_matches(name, _variables(), n=1):
            said += f"; did you mean {near[0]}?"
    elif re.search(r"'_[!=]=_' applied to '\((double, int|int, double)\)'", said):
        said = "found == or != between a broken and a whole number, required: e.g. 3.0 for 3"
    # A syntax error lists all that could follow, which helps nobody.
    return f"line {line}, column {column}: {said.partition(' expecting {')[0]}"


@cache
def _keywords() -> dict[str, tuple[type, bool]]:
    """Return for each keyword that a condition may name its type, and whether it is a list."""
    return {
        **{
            keyword: (_TYPES[dictionary_VR(tag)], dictionary_VM(tag) != "1")
            for keyword, tag in keyword_dict.items()
            if keyword and dictionary_VR(tag) in _TYPES
        },
        AGE: (float, False),
    }


@cache
def _variables() -> dict[str, Any]:
    found = {SENDER: cel.Type.STRING, **{name: _CEL[kind] for name, kind in RESULT.items()}}
    for keyword, (kind, many) in _keywords().items():
        found[keyword] = cel.Type.List(_CEL[kind]) if many else _CEL[kind]
        found[_KNOWN + keyword] = cel.Type.BOOL
    return found


@cache
def _environment() -> Any:
    excluded = "".join(f'    - name: "{name}"\n' for name in _COMPARISONS)
    config = cel.NewEnvConfigFromYaml(f"stdlib:\n  exclude_functions:\n{excluded}")
    functions = [
        cel.FunctionDecl(
            name,
            [
                _overload(f"{word}_{left}_{right}", _NUMBERS[left], _NUMBERS[right])
                for left in _NUMBERS
                for right in _NUMBERS
            ]
            + [_overload(f"{word}_string", cel.Type.STRING, cel.Type.STRING)],
        )
        for name, word in _COMPARISONS.items()
    ]
    return cel.NewEnv(config=config, variables=_variables(), functions=functions)


def _overload(name: str, left: Any, right: Any) -> Any:
    return cel.Overload(
        id=name, return_type=cel.Type.BOOL, parameters=[left, right], is_member=False
    )


def text_of(value: object) -> str:
    """Return a value as a condition sees it: no longer than allowed, and valid Unicode.

    The library takes NUL for the end of a text, so that "X" and "X, NUL, Y" would be the same.
    """
    text = str(value)[:LONGEST_TEXT].replace("\0", "\ufffd")
    return text.encode("utf-8", "replace").decode("utf-8")


def _value(ds: Dataset, keyword: str) -> Any:
    if keyword == AGE:
        years = age_years(ds)
        return None if years is None else float(years)
    kind, many = _keywords()[keyword]
    convert = text_of if kind is str else kind
    stored = ds.get(keyword)
    parts = list(stored) if isinstance(stored, MultiValue | list) else [stored]
    parts = [convert(part) for part in parts[:MOST_VALUES] if part is not None and part != ""]
    if kind is not str and not all(-LARGEST < part < LARGEST for part in parts):
        return None
    if many:
        return parts
    if kind is str:
        return text_of("\\".join(parts))
    # More than one where the standard has one: which of them was meant cannot be known.
    return parts[0] if len(parts) == 1 else None
