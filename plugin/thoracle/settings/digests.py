"""Settings as digests: whether they are those of another time, and which are not.

No value stands in what is kept, only digests of values. A secret is not even in those: a setting
names where it is.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from thoracle.settings import Settings

SHAPING = ("select.", "decode.", "report.")
"""Settings that shape a result, beside the bundle and the runtime, which are recorded themselves:
what is read, what is made of it, and when decoding is given up."""
OWN = (
    *("gateway.", "data_folder", "database.", "log_level", "web.", "classify."),
    *("objects.endpoint", "objects.access_key", "objects.secret", "objects.ca_file"),
    *("objects.timeout_seconds", "objects.cache_days"),
    *("receive.host", "receive.port", "receive.tls.", "receive.maximum_associations"),
)
"""Settings that may differ between gateways on one database. Of the bundle they compare digests."""
LENGTH = 16
"""Hexadecimal digits of the digest of one setting."""
_NAMED = ("name", "ae_title")
"""What tables of a list are told apart by."""


def named(settings: Settings) -> dict[str, str]:
    """Return the digest of each setting, by its name, e.g. ``destination.pacs.port``."""
    return {
        name: hashlib.sha256(repr(value).encode()).hexdigest()[:LENGTH]
        for name, value in flat(settings.model_dump(mode="json"), "")
    }


def whole(settings: Settings) -> str:
    """Return one digest of all settings, SHA-256, hexadecimal."""
    return _digest(named(settings))


def shaping(settings: Settings) -> str:
    """Return one digest of the settings that shape a result, SHA-256, hexadecimal."""
    return _digest(of_shaping(named(settings)))


def shared(settings: Settings) -> str:
    """Return one digest of the settings that gateways on one database have to have alike."""
    found = named(settings)
    return _digest({name: value for name, value in found.items() if not name.startswith(OWN)})


def of_shaping(found: Mapping[str, str]) -> dict[str, str]:
    """Return of some digests by name those of settings that shape a result."""
    return {name: value for name, value in found.items() if name.startswith(SHAPING)}


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return the names of settings that are not what they were, those too that came or went."""
    names = before.keys() | after.keys()
    return sorted(name for name in names if before.get(name) != after.get(name))


def _digest(found: Mapping[str, str]) -> str:
    lines = "\n".join(f"{name}={value}" for name, value in sorted(found.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a tree by their dotted names, with their values."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from flat(one, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, table in enumerate(value, 1):
            called = next((table[key] for key in _NAMED if table.get(key)), str(number))
            yield from flat(table, f"{name}.{called}")
    else:
        yield name, value
