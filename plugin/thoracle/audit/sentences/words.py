"""What sentences are put together from: names, numbers and texts of others, made inert."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from thoracle.records import Kind, Reason
from thoracle.wording import KINDS

Row = Mapping[str, Any]
"""An event of the trail; empty columns may be missing."""
Rows = Sequence[Row]
"""One or several events that one sentence tells together, oldest first."""

LONGEST = 300
"""Characters of a text of others that are shown."""


def inert(text: object, longest: int = LONGEST) -> str:
    """Return a text of others on one line: control characters escaped, cut where it is long."""
    whole = "" if text is None else str(text)
    line = "".join(map(_visible, whole[:longest]))
    return f"{line}..." if len(whole) > longest else line


def _visible(one: str) -> str:
    if unicodedata.category(one)[0] == "C" or one in "\u2028\u2029":
        return one.encode("unicode_escape").decode("ascii")
    return one


def of(row: Row, name: str, otherwise: str = "") -> str:
    """Return a column's text, inert."""
    value = row.get(name)
    return otherwise if value in (None, "") else inert(value)


def detail(row: Row, name: str) -> Any:
    """Return a value of the column ``detail``, ``None`` when it has none of that name."""
    found = row.get("detail")
    return found.get(name) if isinstance(found, Mapping) else None


def said(row: Row, *names: str) -> str:
    """Return ``: text`` of the first of some values of ``detail`` that says something."""
    texts = (inert(detail(row, name)) for name in names if detail(row, name))
    return next((f": {text}" for text in texts), "")


def caller(row: Row) -> str:
    """Return who called: AE title and address."""
    title, address = of(row, "calling_ae_title"), of(row, "network_address")
    if title and address:
        return f"{title} ({address})"
    return title or address or "somebody"


def person(row: Row) -> str:
    """Return who did it: a name and, where it is known, the address."""
    name, address = of(row, "user_id"), of(row, "network_address")
    if not name:
        return caller(row)
    return f"{name} ({address})" if address else name


def times(rows: Rows) -> str:
    """Return `` (3 times)``, or nothing for one."""
    return f" ({len(rows)} times)" if len(rows) > 1 else ""


def kind(name: object) -> str:
    """Return what an object is in words."""
    try:
        return KINDS[Kind(str(name))]
    except ValueError:  # of a later or an earlier version
        return inert(name, 32) or "object"


def objects(rows: Rows) -> str:
    """Return the objects of deliveries by their kinds: ``structured report and heat map``."""
    found = Counter(kind(detail(row, "kind")) for row in rows)
    return listed(f"{count} x {name}" if count > 1 else name for name, count in found.items())


def listed(parts: Iterable[str]) -> str:
    """Return words as a list in a sentence."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def share(value: object) -> str:
    """Return a probability or a threshold with its four decimals at most."""
    return f"{value:.4g}" if isinstance(value, int | float) else inert(value, 16)


def reason(code: object) -> str:
    """Return what the code of a reason means, and the code."""
    try:
        return f"{Reason.from_code_value(str(code)).code.meaning} ({code})"
    except KeyError:
        return inert(code, 32) or "no reason given"


def short(digest: object) -> str:
    """Return a digest as far as it tells apart."""
    return f"{inert(digest, 64)[:12]}" if digest else "unknown"
