"""Comparisons in a condition that can never be true: valid, and surely not what was meant.

A condition is not evaluated for this: each comparison of a name with a value that it can never
have is found by itself.
"""

import re
from collections.abc import Iterator
from difflib import get_close_matches

from pydicom.datadict import dictionary_VR, tag_for_keyword

from thoracle.records import Outcome, Reason
from thoracle.routing import expression
from thoracle.routing.expression import LITERAL, Condition

_RANGES = {"result.probability": (0.0, 1.0), expression.AGE: (0.0, 150.0)}
"""Numbers that a name can have, both ends included."""
_NAME = r"(?P<name>[A-Za-z_][\w.]*)"
_NUMBER = r"(?P<number>-?\d+(?:\.\d+)?)"
_SIGN = r"(?P<sign><=|>=|==|<|>)"
_BEHIND = re.compile(rf"{_NAME}\s*{_SIGN}\s*{_NUMBER}")
_BEFORE = re.compile(rf"(?<![\w.]){_NUMBER}\s*{_SIGN}\s*{_NAME}")
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "=="}
_TEXTS = re.compile(rf"{_NAME}\s*(?:==\s*(?P<one>{LITERAL})|in\s*\[(?P<many>[^\]]*)\])")


def never_true(condition: Condition) -> Iterator[str]:
    """Yield each comparison that never holds: what was found, and what the name can be."""
    # What is quoted is no comparison.
    bare = re.sub(LITERAL, lambda found: " " * len(found[0]), condition.text)
    for found in _BEHIND.finditer(bare):
        yield from _out_of_range(found["name"], found["sign"], found["number"])
    for found in _BEFORE.finditer(bare):
        yield from _out_of_range(found["name"], _TURNED[found["sign"]], found["number"])
    for found in _TEXTS.finditer(condition.text):
        written = re.findall(LITERAL, found["one"] or found["many"])
        for literal in written:
            yield from _impossible(found["name"], literal.lstrip("rR")[1:-1])


def _out_of_range(name: str, sign: str, text: str) -> Iterator[str]:
    if name not in _RANGES:
        return
    least, most = _RANGES[name]
    number = float(text)
    possible = {
        "<": least < number,
        "<=": least <= number,
        ">": most > number,
        ">=": most >= number,
        "==": least <= number <= most,
    }[sign]
    if not possible:
        yield (f"found {name} {sign} {text}, which is never true: {name} is {least:g} to {most:g}")


def _impossible(name: str, value: str) -> Iterator[str]:
    """Yield why a name never has a text."""
    known: list[str] = []
    if name == "result.outcome":
        known = [one.value for one in Outcome]
    elif name == "result.reason":
        known = [one.code.value for one in Reason]
    if known and value and value not in known:
        near = get_close_matches(value, known, n=1)
        meant = f"did you mean {near[0]}?" if near else f"it is one of {', '.join(known)}"
        yield f'found {name} "{value}", which is never true; {meant}'
    tag = tag_for_keyword(name)
    representation = "" if tag is None else dictionary_VR(tag)
    # PS3.5 Table 6.2-1. Senders break it, but their letters reach a condition as they are.
    if representation == "CS" and value != value.upper():
        yield f'found {name} "{value}", which is hardly ever true; did you mean "{value.upper()}"?'
    if representation == "DA" and value and not re.fullmatch(r"\d{8}", value):
        yield f'found {name} "{value}", which is never true; a date is written 20261122'
