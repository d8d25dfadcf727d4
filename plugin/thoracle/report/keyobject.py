"""Key Object Selections (PS3.3 A.35.4, PS3.16 TID 2010): what to look at, and what is withdrawn."""

from collections.abc import Sequence
from datetime import datetime

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
)

from thoracle.errors import ReportError
from thoracle.records import BundleIdentity, Kind, Reading
from thoracle.report import codes, content, header, sentences
from thoracle.report.header import Instance
from thoracle.settings import Report as ReportSettings

_OUR_IMAGES = {SecondaryCaptureImageStorage}
_OUR_OTHERS = {
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
}


def build(
    sources: Sequence[Dataset],
    key_images: Sequence[Instance],
    readings: Sequence[Reading],
    bundle: BundleIdentity,
    *,
    content_datetime: datetime,
    settings: ReportSettings,
    context_source: Dataset,
) -> Dataset:
    """Return the selection "Of Interest" of images, and of the pictures that show their results.

    Parameters
    ----------
    sources
        The images meant; their pixel data is not needed.
    key_images
        Our Secondary Captures of them; may be empty.
    readings
        What is said of the images meant; the description states the most telling one.
    content_datetime
        As for :func:`thoracle.report.sr.build`.
    context_source
        The image whose patient and study are copied.

    Raises
    ------
    ReportError
        There are no sources or no readings, or the time has no zone.
    """
    if not sources or not readings:
        raise ReportError("sources, readings: found none, required: at least one image and both")
    objects = [*map(header.instance, sources), *key_images]
    document = header.base(Kind.KO, context_source, bundle, content_datetime, settings)
    header.add_evidence(document, sources, objects)
    description = sentences.key_objects(readings, bundle)
    return _finished(document, context_source, bundle, codes.OF_INTEREST, description, objects)


def rejection(
    objects: Sequence[Instance],
    sources: Sequence[Dataset],
    bundle: BundleIdentity,
    *,
    content_datetime: datetime,
    settings: ReportSettings,
    title: Code = codes.REJECTED_FOR_QUALITY_REASONS,
) -> Dataset:
    """Return the note that tells an archive to reject withdrawn results of ours (IHE RAD IOCM).

    The title is "Rejected for Quality Reasons": the result is not good enough, while it is of the
    right patient and the right order. "For Patient Safety Reasons" and "Incorrect Modality Worklist
    Entry" are for objects that are not; archives take these away from everybody, also from who
    looks into why a result was withdrawn.

    Parameters
    ----------
    objects
        Reports, pictures, presentation states and selections of ours, all of one study, and
        nothing else: an archive may hide whatever is named.
    sources
        The images of the withdrawn result, whose patient, study and requests are copied.
    content_datetime
        As for :func:`thoracle.report.sr.build`.
    title
        A title that IOCM knows.

    Raises
    ------
    ReportError
        There are no objects or no sources, an object is of a class that we do not make, or the
        time has no zone.
    """
    if not objects or not sources:
        raise ReportError("objects, sources: found none, required: at least one of both")
    if foreign := {made.sop_class_uid for made in objects} - _OUR_IMAGES - _OUR_OTHERS:
        raise ReportError(f"objects: found {sorted(foreign)}, required: classes of our results")
    objects = sorted(set(objects))
    sources = sorted(sources, key=lambda source: str(source.SOPInstanceUID))
    document = header.base(Kind.REJECTION, sources[0], bundle, content_datetime, settings)
    header.add_evidence(document, sources, objects)
    return _finished(document, sources[0], bundle, title, sentences.REJECTION, objects)


def _finished(
    document: Dataset,
    context_source: Dataset,
    bundle: BundleIdentity,
    title: Code,
    description: str,
    objects: Sequence[Instance],
) -> Dataset:
    """Return the document with the content of TID 2010."""
    document.InstanceNumber = 1
    document.ReferencedPerformedProcedureStepSequence = []
    items: list[Dataset] = [*content.language()]
    if title == codes.REJECTED_FOR_QUALITY_REASONS:
        # Required with this title (TID 2010 row 3); the person's reason is text, without a code.
        items.append(
            sr.CodeContentItem(
                codes.DOCUMENT_TITLE_MODIFIER, codes.OTHER_FAILURE, "HAS CONCEPT MOD"
            )
        )
    items += content.observation_context(bundle)
    items.append(sr.TextContentItem(codes.KEY_OBJECT_DESCRIPTION, description, "CONTAINS"))
    items += [_reference(*named[:2]) for named in objects]
    document.update(sr.ContainerContentItem(title, template_id="2010"))
    document.ContentSequence = items  # not the container's own, which takes no nameless item
    return header.identified(document, context_source, KeyObjectSelectionDocumentStorage)


def _reference(sop_class_uid: str, sop_instance_uid: str) -> sr.ContentItem:
    value_type = sr.CompositeContentItem if sop_class_uid in _OUR_OTHERS else sr.ImageContentItem
    reference: sr.ContentItem = value_type(
        codes.SOURCE, sop_class_uid, sop_instance_uid, relationship_type="CONTAINS"
    )
    # highdicom wants a name, which TID 2010 forbids.
    del reference.ConceptNameCodeSequence
    return reference
