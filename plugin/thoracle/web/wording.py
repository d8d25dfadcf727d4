"""Values of headers and tables as people read them, whatever somebody put into them.

Text of others is cut and freed of control characters here, and escaped by the templates.
"""

import unicodedata

LONGEST = 200
"""Characters of a value of a header that are shown; of names that are meant to harm no more."""


def plain(text: object, longest: int = LONGEST) -> str:
    """Return a value as one line without control characters, cut where it is very long."""
    line = "".join(
        one if unicodedata.category(one)[0] != "C" else "\N{REPLACEMENT CHARACTER}"
        for one in str(text or "")[: longest + 1]
    ).strip()
    return f"{line[:longest]}…" if len(line) > longest else line


def person_name(text: object) -> str:
    """Return a person name (PS3.5 Section 6.2.1) as ``Family, Given``: its first group with any."""
    groups = [group for group in str(text or "")[: 5 * LONGEST].split("=") if group.strip("^ ")]
    if not groups:
        return ""
    family, *others = (part.strip() for part in groups[0].split("^"))
    rest = " ".join(part for part in others if part)
    return plain(f"{family}, {rest}" if family and rest else family or rest)


def person_names(text: object) -> list[str]:
    """Return all groups of a person name: alphabetic, ideographic and phonetic, without empty ones.

    The first is what ``person_name`` returns.
    """
    groups = str(text or "")[: 5 * LONGEST].split("=")[:3]
    return list(dict.fromkeys(name for group in groups if (name := person_name(group))))


def age(text: object) -> str:
    """Return an AS value (PS3.5 Section 6.2) as ``56 y``, ``7 mo``, ``3 wk`` or ``5 d``."""
    value = plain(text, 16)
    unit = {"Y": "y", "M": "mo", "W": "wk", "D": "d"}.get(value[-1:].upper())
    return f"{int(value[:-1])} {unit}" if unit and value[:-1].isdecimal() else value


def date(text: object) -> str:
    """Return a DA value as 2020-04-01, any other as it is."""
    value = plain(text, 16)
    return f"{value[:4]}-{value[4:6]}-{value[6:]}" if len(value) == 8 and value.isdigit() else value


def percent(share: float | None) -> str:
    """Return a probability as 87.3 %; empty when there is none."""
    return "" if share is None else f"{100 * share:.1f} %"
