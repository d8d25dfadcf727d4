"""What is wrong with a configuration, a sentence for each fault: setting, value found, required."""

import typing
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from thoracle.settings.section import Section

SECRETS = ("token", "password", "client_secret", "secret")
"""Settings of which no value is shown: somebody may have written the secret itself."""
_NAMES = ("name", "ae_title")
"""What tells a table of several from the others."""
_PATTERNS = {
    r"^(DEBUG|INFO|WARNING|ERROR)$": "DEBUG, INFO, WARNING or ERROR",
    r"^[a-z0-9][a-z0-9_-]{0,31}$": "1 to 32 of a-z, 0-9, - and _, a letter or digit first",
    r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$": "letters, digits, ., - and _, at both ends a letter or digit",
    r"^[^\s@<>,;:\"]{1,64}@[A-Za-z0-9.-]{1,255}$": "an address as name@hospital.example",
    r"^https?://[^\s?#@]+$": "a URL that begins with http:// or https://, without a query",
    r"^https?://[^\s#@]+$": "a URL that begins with http:// or https://",
    r"^(https?://[^\s]*)?$": "a URL that begins with http:// or https://",
    r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,31})?$": "the name or number of a group of this machine",
    r"^[0-9a-f]{64}$": "64 hexadecimal digits (SHA-256)",
    r"^[!-\[\]-~]([ -\[\]-~]*[!-\[\]-~])?$": (
        "an AE title: 1 to 16 characters of ASCII, no backslash, no space at its ends"
    ),
    r"^(file|env):.+$": "file:PATH or env:NAME, where the secret is",
    r"^[ -%'-9;-\[\]-{}]*$": "ASCII without the characters | ~ & and :",
    r"^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$": "the name of a bucket: 3 to 63 of a-z, 0-9, - and .",
    r"^(https?://[^\s/?#@]+)?$": "a URL as https://s3.hospital.example, without a path",
    r"^[a-z0-9-]{1,63}$": "the name of a region, e.g. eu-central-1",
    r"^([A-Za-z0-9_.-]*[A-Za-z0-9_-](/[A-Za-z0-9_.-]*[A-Za-z0-9_-])*)?$": (
        "parts of letters, digits, ., - and _ with / between them, none at the ends"
    ),
    r"^[!-~]{0,128}$": "ASCII without spaces",
    r"^(\d{4}-\d{2}-\d{2})?$": "a date as 2026-11-22",
}
"""What a regular expression of the settings asks for, in words."""
_KINDS = {
    "string_type": "a text in quotation marks",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list in brackets",
    "list_type": "a list in brackets",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "path_type": "a path in quotation marks",
}
_LIMITS = {
    "greater_than_equal": ("ge", "at least {}"),
    "greater_than": ("gt", "more than {}"),
    "less_than_equal": ("le", "at most {}"),
    "less_than": ("lt", "less than {}"),
    "string_too_short": ("min_length", "at least {} characters"),
    "string_too_long": ("max_length", "at most {} characters"),
    "too_short": ("min_length", "at least {} of them"),
    "too_long": ("max_length", "at most {} of them"),
    "string_pattern_mismatch": ("pattern", "{}"),
    "literal_error": ("expected", "{}"),
}


def sentence(fault: Any, values: Mapping[str, Any], root: type[Section]) -> str:
    """Return what one error of pydantic says, for people who edit the file.

    Parameters
    ----------
    fault
        Of ``ValidationError.errors()``.
    values
        The tree that was validated: it has the names of its tables.
    root
        The section that the tree is.
    """
    path = fault["loc"]
    setting = place(path, values)
    secret = bool(path) and path[-1] in SECRETS
    match fault["type"]:
        case "extra_forbidden":
            shown = "" if secret else f", found {fault['input']!r}"
            return f"{setting}: unknown setting{shown}; {_suggested(path, root)}"
        case "missing":
            return f"{setting}: found nothing, required: a value"
        case "value_error":
            message = str(fault["ctx"]["error"])
            return f"{setting}: {message}" if setting else message
    found = "a text that is not shown" if secret else repr(fault["input"])
    return f"{setting}: found {found}, required: {_required(fault)}"


def place(path: Sequence[str | int], values: Any) -> str:
    """Return a setting as its file has it: `receive.port`, `destination "pacs".port`."""
    text = ""
    for part in path:
        values = _below(values, part)
        if isinstance(part, int) and isinstance(values, Mapping):
            name = next((values[key] for key in _NAMES if values.get(key)), None)
            text += f" {part + 1}" if name is None else f' "{name}"'
        elif isinstance(part, int):
            text += f" {part + 1}"
        else:
            text += f".{part}" if text else part
    return text


def _below(values: Any, part: str | int) -> Any:
    if isinstance(values, Mapping):
        return values.get(part)
    if isinstance(values, Sequence) and isinstance(part, int) and part < len(values):
        return values[part]
    return None


def _required(fault: Any) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    if kind in _LIMITS and _LIMITS[kind][0] in context:
        name, words = _LIMITS[kind]
        limit = context[name]
        return words.format(_PATTERNS.get(limit, limit))
    return _KINDS.get(kind, str(fault["msg"]))


def _suggested(path: Sequence[str | int], root: type[Section]) -> str:
    """Return what may have been meant by an unknown setting, as the end of a sentence."""
    wrong = str(path[-1])
    here = _section(path[:-1], root)
    known = list(here.model_fields) if here is not None else []
    if near := get_close_matches(wrong, known, n=1):
        return f"did you mean {near[0]}?"
    places = {name: table for table, name in _settings(root)}
    if wrong in places:
        return f"did you mean it in [{places[wrong]}]?"
    if near := get_close_matches(wrong, list(places), n=1, cutoff=0.8):
        return f"did you mean {near[0]} in [{places[near[0]]}]?"
    return "`thoracle init` lists all settings"


def _settings(root: type[Section], table: str = "") -> Iterator[tuple[str, str]]:
    """Yield the table and the name of each setting that stands in a table."""
    for name, field in root.model_fields.items():
        below = _section_of(field.annotation)
        if below is not None:
            yield from _settings(below, f"{table}.{name}" if table else name)
        elif table:
            yield table, name


def _section(path: Sequence[str | int], root: type[Section]) -> type[Section] | None:
    """Return the section that a path leads to."""
    here: type[Section] | None = root
    for part in path:
        if isinstance(part, str):
            field = None if here is None else here.model_fields.get(part)
            here = None if field is None else _section_of(field.annotation)
    return here


def _section_of(annotation: Any) -> type[Section] | None:
    """Return the section in an annotation: ``Web``, ``OIDC | None``, ``tuple[HL7, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    found = (_section_of(one) for one in typing.get_args(annotation))
    return next((one for one in found if one is not None), None)
