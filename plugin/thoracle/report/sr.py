"""The report on a study: a Comprehensive 3D SR with TID 1500 (PS3.3 A.35.13, PS3.16).

The UIDs of a report are derived from the finished document: whatever shapes the document shapes
them, so the same UID always means the same bytes.
"""

from collections.abc import Sequence
from copy import copy
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
)

from thoracle.errors import ReportError
from thoracle.records import BundleIdentity, Kind, Outcome, Reading
from thoracle.report import content, header
from thoracle.report.header import Instance
from thoracle.report.identity import (
    derived_uid,
)
from thoracle.settings import Report as ReportSettings

Predecessor = Instance
"""An earlier report on the same study, which a new one replaces."""


def build(
    sources: Sequence[Dataset],
    readings: Sequence[Reading],
    bundle: BundleIdentity,
    *,
    content_datetime: datetime,
    settings: ReportSettings,
    predecessor: Predecessor | None = None,
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

    Raises
    ------
    ReportError
        When there are no sources, the sources are not of one study and patient, sources and
        readings do not correspond, or the time has no zone.
    """
    if content_datetime.tzinfo is None:
        raise ReportError(f"content_datetime: found {content_datetime}, required is a time zone")
    sources, readings = _paired(sources, readings)
    report = header.base(Kind.SR, sources[0], bundle, content_datetime, settings)
    header.add_document(report, sources, predecessor)
    if any(reading.reason is not None for reading in readings):
        header.add_coding_scheme(report)
    report.update(content.tree(sources, readings, bundle))
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
        raise ReportError("sources: found none, required is at least one image")
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        if not all(source.get(keyword) for source in sources):
            raise ReportError(f"{keyword}: found none in a source, required is a value")
    for keyword in ("StudyInstanceUID", "PatientID"):
        found = {str(source.get(keyword) or "").strip() for source in sources}
        if len(found) > 1:
            raise ReportError(f"{keyword}: found {len(found)} in the sources, required is one")
    by_key = {(reading.sop_instance_uid, reading.sop_class_uid): reading for reading in readings}
    ordered = sorted(sources, key=lambda source: str(source.SOPInstanceUID))
    keys = [(str(source.SOPInstanceUID), str(source.SOPClassUID)) for source in ordered]
    if len(by_key) != len(readings) or len(set(keys)) != len(keys) or by_key.keys() != set(keys):
        raise ReportError(
            f"readings: found {sorted(by_key)}, required is one for each source: {keys}"
        )
    for reading in readings:
        _check(reading)
    return ordered, [by_key[key] for key in keys]


def _check(reading: Reading) -> None:
    rejected = reading.outcome is Outcome.REJECTED
    if (reading.reason is None) is rejected or (reading.probability is None) is not rejected:
        raise ReportError(
            f"reading: found {reading.outcome} with reason {reading.reason} and probability "
            f"{reading.probability}, required is a reason when rejected, else a probability"
        )
    if reading.probability is not None and not 0 <= reading.probability <= 1:
        raise ReportError(f"probability: found {reading.probability}, required is 0 to 1")


def _as_comprehensive_instance(instance: Instance) -> Instance:
    if instance.sop_class_uid != Comprehensive3DSRStorage:
        return instance
    return Instance(
        ComprehensiveSRStorage,
        derived_uid("comprehensive", instance.sop_instance_uid),
        instance.series_instance_uid,
    )
