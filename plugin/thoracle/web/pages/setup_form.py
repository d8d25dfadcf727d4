"""A table of settings as a form: its fields, what was typed, and what is wrong beside each.

Which fields there are, their words and their choices come from the settings themselves. Secrets
have none: a setting names where one is, and that is set in the file alone.
"""

import contextlib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from starlette.datastructures import FormData

from thoracle.settings import Section
from thoracle.settings.document import Change, Fault
from thoracle.settings.faults import SECRETS

HIDDEN = (*SECRETS, "username")
"""Settings that are neither shown nor changed here."""
ADDRESS = ("url", "host", "port")
LONG = ("when",)
"""Settings of several lines."""


@dataclass(frozen=True, slots=True)
class FormField:
    """A setting in a form."""

    name: str
    """Dotted for a table inside: ``tls.ca_file``."""
    kind: str
    """``text``, ``number``, ``long``, ``lines``, ``check``, ``choice``, ``choices``, ``table``."""
    help: str
    value: Any
    """Of a list, a list of texts; of ``check`` and ``table``, whether it is set."""
    default: str
    """What counts without it."""
    options: tuple[str, ...] = ()
    required: bool = False
    fixed: bool = False
    """Shown, and not to be changed."""
    fault: str = ""
    inner: tuple["FormField", ...] = ()


@dataclass(frozen=True, slots=True)
class EntryForm:
    """An entry of a list of tables, as a form."""

    fields: tuple[FormField, ...]
    faults: tuple[str, ...] = ()
    """About no single field."""
    hidden: tuple[str, ...] = field(default=())
    """Settings in the file that are not shown here."""


def form_of(
    section: type[Section],
    values: Mapping[str, Any],
    options: Mapping[str, Sequence[str]],
    faults: Sequence[Fault] = (),
    *,
    new: bool = False,
) -> EntryForm:
    """Return the form of an entry.

    Parameters
    ----------
    values
        As in the file, or as typed (:func:`typed`).
    options
        Choices of settings that name others, e.g. ``send``.
    faults
        With paths within the entry.
    new
        Its name can be chosen.
    """
    beside = {".".join(map(str, one.path)): _end(one.text) for one in faults if one.path}
    fields = tuple(_fields(section, values, options, beside, "", new=new))
    known = {name for one in fields for name in (one.name, *(inner.name for inner in one.inner))}
    rest = [one.text for one in faults if not _names(one.path, known)]
    hidden = tuple(name for name in HIDDEN if name in values)
    return EntryForm(fields, tuple(rest), hidden)


def moved_secret(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Fault]:
    """Return a fault where a change would send a secret of the file to another address.

    Who may use this page may not read secrets; a peer of his own would be told them.
    """
    secrets = [name for name in HIDDEN if name in before]
    moved = [name for name in ADDRESS if before.get(name) != after.get(name)]
    if not secrets or not moved:
        return []
    setting = moved[0]
    text = (
        f"{setting}: found {after.get(setting)!r}, required: {before.get(setting)!r} as long as "
        f"{', '.join(secrets)} is set: change both in the file"
    )
    return [Fault((moved[0],), text)]


def _names(path: tuple[str | int, ...], known: set[str]) -> bool:
    return bool(path) and any(".".join(map(str, path[:end])) in known for end in (1, 2))


def _end(text: str) -> str:
    return text.partition(": ")[2] or text


def _fields(
    section: type[Section],
    values: Mapping[str, Any],
    options: Mapping[str, Sequence[str]],
    beside: Mapping[str, str],
    before: str,
    *,
    new: bool,
) -> Iterator[FormField]:
    for name, info in section.model_fields.items():
        if name in HIDDEN:
            continue
        full = f"{before}{name}"
        value = values.get(name)
        kind, choices = _kind(name, info, options)
        fault = next((t for at, t in beside.items() if at == full or at.startswith(f"{full}.")), "")
        inner: tuple[FormField, ...] = ()
        if kind == "table":
            table = _section(info.annotation)
            assert table is not None
            given = value if isinstance(value, Mapping) else {}
            inner = tuple(_fields(table, given, options, beside, f"{full}.", new=new))
            fault = "" if any(one.fault for one in inner) else fault
        yield FormField(
            name=full,
            kind=kind,
            help=str(info.description),
            value=_shown(kind, value, info),
            default=_default(info),
            options=tuple(dict.fromkeys((*choices, *_listed(kind, value)))),
            required=info.is_required(),
            fixed=full == "name" and not new,
            fault=fault,
            inner=inner,
        )


def _listed(kind: str, value: Any) -> list[str]:
    return [str(one) for one in value] if kind == "choices" and isinstance(value, list) else []


def _shown(kind: str, value: Any, info: FieldInfo) -> Any:
    if kind == "check":
        return bool(info.default if value is None else value)
    if kind == "table":
        return isinstance(value, Mapping)
    if kind in ("choices", "lines"):
        found = value if isinstance(value, list) else _plain(info.default)
        return [str(one) for one in found or ()]
    return "" if value is None else str(value)


def _default(info: FieldInfo) -> str:
    value = _plain(info.default)
    if value is PydanticUndefined or value is None or value == "":
        return ""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _plain(value: Any) -> Any:
    """Return a default as the file would have it."""
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value.value if isinstance(value, Enum) else value


def _kind(
    name: str, info: FieldInfo, options: Mapping[str, Sequence[str]]
) -> tuple[str, tuple[str, ...]]:
    """Return the kind of control that a setting has, and its choices."""
    if name in options:
        return "choices", tuple(options[name])
    found = _bare(info.annotation)
    if _section(found) is not None:
        return "table", ()
    if get_origin(found) is tuple:
        choices = _choices(_bare(get_args(found)[0]))
        return ("choices", choices) if choices else ("lines", ())
    if choices := _choices(found):
        return "choice", choices
    if found is bool:
        return "check", ()
    if name in LONG:
        return "long", ()
    return ("number" if found in (int, float) else "text"), ()


def _bare(annotation: Any) -> Any:
    """Return a type without ``None`` and what limits it."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return _bare(next(one for one in get_args(annotation) if one is not types.NoneType))
    return annotation


def _choices(found: Any) -> tuple[str, ...]:
    if get_origin(found) is Literal:
        return tuple(map(str, get_args(found)))
    if isinstance(found, type) and issubclass(found, Enum):
        return tuple(str(one.value) for one in found)
    return ()


def _section(annotation: Any) -> type[Section] | None:
    found = _bare(annotation)
    return found if isinstance(found, type) and issubclass(found, Section) else None


# ---- what was typed ------------------------------------------------------------------------------


def typed(section: type[Section], form: FormData, before: Mapping[str, Any]) -> Change:
    """Return what a form asks for, as a change of the entry that was there before.

    What has its default is written only where the file has it already.
    """
    return _typed(section, form, before, "")


def _typed(
    section: type[Section], form: FormData, before: Mapping[str, Any], prefix: str
) -> Change:
    change: Change = {}
    for name, info in section.model_fields.items():
        if name in HIDDEN:
            continue
        full = f"{prefix}{name}"
        table = _section(info.annotation)
        if table is not None:
            there = before.get(name)
            given = there if isinstance(there, Mapping) else {}
            wanted = form.get(full) is not None
            change[name] = _typed(table, form, given, f"{full}.") if wanted else None
            continue
        value = _value(name, info, form, full)
        if name not in before and value == _plain(info.default):
            value = None
        change[name] = value
    return change


def _value(name: str, info: FieldInfo, form: FormData, full: str) -> Any:
    found = _bare(info.annotation)
    if found is bool:
        return form.get(full) is not None
    text = str(form.get(full) or "").replace("\r\n", "\n").strip()
    if get_origin(found) is tuple:
        if _choices(_bare(get_args(found)[0])) or name in ("send", "notify"):
            return [str(one) for one in form.getlist(full)]
        return [line.strip() for line in text.split("\n") if line.strip()]
    if not text:
        return None
    if found in (int, float):
        return _number(text)
    return text


def _number(text: str) -> int | float | str:
    """Return a number, or the text, of which the settings then say what is wrong with it."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def merged(before: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """Return an entry with a change, as the file would have it."""
    found = dict(before)
    for name, value in change.items():
        if value is None:
            found.pop(name, None)
        elif isinstance(value, dict):
            there = found.get(name)
            found[name] = merged(there if isinstance(there, Mapping) else {}, value)
        else:
            found[name] = value
    return found
