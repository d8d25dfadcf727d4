"""Elements of an audit message, and how text gets into them.

XML 1.0 has no control characters, and an attribute does not keep a line feed. Such characters are
written as U+FFFD; the values of details are base64, so they may be any text.
"""

import base64
import json
import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

Row = Mapping[str, Any]
"""Columns of ``audit_event``; ``detail`` as text or as what it means."""

DCM, RFC3881 = "DCM", "RFC-3881"
NOT_IN_XML = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""What XML 1.0 Section 2.2 forbids or discourages, and what an attribute does not keep."""
REPLACEMENT = "\ufffd"


def clean(text: str) -> str:
    """Return a text with U+FFFD for each character that XML does not keep."""
    return NOT_IN_XML.sub(REPLACEMENT, text)


def add(parent: ElementTree.Element, tag: str, **attributes: Any) -> ElementTree.Element:
    """Add an element, with those of its attributes that are not empty; the others are left out."""
    written = {name: clean(str(value)) for name, value in attributes.items() if value != ""}
    return ElementTree.SubElement(parent, tag, written)


def add_code(parent: ElementTree.Element, tag: str, code: str, scheme: str, meaning: str) -> None:
    """Add a coded value."""
    values = {"csd-code": clean(code), "codeSystemName": scheme, "originalText": clean(meaning)}
    ElementTree.SubElement(parent, tag, values)


def add_detail(described: ElementTree.Element, name: str, value: str) -> None:
    """Add a detail of a participant object; its value is base64."""
    values = {"type": name, "value": encoded(value)}
    ElementTree.SubElement(described, "ParticipantObjectDetail", values)


def encoded(text: str) -> str:
    """Return a text as base64 of its UTF-8."""
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()


def as_text(value: Any) -> str:
    """Return a column's value as text; ``detail`` and numbers as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _meaning(detail: Any) -> Any:
    if not isinstance(detail, str):
        return detail
    try:
        return json.loads(detail)
    except ValueError:
        return None


def reason(row: Row) -> str:
    """Return the reason that an event's detail gives in words, if any."""
    detail = _meaning(row.get("detail"))
    if not isinstance(detail, dict):
        return ""
    found = (detail.get(name) for name in ("reason", "comment", "why", "sentence", "detail"))
    return next((one for one in found if isinstance(one, str) and one), "")
