"""The saliency for machines: a fractional segmentation on the grid of the image (PS3.3 A.51).

Not a Parametric Map, which needs a Frame of Reference; a radiograph has none to give.
"""

from datetime import datetime
from typing import Final

import numpy as np
from highdicom import AlgorithmIdentificationSequence, seg
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless, SegmentationStorage

from thoracle.errors import ReportError
from thoracle.records import BundleIdentity, Kind, Saliency
from thoracle.report import codes, context, header
from thoracle.report.identity import derived_uid
from thoracle.settings import Report as ReportSettings

LABEL: Final = "AI_SALIENCY"
DESCRIPTION: Final = "AI saliency: what the model used, not where disease is"

_REFERENCE = """
StudyInstanceUID SeriesInstanceUID SOPClassUID SOPInstanceUID Rows Columns LossyImageCompression
LossyImageCompressionRatio LossyImageCompressionMethod
""".split()  # noqa: SIM905 - as a list it would take a line for each name
_LEFT_OUT = {"InstanceCreationDate", "InstanceCreationTime", "SOPInstanceUID"}


def build(
    source: Dataset,
    saliency: Saliency,
    bundle: BundleIdentity,
    *,
    content_datetime: datetime,
    settings: ReportSettings,
    instance_number: int,
    context_source: Dataset,
) -> Dataset:
    """Return the segmentation: per pixel 0 to 255, the maximum of what speaks for the positive.

    Parameters
    ----------
    source
        The image, without pixel data.
    saliency
        Its map; places that speak against the positive class become 0.
    content_datetime
        As for :func:`thoracle.report.sr.build`.
    instance_number
        Of the segmentation in its series.
    context_source
        The image whose patient and study are copied: the same for all objects of a result, so
        that they share a series.

    Raises
    ------
    ReportError
        No place speaks for the positive class, or the time has no zone.
    """
    positive: NDArray[np.float32] = np.maximum(saliency.contributions, 0)
    maximum = float(positive.max())
    if not maximum > 0:
        raise ReportError(f"saliency: found a maximum of {maximum:g}, required is more than 0")
    ds = header.base(Kind.SEG, context_source, bundle, content_datetime, settings)
    shares = _on_grid(positive / np.float32(maximum), int(source.Rows), int(source.Columns))
    made = _segmentation(source, shares, maximum, bundle)
    for element in made:
        # Patient, study, equipment and time are ours, not those that highdicom was content with.
        if element.tag not in ds and element.keyword not in _LEFT_OUT:
            ds.add(element)
    _identify_dimensions(ds)
    # The chest is no paired part, and where it is not named Laterality is due (PS3.3 C.7.3.1).
    ds.BodyPartExamined = "CHEST"
    # Due where there is no Image Orientation (Patient) (PS3.3 C.7.6.1).
    ds.PatientOrientation = source.get("PatientOrientation")
    ds.InstanceNumber = instance_number
    ds.ContentDescription = DESCRIPTION
    ds.ContentCreatorName = "Thoracle^AI"
    header.identified(ds, context_source, SegmentationStorage)
    # Not by highdicom, which takes GDCM where that is installed: it ends the process on images
    # with an odd number of pixels.
    ds.compress(RLELossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    return ds


def _on_grid(shares: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Return a map stretched over ``(rows, columns)`` pixels, 0 to 1."""
    stretched = Image.fromarray(shares).resize((columns, rows), Image.Resampling.BILINEAR)
    clipped: NDArray[np.float32] = np.clip(np.asarray(stretched), 0, 1)
    return clipped


def _segmentation(
    source: Dataset, shares: NDArray[np.float32], maximum: float, bundle: BundleIdentity
) -> seg.Segmentation:
    """Return the segmentation of shares of the maximum, in a study that is not the source's."""
    segment = seg.SegmentDescription(
        segment_number=1,
        segment_label="AI saliency",
        segmented_property_category=codes.SPATIAL_CONCEPT,
        segmented_property_type=codes.SELECTED_REGION,
        algorithm_type=seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            bundle.name, codes.ARTIFICIAL_INTELLIGENCE, bundle.version
        ),
        tracking_id="Saliency",
        tracking_uid=derived_uid("saliency", bundle.digest, source.SOPInstanceUID),
    )
    segment.SegmentDescription = (
        f"{DESCRIPTION}. Contributions to the result as shares of their maximum, {maximum:.4g}."
    )
    return seg.Segmentation(
        source_images=[_reference(source)],
        pixel_array=shares,
        segmentation_type=seg.SegmentationTypeValues.FRACTIONAL,
        fractional_type=seg.SegmentationFractionalTypeValues.PROBABILITY,
        segment_descriptions=[segment],
        content_label=LABEL,
        # What follows is replaced.
        series_instance_uid="2.25.1",
        series_number=1,
        sop_instance_uid="2.25.1",
        instance_number=1,
        manufacturer="",
        manufacturer_model_name="",
        software_versions="",
        device_serial_number="",
    )


def _reference(source: Dataset) -> Dataset:
    """Return what highdicom needs of a source, without patient and study, which it only copies."""
    reference = context.copied(source, _REFERENCE)
    for keyword in context.REQUIRED:
        setattr(reference, keyword, None)
    return reference


def _identify_dimensions(ds: Dataset) -> None:
    """Name the one dimension, Referenced Segment Number, by a UID that is always the same."""
    uid = derived_uid("dimensions", "ReferencedSegmentNumber")
    for item in (*ds.DimensionOrganizationSequence, *ds.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
