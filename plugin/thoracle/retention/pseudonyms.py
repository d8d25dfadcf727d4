"""Pseudonyms that stand in the audit for patients who were erased: HMAC-SHA-256 under a key."""

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from thoracle.errors import SettingsError
from thoracle.settings.section import require_private

SHORTEST_KEY = 32
"""Bytes."""
SHORTEST_WORD = 4
"""Characters: a shorter ID is found where it is the whole text, not within one."""
BEGINNING = "erased-"


class Pseudonyms:
    """Makes pseudonyms under a key: the same ones again, and none that is found by trial."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def of_file(cls, path: Path | None) -> "Pseudonyms":
        """Return those of a key file.

        Raises
        ------
        SettingsError
            None is named, it cannot be read, others may read it, or it is too short.
        """
        if path is None:
            raise SettingsError(
                "erasure.key_file: found none, required: a file with 32 random bytes, e.g. of "
                "`head -c 32 /dev/urandom`, kept outside of the data folder"
            )
        try:
            require_private("erasure.key_file", path)
            key = path.read_bytes()
        except OSError as error:
            raise SettingsError(
                f"erasure.key_file: {path}: {error.strerror}, required: a file"
            ) from error
        if len(key) < SHORTEST_KEY:
            raise SettingsError(
                f"erasure.key_file: {path}: found {len(key)} bytes, required: at least "
                f"{SHORTEST_KEY}"
            )
        return cls(key)

    def of(self, kind: str, *identifiers: str) -> str:
        """Return the pseudonym of something, 39 characters."""
        text = json.dumps([kind, *identifiers])
        made = hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()
        return BEGINNING + made[:32]


# ---- texts -----------------------------------------------------------------------------------


def patterns(words: Iterable[str], names: Iterable[str]) -> list[re.Pattern[str]]:
    """Return what finds identifiers, and names in any order of their parts, within a text."""
    found = [rf"(?<!\w){re.escape(one)}(?!\w)" for one in words if len(one) >= SHORTEST_WORD]
    for name in names:
        for family, others in representations(name):
            for order in _orders(family, others):
                found.append(_pattern(order))
    return [re.compile(one, re.IGNORECASE) for one in found]


def representations(name: str) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the words of a Patient's Name in each script (PS3.5 Section 6.2.1): family, others.

    Others are given and middle names; of a name without components, all is family.
    """
    for group in name.split("="):
        components = [one.split() for one in group.split("^")]
        words = [one for one in components[:3] if one]
        if words:
            yield words[0], [word for one in words[1:] for word in one]


def _orders(family: list[str], others: list[str]) -> list[list[str]]:
    """Return the orders in which a name is written, those with most words first."""
    words = [*family, *others]
    if len(words) == 1:
        return [words] if len(words[0]) >= SHORTEST_WORD else []
    first = others[:1]
    orders = [words, others + family, words[::-1], family + first, first + family]
    return [one for number, one in enumerate(orders) if len(one) > 1 and one not in orders[:number]]


def _pattern(words: list[str]) -> str:
    escaped = [re.escape(one) for one in words]
    if any(character >= "\u2e80" for word in words for character in word):
        return r"[\W_]*".join(escaped)  # scripts that put nothing between words
    return r"(?<!\w)" + r"[\W_]+".join(escaped) + r"(?!\w)"


def replacer(
    exact: dict[str, str], within: Iterable[re.Pattern[str]], pair: tuple[list[str], str]
) -> Callable[[Any], Any]:
    """Return what replaces identifiers in values as JSON has them.

    Parameters
    ----------
    exact
        What takes the place of a text that is nothing but an identifier.
    within
        What is found within texts.
    pair
        A patient as a list of ID and issuer, and what takes the place of the ID.
    """
    wanted, pseudonym = pair

    def of(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: of(one) for name, one in value.items()}
        if isinstance(value, list):
            if len(value) == 2 and value[0] == wanted[0]:  # a patient; or that of another issuer
                return [pseudonym, ""] if value == wanted else value
            return [of(one) for one in value]
        if not isinstance(value, str):
            return value
        if value in exact:
            return exact[value]
        for pattern in within:
            value = pattern.sub(pseudonym, value)
        return value

    return of
