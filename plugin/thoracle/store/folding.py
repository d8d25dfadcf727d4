"""Text as it is searched: without case and without accents, so that `muller` finds `Müller`."""

import unicodedata
from typing import Final

_LETTERS: Final = str.maketrans(
    {
        "ø": "o",
        "ł": "l",
        "đ": "d",
        "ħ": "h",
        "\N{LATIN SMALL LETTER DOTLESS I}": "i",
        "æ": "ae",
        "œ": "oe",
        "þ": "th",
        "ð": "d",
    }
)
"""Letters that Unicode does not take apart, although people type them without their stroke."""


def folded(text: str) -> str:
    """Return a text as it is compared in a search.

    What no keyboard has becomes a blank: a NUL ends LIKE.
    """
    apart = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(one for one in apart if not unicodedata.combining(one)).translate(_LETTERS)
    whole = unicodedata.normalize("NFKC", bare)
    return "".join(one if one.isprintable() else " " for one in whole).strip()
