"""The report on a study: a Comprehensive 3D SR (PS3.3 A.35.13) with TID 1500, or TID 2000.

The UIDs of a report are derived from the finished document: whatever shapes the document shapes
them, so the same UID always means the same bytes.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from copy import copy
from datetime import datetime
from types import MappingProxyType

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
)

from thoracle.errors import ReportError
from thoracle.records import SCHEME, BundleIdentity, Kind, Outcome, Reading, Reason
from thoracle.report import codes, content, header, sentences
from thoracle.report.content import Illustration
from thoracle.report.header import Instance
from thoracle.report.identity import (
    derived_uid,
)
from thoracle.settings import Report as ReportSettings

# ---- TID 2000 ------------------------------------------------------------------------------------
# The content tree of a report on a study of which no image was analysed: TID 2000, in words.
#
# It has no measurement, so it is no measurement report. Viewers show its sentences as they are.


def unanalysed_tree(
    sources: Sequence[Dataset],
    readings: Sequence[Reading],
    bundle: BundleIdentity,
    conclusion: str,
) -> Dataset:
    """Return the root content item for sources and their readings in the same order."""
    found: list[Dataset] = []
    for number, (source, reading) in enumerate(zip(sources, readings, strict=True), 1):
        found += content.remarks(number, source, reading, bundle, several=len(readings) > 1)
        found += content.unanalysed(source, reading, bundle.finding)
    root = sr.ContainerContentItem(codes.DIAGNOSTIC_IMAGING_REPORT, template_id="2000")
    root.ContentSequence = sr.ContentSequence(
        [
            *content.language(),
            sr.CodeContentItem(
                codes.PROCEDURE_REPORTED, codes.PLAIN_XRAY_OF_CHEST, "HAS CONCEPT MOD"
            ),
            *content.observation_context(bundle),
            content.container(
                codes.CONCLUSIONS,
                [sr.TextContentItem(codes.CONCLUSION, conclusion, "CONTAINS")],
            ),
            content.container(codes.FINDINGS, found),
        ]
    )
    return content.separate(root)


# ---- report --------------------------------------------------------------------------------------

Predecessor = Instance
"""An earlier report on the same study, which a new one replaces."""
NOTHING: Mapping[str, Illustration] = MappingProxyType({})
LONGEST_REASON = 1024
"""Characters of the reason of a withdrawal, at most."""


def build(
    sources: Sequence[Dataset],
    readings: Sequence[Reading],
    bundle: BundleIdentity,
    *,
    content_datetime: datetime,
    settings: ReportSettings,
    predecessor: Predecessor | None = None,
    illustrations: Mapping[str, Illustration] = NOTHING,
    key_objects: Sequence[Instance] = (),
) -> Dataset:
    """Return the report on one study, complete and ready to be encoded.

    Parameters
    ----------
    sources
        The images of the study that were read or rejected; their pixel data is not needed.
    readings
        What is said of them: one for each source, matched by SOP Instance UID, in any order.
    content_datetime
        When the readings were made, with a time zone. It is written in the zone of the source
        where that states one (PS3.3 C.12.1, Timezone Offset From UTC), else in its own.
    illustrations
        By SOP Instance UID of the image: the salient regions, which become TID 1410 groups, and
        our objects that show them, which become Key Images.
    key_objects
        Our selections of these images, which the report names, too (IHE AIR).

    Raises
    ------
    ReportError
        When there are no sources, the sources are not of one study and patient, sources and
        readings do not correspond, an illustration is of none of them, or the time has no zone.
    """
    sources, readings = _paired(sources, readings)
    return _document(
        sources,
        readings,
        bundle,
        sentences.conclusion(readings, bundle),
        content_datetime,
        settings,
        predecessor,
        illustrations,
        key_objects,
    )


def withdrawn(sources: Sequence[Dataset]) -> list[Reading]:
    """Return what is said of each image of a result that is withdrawn."""
    return [
        Reading(
            str(source.get("SOPClassUID")),
            str(source.get("SOPInstanceUID")),
            Outcome.REJECTED,
            Reason.WITHDRAWN,
        )
        for source in sources
    ]


def withdrawal(
    sources: Sequence[Dataset],
    predecessor: Predecessor,
    reason: str,
    bundle: BundleIdentity,
    *,
    content_datetime: datetime,
    settings: ReportSettings,
    made: datetime | None = None,
) -> Dataset:
    """Return the report that takes back an earlier one on the same study.

    Every image is "Undetermined" with the reason :attr:`Reason.WITHDRAWN`, never negative.

    Parameters
    ----------
    sources
        The images of the withdrawn result.
    predecessor
        The report that is withdrawn.
    reason
        What a person says about it: text of 1 to 1024 characters, in any script.
    bundle
        The model of the withdrawn result.
    content_datetime
        When it was withdrawn, with a time zone.
    made
        When the withdrawn result was made, if that is known.

    Raises
    ------
    ReportError
        As :func:`build`; and when the reason is empty, too long, or has characters that text
        cannot hold (PS3.5 Section 6.1.3).
    """
    readings = withdrawn(sources)
    return _document(
        *_paired(sources, readings),
        bundle,
        sentences.withdrawal(_checked(reason), made, bundle.finding),
        content_datetime,
        settings,
        predecessor,
        NOTHING,
        (),
    )


def _document(
    sources: Sequence[Dataset],
    readings: Sequence[Reading],
    bundle: BundleIdentity,
    conclusion: str,
    content_datetime: datetime,
    settings: ReportSettings,
    predecessor: Predecessor | None,
    illustrations: Mapping[str, Illustration],
    key_objects: Sequence[Instance],
) -> Dataset:
    if unknown := illustrations.keys() - {source.SOPInstanceUID for source in sources}:
        raise ReportError(f"illustrations: found {sorted(unknown)}, required: images reported")
    report = header.base(Kind.SR, sources[0], bundle, content_datetime, settings)
    ours = [made for key in sorted(illustrations) for made in illustrations[key].objects()]
    header.add_document(report, sources, predecessor, [*ours, *key_objects])
    measured = any(illustrations[key].regions for key in illustrations)
    ours_used = measured and codes.SALIENCY[bundle.finding.saliency].scheme_designator == SCHEME
    rejected = any(reading.reason is not None for reading in readings)
    header.add_coding_schemes(report, bundle.finding, ours=rejected or ours_used)
    said = (sources, readings, bundle, conclusion)
    if all(reading.probability is None for reading in readings):
        report.update(unanalysed_tree(*said))
    else:
        report.update(content.tree(*said, illustrations, key_objects))
    return header.identified(report, sources[0], Comprehensive3DSRStorage)


def as_comprehensive_sr(report: Dataset) -> Dataset:
    """Return the report as a Comprehensive SR, for archives that refuse the 3D class.

    The content is the same, since it has no 3D coordinates. The SOP Instance UID is another,
    derived one, and a predecessor is named by the one that it got in the same way.
    """
    other = Dataset()
    # Not update(): it would hand on undecoded values of a report that was read from a file.
    for element in report:
        other.add(copy(element))
    if "PredecessorDocumentsSequence" in report:
        other.PredecessorDocumentsSequence = [
            header.references(
                study.StudyInstanceUID,
                [
                    _as_comprehensive_instance(
                        Instance(
                            item.ReferencedSOPClassUID,
                            item.ReferencedSOPInstanceUID,
                            series.SeriesInstanceUID,
                        )
                    )
                    for series in study.ReferencedSeriesSequence
                    for item in series.ReferencedSOPSequence
                ],
            )
            for study in report.PredecessorDocumentsSequence
        ]
    other.SOPClassUID = ComprehensiveSRStorage
    return header.with_uid(other, derived_uid("comprehensive", report.SOPInstanceUID))


def _paired(
    sources: Sequence[Dataset], readings: Sequence[Reading]
) -> tuple[list[Dataset], list[Reading]]:
    """Return sources and readings in one order, which does not depend on that of arrival."""
    if not sources:
        raise ReportError("sources: found none, required: at least one image")
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        if not all(source.get(keyword) for source in sources):
            raise ReportError(f"{keyword}: found none in a source, required: a value")
    for keyword in ("StudyInstanceUID", "PatientID"):
        found = {str(source.get(keyword) or "").strip() for source in sources}
        if len(found) > 1:
            raise ReportError(f"{keyword}: found {len(found)} in the sources, required: one")
    by_key = {(reading.sop_instance_uid, reading.sop_class_uid): reading for reading in readings}
    ordered = sorted(sources, key=lambda source: str(source.SOPInstanceUID))
    keys = [(str(source.SOPInstanceUID), str(source.SOPClassUID)) for source in ordered]
    if len(by_key) != len(readings) or len(set(keys)) != len(keys) or by_key.keys() != set(keys):
        raise ReportError(
            f"readings: found {sorted(by_key)}, required: one for each source: {keys}"
        )
    for reading in readings:
        _check(reading)
    return ordered, [by_key[key] for key in keys]


def _checked(reason: str) -> str:
    """Return the reason without the white space around it."""
    reason = reason.strip()
    if not 1 <= len(reason) <= LONGEST_REASON:
        raise ReportError(
            f"reason: found {len(reason)} characters, required: 1 to {LONGEST_REASON}"
        )
    for character in reason:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r":
            raise ReportError(f"reason: found U+{ord(character):04X}, required: text")
    return reason


def _check(reading: Reading) -> None:
    rejected = reading.outcome is Outcome.REJECTED
    if (reading.reason is None) is rejected or (reading.probability is None) is not rejected:
        raise ReportError(
            f"reading: found {reading.outcome} with reason {reading.reason} and probability "
            f"{reading.probability}, required: a reason when rejected, else a probability"
        )
    if reading.probability is not None and not 0 <= reading.probability <= 1:
        raise ReportError(f"probability: found {reading.probability}, required: 0 to 1")


def _as_comprehensive_instance(instance: Instance) -> Instance:
    if instance.sop_class_uid != Comprehensive3DSRStorage:
        return instance
    return Instance(
        ComprehensiveSRStorage,
        derived_uid("comprehensive", instance.sop_instance_uid),
        instance.series_instance_uid,
    )
