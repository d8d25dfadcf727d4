"""A commented configuration: what ``thoracle init`` writes.

The examples of required settings stand with them. 192.0.2.0/24 is kept for documentation (RFC 5737).
"""

from inspect import isclass
from typing import Any, get_args

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from thoracle.settings import Section, Settings
from thoracle.wording import SOFTWARE


def template() -> str:
    """Return a configuration in TOML: every setting with its meaning and default, commented out."""
    lines = [
        "# Thoracle's configuration. A setting behind # has its default; remove # to change it.",
        f"# `thoracle check` explains every fault. {SOFTWARE}",
        "",
    ]
    tables: list[str] = []
    lists: list[str] = []
    for name, info in Settings.model_fields.items():
        if isinstance(info.default, Section):
            tables += ["", f"[{name}]", *_fields(type(info.default), name)]
        elif (section := section_of(info)) is None:
            lines += _field(name, info)
        else:
            lists += ["", f"# [[{name}]]", *_fields(section, name)]
    return "\n".join(lines + tables + lists) + "\n"


def _fields(section: type[Section], table: str) -> list[str]:
    """Return the settings of a table, then the tables inside it: TOML wants them in this order."""
    lines, inner = [], []
    for name, info in section.model_fields.items():
        if nested := table_of(info):
            inner += ["", f"# [{table}.{name}]", *_fields(nested, f"{table}.{name}")]
        else:
            lines += _field(name, info)
    return lines + inner


def section_of(info: FieldInfo) -> type[Section] | None:
    """Return the table that a setting is, when it is one that may be left out or repeated."""
    parts = get_args(info.annotation)
    return next((one for one in parts if isclass(one) and issubclass(one, Section)), None)


def table_of(info: FieldInfo) -> type[Section] | None:
    """Return the table inside a table that a setting is, whether it may be left out or not."""
    return type(info.default) if isinstance(info.default, Section) else section_of(info)


def _field(name: str, info: FieldInfo) -> list[str]:
    default = info.default
    if default is None or default is PydanticUndefined:
        default = (info.examples or [""])[0]
    return [f"# {info.description}", f"# {name} = {_toml(default)}"]


def _toml(value: Any) -> str:
    match value:
        case None:
            return '""'
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case dict():
            return "{}"
        case tuple():
            return "[" + ", ".join(_toml(one) for one in value) + "]"
        case _:
            return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
