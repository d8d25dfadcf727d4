"""The generated parts of docs/dicom-conformance.md: `make docs` writes them, a test compares them.

Tables come from the tables of the code, from objects that are built (iods.py), and from
associations that are made (associations.py).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID

import associations
import iods
import sources
from associations import made, table
from iods import OPTIONAL, coded
from thoracle.records import SCHEME, Outcome, Reading, Reason
from thoracle.report import codes, context, sr
from thoracle.report.content import MODALITIES


def patient_and_study() -> Iterator[str]:
    """Yield the attributes that every object has from the image."""
    yield from table("attribute", "tag", "VR", "presence")
    for keyword in (*context.PATIENT, *context.STUDY, *context.ZONE):
        tag = Tag(tag_for_keyword(keyword) or 0)
        there = "always; empty if there is none" if keyword in context.REQUIRED else OPTIONAL
        place = f"({tag.group:04X},{tag.elem:04X})"
        yield f"| {dictionary_description(tag)} | {place} | {dictionary_VR(tag)} | {there} |"


def iod(kind: str) -> Callable[[], Iterator[str]]:
    """Return what yields the attributes of a kind, but for patient and study."""

    def lines() -> Iterator[str]:
        name = UID(made()[kind].SOPClassUID).name
        syntax = UID(made()[kind].file_meta.TransferSyntaxUID).name
        yield f"{iods.IODS[kind][0]} IOD, SOP Class {name}, written in {syntax}."
        yield ""
        yield from table("module", "attribute", "tag", "VR", "type", "presence", "source")
        yield from iods.attributes(kind)

    return lines


def content(kind: str) -> Callable[[], Iterator[str]]:
    """Return what yields the content tree of a kind."""

    def lines() -> Iterator[str]:
        before, count = "", 0
        yield "```"
        for line in [*tree(made()[kind]), ""]:
            if line != before and count:
                yield before + (f"  ({count} times)" if count > 1 else "")
            before, count = line, count + 1 if line == before else 1
        yield "```"

    return lines


def narrative() -> Iterator[str]:
    """Yield the content tree of a report on a study of which no image was analysed."""
    image = sources.dx()
    reading = Reading(
        str(image.SOPClassUID),
        str(image.SOPInstanceUID),
        Outcome.REJECTED,
        Reason.FLAT,
        "found one grey value, required: several",
    )
    report = sr.build([image], [reading], sources.BUNDLE, **sources.COMMON)
    yield from ("```", *tree(report), "```")


def tree(item: Dataset, depth: int = 0) -> Iterator[str]:
    """Yield the lines of a content tree; values that differ from result to result are left out."""
    relation = f"{item.RelationshipType} " if "RelationshipType" in item else ""
    names = item.get("ConceptNameCodeSequence")
    name = f" {coded(names[0])}" if names else ""
    value = f" = {coded(item.ConceptCodeSequence[0])}" if "ConceptCodeSequence" in item else ""
    if "MeasuredValueSequence" in item:
        value = f" in {coded(item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0])}"
    if "GraphicType" in item:
        value = f" = {item.GraphicType}"
    if "ReferencedSOPSequence" in item:
        value = f" = {UID(item.ReferencedSOPSequence[0].ReferencedSOPClassUID).name}"
    template = item.get("ContentTemplateSequence")
    used = f"  [TID {template[0].TemplateIdentifier}]" if template else ""
    yield f"{'  ' * depth}{relation}{item.ValueType}{name}{value}{used}"
    for child in item.get("ContentSequence") or ():
        yield from tree(child, depth + 1)


def concepts(ds: Dataset) -> Iterator[tuple[str, str, str]]:
    """Yield value, scheme and meaning of each code in an object."""
    for element in ds.iterall():
        if element.VR == "SQ" and element.keyword not in iods.CONTEXT:
            for item in element.value:
                if "CodeValue" in item:
                    yield item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning


def terminology() -> Iterator[str]:
    """Yield the coded concepts of all objects, with the kinds that have them."""
    used: dict[tuple[str, str, str], set[str]] = {}
    for kind, ds in made().items():
        for concept in concepts(ds):
            used.setdefault(concept, set()).add(kind)
    said = [codes.concept(sources.FINDING.outcomes.of(outcome).code) for outcome in Outcome]
    for code in (*said, *MODALITIES.values()):
        used.setdefault((code.value, code.scheme_designator, code.meaning), set()).add("sr")
    yield from table("code", "scheme", "meaning", "in")
    for (value, scheme, meaning), kinds in sorted(used.items(), key=lambda pair: pair[0][1::-1]):
        if scheme != SCHEME or value == codes.NO_RESULT_REASON.value:
            yield f"| {value} | {scheme} | {meaning} | {', '.join(sorted(kinds))} |"
    for reason in Reason:
        one = reason.code
        yield f"| {one.value} | {one.scheme} | {one.meaning} | sr: reason for no result |"


def character_sets() -> Iterator[str]:
    """Yield the Specific Character Set of reports on images with one."""
    yield from table("Specific Character Set of the image", "of our objects")
    languages = (sources.GREEK, sources.JAPANESE, sources.KOREAN, sources.ARABIC)
    images = [sources.dx(), sources.dx(SpecificCharacterSet="ISO_IR 100")]
    images += [sources.named(language) for language in languages]
    images.append(sources.named(("ISO_IR 192", *sources.GREEK[1:])))
    for image in images:
        reading = sources.positive(image)
        report = sr.build([image], [reading], sources.BUNDLE, **sources.COMMON)
        yield f"| {_said(image)} | {_said(report)} |"


def _said(ds: Dataset) -> str:
    stated: Any = ds.get("SpecificCharacterSet")
    if not stated:
        return "absent"
    terms: Iterable[str] = [stated] if isinstance(stated, str) else stated
    return "\\".join(terms)


PARTS: dict[str, Callable[[], Iterable[str]]] = {
    "overview": associations.overview,
    "accepted contexts": associations.accepted,
    "proposed contexts": associations.proposed,
    "identification": associations.identification,
    "answers to C-STORE": associations.c_store_answers,
    "reactions": associations.reactions,
    "answers to N-EVENT-REPORT": associations.event_reports,
    "answers about workitems": associations.workitem_answers,
    "HTTP reactions": associations.http_reactions,
    "character sets": character_sets,
    "patient and study": patient_and_study,
    **{f"IOD {kind}": iod(kind) for kind in iods.IODS},
    "content narrative": narrative,
    **{f"content {kind}": content(kind) for kind in ("sr", "ko", "rejection")},
    "terminology": terminology,
}
"""What stands between `<!-- generated: name -->` and `<!-- end -->`."""
