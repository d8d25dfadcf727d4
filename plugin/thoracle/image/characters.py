"""Text of a header as characters, by Specific Character Set (PS3.3 Section C.12.1.1.2, PS3.5 6.1).

pydicom's own decoder is not used: it leaves the escape sequences of ISO 2022 IR 58 in the text, and
it splits values at bytes that are the second half of a character. A registered escape sequence is
one wherever it stands, because nothing else can stand for it. Terms that are misspelt are read as
what they resemble; bytes that no declared set knows are UTF-8 if they can be, else of the site's
set (:func:`assume`), which is Latin-1 by default.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

_SINGLE_BYTE = {
    "100": "latin_1",
    "101": "iso8859_2",
    "109": "iso8859_3",
    "110": "iso8859_4",
    "144": "iso8859_5",
    "127": "iso8859_6",
    "126": "iso8859_7",
    "138": "iso8859_8",
    "148": "iso8859_9",
    "203": "iso8859_15",
    "166": "iso8859_11",
    "13": "cp932",  # JIS X 0201, of which it is a superset
}
"""ISO-IR numbers and Python's codecs, each of which has ASCII in its lower half."""
_ALONE = {"ISO_IR 192": "utf_8", "GB18030": "gb18030", "GBK": "gbk"}
"""Sets without code extensions: PS3.3 Table C.12-5."""
LATIN_1 = "ISO_IR 100"
_MULTI_BYTE = {"87": "", "159": "", "149": "cp949", "58": "gb18030"}
"""ISO-IR numbers of sets that are reached by escape sequences alone: PS3.3 Table C.12-4."""
_DEFINED = {
    "ISO_IR 6": "",
    **{f"ISO_IR {number}": codec for number, codec in _SINGLE_BYTE.items()},
    "ISO 2022 IR 6": "",
    **{f"ISO 2022 IR {number}": codec for number, codec in _SINGLE_BYTE.items()},
    **{f"ISO 2022 IR {number}": codec for number, codec in _MULTI_BYTE.items()},
    **_ALONE,
}
"""Defined terms, and what the bytes of the upper half are before any escape sequence."""
_RESEMBLING = {
    **{re.sub(r"[^A-Z0-9]", "", term): term for term in _DEFINED},
    **{f"ISO{number}": f"ISO_IR {number}" for number in (*_SINGLE_BYTE, "192")},
    **{f"IR{number}": f"ISO_IR {number}" for number in (*_SINGLE_BYTE, "192")},
    **{f"ISO8859{part}": f"ISO_IR {number}" for part, number in (
        ("1", "100"), ("2", "101"), ("3", "109"), ("4", "110"), ("5", "144"), ("6", "127"),
        ("7", "126"), ("8", "138"), ("9", "148"), ("11", "166"), ("15", "203"),
    )},
    **dict.fromkeys(("UTF8", "UNICODE", "UNICODEUTF8", "ISO10646", "ISO2022IR192"), "ISO_IR 192"),
    **dict.fromkeys(("LATIN1", "WINDOWS1252", "CP1252", "88591"), "ISO_IR 100"),
    **dict.fromkeys(("ASCII", "USASCII", "ISO646", "ISO646US", "ISOIR6"), "ISO_IR 6"),
    **dict.fromkeys(("ISO202258", "GB2312", "ISOIR58", "EUCCN"), "ISO 2022 IR 58"),
    **dict.fromkeys(("ISO2022GBK", "CP936"), "GBK"),
    **dict.fromkeys(("ISO2022GB18030", "GB180302000"), "GB18030"),
    **dict.fromkeys(("KSC5601", "EUCKR", "ISO2022KR", "ISOIR149"), "ISO 2022 IR 149"),
    **dict.fromkeys(("ISO2022JP", "ISOIR87"), "ISO 2022 IR 87"),
    **dict.fromkeys(("SHIFTJIS", "SJIS", "CP932"), "ISO_IR 13"),
    "ISOIR159": "ISO 2022 IR 159",
}  # fmt: skip
"""Terms as they are misspelt, letters and digits alone."""

_ESCAPE = re.compile(rb"\x1b(\$\)[AC]|\$\(D|\$[B@]|\([BJI]|\)I|-[ABCDFGHLMTb])")
_G1 = {
    b"-A": "100", b"-B": "101", b"-C": "109", b"-D": "110", b"-F": "126", b"-G": "127",
    b"-H": "138", b"-L": "144", b"-M": "148", b"-T": "166", b"-b": "203", b")I": "13",
    b"$)A": "58", b"$)C": "149",
}  # fmt: skip
"""Escape sequences that change the upper half, and ISO-IR numbers: PS3.3 Tables C.12-3, C.12-4."""
_G0_OF_TWO_BYTES = {b"$B": "iso2022_jp", b"$@": "iso2022_jp", b"$(D": "iso2022_jp_2"}
_RESETS = re.compile(rb"([\\\t\n\f\r])")
_RESETS_IN_NAMES = re.compile(rb"([\\\t\n\f\r^=])")
"""Delimiters behind which the first set holds again (PS3.5 Section 6.1.2.5.3)."""
_NO_CHARACTER = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Repertoire(NamedTuple):
    """What Specific Character Set (0008,0005) says."""

    terms: tuple[str, ...] = ()
    """Defined terms as they should have been written, the first may be empty; none: ASCII."""
    upper: str = ""
    """Codec of the bytes from 0x80 before any escape sequence; empty when there are none such."""
    unknown: tuple[str, ...] = ()
    """Terms that resemble none."""


class Text(NamedTuple):
    """Decoded text."""

    text: str
    replaced: bool = False
    """Whether bytes were no characters, and U+FFFD stands for them."""
    guessed: str = ""
    """The set that was guessed because the declared one has no such bytes; else empty."""


class _Site:
    """What text is in that declares no set: a setting of the process, not of an object."""

    term = LATIN_1


def assume(term: str) -> None:
    """Read text that declares no set, and is no UTF-8, by this defined term from now on."""
    _Site.term = term


def assumed() -> str:
    """Return the term that :func:`assume` was given."""
    return _Site.term


def _guesses(repertoire: Repertoire) -> list[tuple[str, str]]:
    """Return codecs that are tried in turn where declared sets have no such bytes, with names."""
    utf_8, latin_1 = ("utf_8", "UTF-8"), ("latin_1", "Latin-1")
    if repertoire.upper:
        return [utf_8]
    site = latin_1 if _Site.term == LATIN_1 else (_DEFINED[_Site.term], "")
    if site[0] in _SINGLE_BYTE.values():
        # Text that is no UTF-8 is hardly ever valid UTF-8, and of these sets nearly all is valid.
        return [utf_8, site, latin_1]
    return [site, utf_8, latin_1]


def declared(terms: Sequence[str]) -> Repertoire:
    """Return what the values of Specific Character Set say."""
    found: list[str] = []
    unknown: list[str] = []
    for number, term in enumerate(terms):
        stripped = term.strip(" \0").upper()
        if not stripped and number == 0:
            found.append("")
            continue
        known = _RESEMBLING.get(re.sub(r"[^A-Z0-9]", "", stripped))
        if known:
            found.append(known)
        elif stripped:
            unknown.append(term.strip(" \0"))
    if not any(found):
        return Repertoire((), "", tuple(unknown))
    alone = next((term for term in found if term in _ALONE), None)
    if alone is not None:  # whatever stands beside it cannot be used with it
        return Repertoire((alone,), _ALONE[alone], tuple(unknown))
    if len(found) > 1 or found[0] in ("ISO 2022 IR 58", "ISO 2022 IR 149", "ISO 2022 IR 87"):
        # Only terms with code extensions may be combined, and a set of two bytes is never first.
        found = [term.replace("ISO_IR", "ISO 2022 IR") for term in found]
        upper = _DEFINED[found[0]] if found[0] else ""
        first_is_multi = found[0].removeprefix("ISO 2022 IR ") in _MULTI_BYTE
        return Repertoire(("", *found) if first_is_multi else tuple(found), upper, tuple(unknown))
    return Repertoire(tuple(found), _DEFINED[found[0]], tuple(unknown))


def decode(value: bytes, repertoire: Repertoire, *, name: bool = False) -> Text:
    """Return the characters of a value, which may hold several ones with their separators.

    Parameters
    ----------
    value
        As it is stored, padding included.
    repertoire
        Of its data set, or of the item that it stands in.
    name
        Whether it is a Person Name, where ``^`` and ``=`` are delimiters, too.
    """
    if value.isascii() and b"\x1b" not in value:
        return _checked(value.decode("ascii"))
    resets = _RESETS_IN_NAMES if name else _RESETS
    if repertoire.terms and repertoire.terms[0] in _ALONE:
        found = _strict(value, repertoire.upper)
    else:
        found = _extended(value, repertoire.upper, resets)
    if found is not None:
        return _checked(found)
    for codec, term in _guesses(repertoire):
        guess = _extended(value, codec, resets)
        if guess is not None:
            return _checked(guess)._replace(guessed=term)
    broken = _extended(value, repertoire.upper, resets, "replace")
    return _checked(broken or "")


def _extended(
    value: bytes, first: str, resets: re.Pattern[bytes], errors: str = "strict"
) -> str | None:
    """Return the characters of a value with code extensions; ``None`` where a byte is none."""
    lower, upper = "", first
    made: list[str] = []
    for number, part in enumerate(_ESCAPE.split(value)):
        if number % 2:
            if part in _G1:
                upper = (_SINGLE_BYTE | _MULTI_BYTE)[_G1[part]]
            else:
                lower = _G0_OF_TWO_BYTES.get(part, "cp932" if part == b"(I" else "")
            continue
        decoded: str | None
        if lower.startswith("iso2022"):
            designation = b"\x1b$(D" if lower == "iso2022_jp_2" else b"\x1b$B"
            decoded = _strict(designation + part + b"\x1b(B", lower, errors)
        elif lower:  # JIS X 0201 katakana in the lower half
            decoded = _strict(bytes(byte | 0x80 for byte in part), lower, errors)
        else:
            decoded, upper = _with_resets(part, upper, first, resets, errors)
        if decoded is None:
            return None
        made.append(decoded)
    return "".join(made)


def _with_resets(
    part: bytes, upper: str, first: str, resets: re.Pattern[bytes], errors: str
) -> tuple[str | None, str]:
    """Return characters, and the set of the upper half behind the last delimiter."""
    made: list[str] = []
    # In sets such as GBK a delimiter may be the second byte of a character: they have no escapes.
    pieces = [part] if first in ("gbk", "gb18030") and upper == first else resets.split(part)
    for number, piece in enumerate(pieces):
        if number % 2:
            upper = first
        decoded = _strict(piece, upper or "ascii", errors)
        if decoded is None:
            return None, upper
        made.append(decoded)
    return "".join(made), upper


def _strict(value: bytes, codec: str, errors: str = "strict") -> str | None:
    try:
        return value.decode(codec or "ascii", errors)
    except UnicodeDecodeError:
        return None


def _checked(text: str) -> Text:
    """Return text in which U+FFFD stands for what is no character: controls, also a lone escape."""
    stripped = text.rstrip(" \0")
    clean = _NO_CHARACTER.sub(REPLACEMENT, stripped)
    return Text(clean + text[len(stripped) :], REPLACEMENT in clean)
