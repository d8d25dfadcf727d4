"""The pages of docs/ that are made from the code: `make docs` writes them, a test compares them.

Of docs/dicom-conformance.md only the parts between `<!-- generated: name -->` and `<!-- end -->`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

import security_pages
from conformance import PARTS
from thoracle.receive.negotiation import IMAGE_STORAGE, TRANSFER_SYNTAXES
from thoracle.receive.storescp import STATUSES
from thoracle.records import Reason
from thoracle.settings import Deliver, Destination, Receive, Section, Settings
from thoracle.settings.template import section_of, table_of
from thoracle.store.trail import Event
from thoracle.ups.states import STATUSES as OF_WORKITEMS

DOCS = Path(__file__).parent.parent / "docs"
MADE = "<!-- Made by `make docs` from the code: do not edit. -->"


def settings_page() -> str:
    """Return docs/settings.md."""
    lines = ["# Settings", "", MADE, ""]
    lines += ["`thoracle init` writes them all, with these texts, as a configuration in TOML.", ""]
    plain = {
        name: info
        for name, info in Settings.model_fields.items()
        if section_of(info) is None and not isinstance(info.default, Section)
    }
    lines += ["## At the top", "", *rows(plain)]
    for name, info in Settings.model_fields.items():
        if isinstance(info.default, Section):
            section = type(info.default)
            lines += [
                "",
                f"## [{name}]",
                "",
                section.__doc__ or "",
                "",
                *rows(section.model_fields),
            ]
            lines += inner(section, name)
    for name, info in Settings.model_fields.items():
        if repeated := section_of(info):
            lines += ["", f"## [[{name}]]", "", repeated.__doc__ or "", ""]
            lines += [*rows(repeated.model_fields), *inner(repeated, name)]
    return "\n".join([*lines, ""])


def inner(section: type[Section], table: str) -> Iterator[str]:
    """Yield the tables inside a section."""
    for name, info in section.model_fields.items():
        if nested := table_of(info):
            yield from ("", f"## [{table}.{name}]", "", nested.__doc__ or "", "")
            yield from rows(nested.model_fields)
            yield from inner(nested, f"{table}.{name}")


def rows(fields: dict[str, Any]) -> Iterator[str]:
    """Yield the table of a section."""
    yield "| setting | default | meaning |"
    yield "|---|---|---|"
    for name, info in fields.items():
        default = "required" if info.default is PydanticUndefined else f"`{show(info.default)}`"
        yield f"| `{name}` | {default} | {info.description} |"


def show(value: Any) -> str:
    """Return a default as the configuration would say it."""
    match value:
        case None:
            return "unset"
        case Section():
            return "see below"
        case bool():
            return str(value).lower()
        case tuple():
            return "[" + ", ".join(map(str, value)) + "]"
        case dict():
            return "{}"
        case _:
            return str(value)


def tables_page() -> str:
    """Return docs/tables.md."""
    lines = ["# Statuses, reasons and events", "", MADE, ""]
    lines += ["## What is accepted", "", "SOP classes: Verification; " + names(IMAGE_STORAGE)]
    lines += ["; Secondary Capture with `receive.secondary_capture`.", ""]
    lines += ["Transfer syntaxes: " + names(TRANSFER_SYNTAXES) + ".", ""]
    lines += [
        "## Answers to a C-STORE",
        "",
        "| status | name | clause | when |",
        "|---|---|---|---|",
    ]
    lines += [f"| 0x{s.code:04X} | {s.name} | {s.clause} | {s.when} |" for s in STATUSES]
    lines += ["", "## Answers about workitems", "", "| status | when | clause |", "|---|---|---|"]
    lines += [
        f"| 0x{s.code:04X} | {s.when} | {s.clause} |"
        for s in sorted(OF_WORKITEMS, key=lambda one: one.code)
    ]
    lines += ["", "## Why an image is rejected", "", "| code | scheme | meaning |", "|---|---|---|"]
    lines += [f"| {r.code.value} | {r.code.scheme} | {r.code.meaning} |" for r in Reason]
    lines += ["", "## Events of the audit", ""]
    lines += ["| event | EventID (DCM) | EventTypeCode | action |", "|---|---|---|---|"]
    lines += [
        f"| {e.verb} | {e.event_id} | {e.event_type_code or ''} | {e.action} |" for e in Event
    ]
    return "\n".join([*lines, ""])


def names(uids: tuple[Any, ...]) -> str:
    """Return the names of UIDs as a list in a sentence."""
    return ", ".join(uid.name for uid in uids)


def conformance_page() -> str:
    """Return docs/dicom-conformance.md with its generated parts as they are now.

    Raises
    ------
    KeyError
        It has a part that is not known.
    """
    page = (DOCS / "dicom-conformance.md").read_text(encoding="utf-8")
    parts = {**PARTS, "parameters": parameters}

    def filled(found: re.Match[str]) -> str:
        lines = "\n".join(parts[found[2]]())
        return f"{found[1]}\n{lines}\n<!-- end -->"

    return re.sub(r"(<!-- generated: ([^>]+) -->)\n.*?<!-- end -->", filled, page, flags=re.DOTALL)


def parameters() -> Iterator[str]:
    """Yield the tables of the settings about the network."""
    for table, section in (("[receive]", Receive), ("[deliver]", Deliver)):
        yield from (f"`{table}`", "", *rows(section.model_fields), "")
    yield from ("`[[destination]]`", "", *rows(Destination.model_fields))


PAGES = {
    **security_pages.PAGES,
    "settings.md": settings_page,
    "tables.md": tables_page,
    "dicom-conformance.md": conformance_page,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
