"""Text by Specific Character Set: the examples of PS3.5, and what is misspelt, missing or wrong."""

from collections.abc import Iterator

import pytest

from thoracle.image import characters
from thoracle.image.characters import LATIN_1, REPLACEMENT, Text, declared, decode

ESC = b"\x1b"


def name(terms: list[str], value: bytes) -> Text:
    return decode(value, declared(terms), name=True)


@pytest.mark.parametrize(
    ("terms", "value", "expected"),
    [
        # PS3.5 Annexes H.3.1, H.3.2, I.2, J.2, K.2 and K.3
        (
            ["", "ISO 2022 IR 87"],
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (
            ["ISO 2022 IR 13", "ISO 2022 IR 87"],
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
        ),
        (
            ["", "ISO 2022 IR 149"],
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            "Hong^Gildong=洪^吉洞=홍^길동",
        ),
        (
            ["", "ISO 2022 IR 58"],
            b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
            "Zhang^XiaoDong=张^小东=",
        ),
        (["GB18030"], b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab", "Wang^XiaoDong=王^小东"),
        (["ISO_IR 192"], "Wang^XiaoDong=王^小東".encode(), "Wang^XiaoDong=王^小東"),
        (["ISO_IR 144"], "Иванов".encode("iso8859-5"), "Иванов"),
        (["ISO_IR 166"], "นามสกุล".encode("iso8859-11"), "นามสกุล"),
        (["ISO_IR 203"], b"\xbd\xa4uvre", "œ€uvre"),
        (["ISO_IR 13"], b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        # A Greek and a Cyrillic part, each behind its escape sequence
        (
            ["", "ISO 2022 IR 126", "ISO 2022 IR 144"],
            ESC + b"-F" + "Δ".encode("iso8859-7") + b"^" + ESC + b"-L" + "Я".encode("iso8859-5"),
            "Δ^Я",
        ),
        (["", "ISO 2022 IR 159"], b"\x1b$(D\x30\x21\x1b(B", "丂"),
    ],
)
def test_registered_sets_are_read(terms: list[str], value: bytes, expected: str) -> None:
    assert name(terms, value) == Text(expected)


@pytest.mark.parametrize(
    ("misspelt", "value", "expected"),
    [
        ("ISO_IR_100", b"M\xfcller", "Müller"),
        ("ISO IR 100", b"M\xfcller", "Müller"),
        ("iso_ir 100 ", b"M\xfcller", "Müller"),
        ("ISO-8859-1", b"M\xfcller", "Müller"),
        ("ISO8859_7", "Δημητρα".encode("iso8859-7"), "Δημητρα"),
        ("ISO 2022 IR 192", "Müller".encode(), "Müller"),
        ("UTF-8", "Müller".encode(), "Müller"),
        ("GB2312", b"\xcd\xf5", "王"),
        ("ISO_IR 58", b"\xcd\xf5", "王"),
        ("KS_C_5601", "홍".encode("euc-kr"), "홍"),
        ("ISO_IR 87", b"\x1b$B;3ED\x1b(B", "山田"),
        ("SHIFT_JIS", "山田".encode("shift-jis"), "山田"),
    ],
)
def test_misspelt_terms_are_read_as_what_they_resemble(
    misspelt: str, value: bytes, expected: str
) -> None:
    assert declared([misspelt]).unknown == ()
    assert name([misspelt], value) == Text(expected)


def test_terms_as_they_are_meant_are_said_again() -> None:
    assert declared(["ISO_IR_100"]).terms == ("ISO_IR 100",)
    assert declared(["", "ISO_IR 87"]).terms == ("", "ISO 2022 IR 87")
    assert declared(["ISO 2022 IR 149"]).terms == ("", "ISO 2022 IR 149")
    assert declared(["ISO_IR 192", "ISO_IR 100"]).terms == ("ISO_IR 192",)
    assert declared(["KLINGON"]) == ((), "", ("KLINGON",))


def test_an_escape_sequence_is_one_although_nothing_declares_it() -> None:
    assert name([], b"\x1b$B;3ED\x1b(B^A") == Text("山田^A")
    assert name(["ISO_IR 100"], b"M\xfcller=\x1b$)A\xd5\xc5") == Text("Müller=张")


def test_text_that_declares_nothing_is_utf_8_or_latin_1_and_says_so() -> None:
    assert name([], "Müller".encode()) == Text("Müller", guessed="UTF-8")
    assert name([], b"M\xfcller") == Text("Müller", guessed="Latin-1")
    assert name(["GB18030"], "Müller€".encode()).replaced is False


def test_utf_8_under_another_name_is_recognised() -> None:
    assert name(["ISO_IR 13"], "Δημητρα".encode()[:-1] + b"\xff").text
    assert name(["", "ISO 2022 IR 149"], "Ünal".encode()) == Text("Ünal", guessed="UTF-8")


@pytest.mark.parametrize(
    ("terms", "value"),
    [
        (["ISO_IR 192"], b"M\xfcller"),
        (["ISO_IR 192"], b"\x1b$)A\xd5"),
        (["", "ISO 2022 IR 87"], b"\x1b$B;\x1b(B"),
        (["ISO_IR 100"], b"A\x1bB"),
        ([], b"A\x07B"),
    ],
)
def test_bytes_that_are_no_characters_are_replaced_and_said(terms: list[str], value: bytes) -> None:
    found = name(terms, value)
    assert found.replaced
    assert REPLACEMENT in found.text
    assert found.text.encode().decode() == found.text
    assert "\x1b" not in found.text


def test_a_delimiter_may_be_the_second_byte_of_a_character() -> None:
    """In GB18030 0x5C is one of 珅, and 0x5E one of 轡: values are parted behind the decoding."""
    for character in "珅".encode("gb18030"), "乗".encode("gbk"):
        assert name(["GB18030"], b"A\\" + character).text == "A\\" + character.decode("gb18030")


@pytest.fixture
def restored() -> Iterator[None]:
    yield
    characters.assume(LATIN_1)


@pytest.mark.parametrize(
    ("site", "value", "expected"),
    [
        ("ISO_IR 144", "Иванов".encode("iso8859-5"), Text("Иванов")),
        ("ISO_IR 126", "Παπάς".encode("iso8859-7"), Text("Παπάς")),
        ("ISO_IR 144", "Иванов".encode(), Text("Иванов", guessed="UTF-8")),
        ("GBK", "联通".encode("gbk"), Text("联通")),  # which is valid UTF-8, too
        ("ISO_IR 13", "山田".encode("cp932"), Text("山田")),
        ("ISO 2022 IR 149", b"\xff\xfe", Text("ÿþ", guessed="Latin-1")),
    ],
)
@pytest.mark.usefixtures("restored")
def test_a_site_says_what_text_is_in_that_declares_nothing(
    site: str, value: bytes, expected: Text
) -> None:
    characters.assume(site)
    assert name([], value) == expected
    assert name(["ISO_IR 100"], b"M\xfcller") == Text("Müller")  # what is declared holds
