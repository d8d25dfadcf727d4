"""What a header states about body part and view: that it agrees, that it contradicts, or neither.

A word or a code that is not known contradicts nothing: then the pixels decide, and the report says
so.
"""

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from pydicom import Dataset

from thoracle.image import terms
from thoracle.image.attributes import LONGEST_QUOTE
from thoracle.image.terms import plain
from thoracle.settings import Select


class Verdict(Enum):
    """How a statement stands to what is required."""

    AGREES = "agrees"
    CONTRADICTS = "contradicts"
    NOT_UNDERSTOOD = "not understood"


class Statement(NamedTuple):
    """What one element of a header says."""

    verdict: Verdict
    element: str
    """Its name."""
    value: str = ""
    """What it says, to be quoted; empty where it may name a patient."""

    @property
    def found(self) -> str:
        """Element and value in words."""
        if self.value:
            return f"{self.element} {quoted(self.value)}"
        return f"another value in {self.element}"


def regions(ds: Dataset, settings: Select) -> Iterator[Statement]:
    """Yield what each element that states a region says of the chest."""
    own = _Own(settings.chest_words, settings.other_region_words)
    stated = False
    for code in codes_in(ds, "AnatomicRegionSequence"):
        stated = True
        verdict = own.of_code(code) or _of_code(code, terms.CHEST_CODES, terms.OTHER_REGION_CODES)
        yield Statement(verdict, "Anatomic Region", "^".join(code[::-1]))
    text = words(ds, "BodyPartExamined")
    verdict_of_words = own.of_words(text)
    if verdict_of_words is None and not terms.UNSAID.fullmatch(text):
        verdict_of_words = _of_region_words(text)
    if verdict_of_words is not None:
        yield Statement(verdict_of_words, "Body Part Examined", text)
    elif not stated:
        yield from _region_of_text(ds, own)


def _of_region_words(text: str) -> Verdict:
    if text.replace(" ", "") in terms.COMBINED_REGIONS:
        return Verdict.CONTRADICTS
    chest = bool(terms.CHEST_WORDS.search(text))
    return _either(chest, bool(terms.OTHER_REGION_WORDS.search(text)))


def _region_of_text(ds: Dataset, own: "_Own") -> Iterator[Statement]:
    """Yield what the first description says that names one region."""
    for keyword in ("ProtocolName", "SeriesDescription", "StudyDescription"):
        text = words(ds, keyword)
        verdict = own.of_words(text) or _of_region_words(text)
        if verdict is not Verdict.NOT_UNDERSTOOD:
            # Free text is not quoted: names of patients have been seen in it.
            yield Statement(verdict, keyword)
            return


def views(ds: Dataset, settings: Select) -> Iterator[Statement]:
    """Yield what each element that states a view says of a frontal one."""
    own = _Own(settings.frontal_words, settings.other_view_words)
    stated = False
    for code in codes_in(ds, "ViewCodeSequence"):
        stated = True
        verdict = own.of_code(code) or _of_code(code, terms.FRONTAL_CODES, terms.OTHER_VIEW_CODES)
        yield Statement(verdict, "View Code", "^".join(code[::-1]))
    text = words(ds, "ViewPosition")
    if own.of_words(text) or not terms.UNSAID.fullmatch(text):
        verdict = own.of_words(text) or _of_view_words(text)
        stated |= verdict is not Verdict.NOT_UNDERSTOOD
        yield Statement(verdict, "View Position", text)
    orientation = values(ds, "PatientOrientation")
    if any(orientation):
        verdict = _of_orientation(orientation)
        stated |= verdict is not Verdict.NOT_UNDERSTOOD
        yield Statement(verdict, "Patient Orientation", "\\".join(orientation))
    if not stated:
        yield from _view_of_text(ds, own)


def _of_view_words(text: str) -> Verdict:
    if terms.OTHER_VIEW_WORDS.search(text):
        return Verdict.CONTRADICTS
    frontal = bool(terms.FRONTAL_WORDS.search(text))
    return _either(frontal, bool(terms.LATERAL_WORDS.search(text)))


def _of_orientation(orientation: list[str]) -> Verdict:
    """Return what the directions of rows and columns say (PS3.3 Section C.7.6.1.1.1)."""
    letters = {part[:1] for part in orientation}
    if len(orientation) != 2 or not letters <= set("LRAPHF"):
        return Verdict.NOT_UNDERSTOOD
    if letters & set("AP"):
        return Verdict.CONTRADICTS
    return _either(bool(letters & set("LR") and letters & set("HF")), False)


def _view_of_text(ds: Dataset, own: "_Own") -> Iterator[Statement]:
    """Yield what the first description of the series says that names one kind of view.

    Study Description is of no use: "Chest PA and lateral" stands on both images.
    """
    for keyword in ("ProtocolName", "SeriesDescription"):
        text = words(ds, keyword)
        verdict = own.of_words(text) or _of_view_words(text)
        if verdict is not Verdict.NOT_UNDERSTOOD:
            yield Statement(verdict, keyword)
            return


def directions(ds: Dataset) -> set[str]:
    """Return which of ``AP`` and ``PA`` the header states; both when elements disagree."""
    text, coded = words(ds, "ViewPosition"), codes_in(ds, "ViewCodeSequence")
    return {
        name
        for name, codes, pattern in (
            ("AP", terms.AP_CODES, terms.AP_WORDS),
            ("PA", terms.PA_CODES, terms.PA_WORDS),
        )
        if pattern.search(text) or any(code in codes for code in coded)
    }


class _Own(NamedTuple):
    """A site's own words for what agrees and for what contradicts: they come first."""

    agreeing: tuple[str, ...]
    contradicting: tuple[str, ...]

    def of_words(self, text: str) -> Verdict | None:
        for verdict, own in self._pairs():
            if text and text in {plain(one) for one in own if "^" not in one}:
                return verdict
        return None

    def of_code(self, code: tuple[str, str]) -> Verdict | None:
        for verdict, own in self._pairs():
            if code in {_code(*one.split("^", 1)) for one in own if "^" in one}:
                return verdict
        return None

    def _pairs(self) -> tuple[tuple[Verdict, tuple[str, ...]], ...]:
        return (Verdict.AGREES, self.agreeing), (Verdict.CONTRADICTS, self.contradicting)


def _either(agrees: bool, contradicts: bool) -> Verdict:
    if agrees == contradicts:
        return Verdict.NOT_UNDERSTOOD
    return Verdict.AGREES if agrees else Verdict.CONTRADICTS


def _of_code(
    code: tuple[str, str],
    agreeing: frozenset[tuple[str, str]],
    contradicting: frozenset[tuple[str, str]],
) -> Verdict:
    return _either(code in agreeing, code in contradicting)


def _code(value: str, scheme: str) -> tuple[str, str]:
    """Return scheme and value of a code, the scheme by the name it has in the tables."""
    designator = scheme.strip().upper()
    return terms.SCHEMES.get(designator, designator), value.strip()


def codes_in(ds: Dataset, keyword: str) -> list[tuple[str, str]]:
    """Return scheme and value of each code of a code sequence that has a value."""
    found = []
    for item in ds.get(keyword) or []:
        several = (item.get(name) for name in ("CodeValue", "LongCodeValue", "URNCodeValue"))
        value = next(filter(None, several), "")
        found.append(_code(str(value), str(item.get("CodingSchemeDesignator") or "")))
    return [code for code in found if code[1]]


def values(ds: Dataset, keyword: str) -> list[str]:
    """Return the values of an element in upper case."""
    value = ds.get(keyword)
    several = [value] if value is None or isinstance(value, str) else list(value)
    return [str(one).strip().upper() for one in several if one]


def words(ds: Dataset, keyword: str) -> str:
    """Return the values of an element as plain words."""
    return plain(" ".join(values(ds, keyword)))


def quoted(text: str) -> str:
    """Return text from a header so that it can neither flood nor forge a line of a log."""
    return repr(text[:LONGEST_QUOTE])
