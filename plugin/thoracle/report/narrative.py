"""The content tree of a report on a study of which no image was analysed: TID 2000, in words.

It has no measurement, so it is no measurement report. Viewers show its sentences as they are.
"""

from collections.abc import Sequence

from highdicom import sr
from pydicom.dataset import Dataset

from thoracle.records import BundleIdentity, Reading
from thoracle.report import codes, content


def tree(
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
