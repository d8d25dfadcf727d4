"""The picture of a result as a Secondary Capture, which every viewer shows (PS3.3 A.8.1)."""

import hashlib
from datetime import datetime
from typing import Final

import numpy as np
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import JPEGLSLossless, SecondaryCaptureImageStorage

from thoracle.errors import ReportError
from thoracle.records import BundleIdentity, Kind, Reading
from thoracle.report import context, header, sentences
from thoracle.report.identity import derived_uid
from thoracle.settings import Report as ReportSettings
from thoracle.wording import DISCLAIMER, MAPS

IMAGE_TYPE: Final = ["DERIVED", "SECONDARY", "OTHER", "AI_RESULT"]
"""By which others, and selection.py, know that it is no radiograph."""
DERIVATION: Final = "AI result in words, below the radiograph made smaller"
SOURCE_IMAGE: Final = codes.cid7202.SourceImageForImageProcessingOperation


def build(
    source: Dataset,
    picture: NDArray[np.uint8],
    reading: Reading,
    bundle: BundleIdentity,
    *,
    content_datetime: datetime,
    settings: ReportSettings,
    instance_number: int,
    context_source: Dataset,
) -> Dataset:
    """Return the picture of one image, complete and ready to be encoded.

    It is compressed without loss, by JPEG-LS: a quarter of the bytes. JPEG 2000 makes half of
    that, but DCMTK, and Orthanc without a further plugin, cannot show it. The SOP Instance UID
    follows from the pixels before compression.

    Parameters
    ----------
    source
        The image that is shown; its pixel data is not needed.
    picture
        ``(rows, columns, 3)`` red, green, blue, with nothing about the patient written on it.
    reading
        What was said of the image.
    content_datetime
        As for :func:`thoracle.report.sr.build`.
    instance_number
        Of the picture in its series.
    context_source
        The image whose patient and study are copied: the same for all objects of a result, so
        that they share a series.

    Raises
    ------
    ReportError
        The reading is of another image than the source.
    """
    if reading.sop_instance_uid != source.SOPInstanceUID:
        raise ReportError(
            f"reading: found SOP Instance UID {reading.sop_instance_uid}, "
            f"required: that of the source, {source.SOPInstanceUID}"
        )
    ds = header.base(Kind.SC, context_source, bundle, content_datetime, settings)
    ds.update(context.copied(context_source, ("RequestAttributesSequence",)))
    # The chest is no paired part, and where it is not named Laterality is due (PS3.3 C.7.3.1).
    ds.BodyPartExamined = "CHEST"
    ds.InstanceNumber = instance_number
    ds.ConversionType = "WSD"
    _add_image(ds, source, bundle)
    ds.ImageComments = f"{DISCLAIMER} {sentences.finding(reading, bundle)}"
    _add_pixel_description(ds, picture)
    header.identified(ds, context_source, SecondaryCaptureImageStorage)
    # Behind the walk over all attributes, because pixels are long to walk over.
    pixels = hashlib.sha256(picture.tobytes()).hexdigest()
    header.with_uid(ds, derived_uid("picture", ds.SOPInstanceUID, pixels))
    ds.compress(JPEGLSLossless, picture, encoding_plugin="pyjpegls", generate_instance_uid=False)
    return ds


def _add_image(ds: Dataset, source: Dataset, bundle: BundleIdentity) -> None:
    """Add General Image and SC Image (PS3.3 C.7.6.1, C.8.6.2): what was made of which image."""
    ds.ImageType = IMAGE_TYPE
    ds.PatientOrientation = None  # Type 2C: empty where the source does not know it
    # We burn in no annotation that identifies the patient; whether there was one, the source says.
    ds.update(context.copied(source, ("PatientOrientation", "BurnedInAnnotation")))
    ds.DerivationDescription = DERIVATION
    if (map_words := MAPS.get(bundle.finding.saliency)) is not None:
        ds.DerivationDescription += (
            f"; colours and outlines, where there are any, show {map_words.shows}"
        )
    ds.RecognizableVisualFeatures = "NO"
    ds.LossyImageCompression = "00"
    if source.get("LossyImageCompression") == "01":
        # Once lossy, always lossy (PS3.3 C.7.6.1.1.5).
        ds.LossyImageCompression = "01"
        keywords = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")
        ds.update(context.copied(source, keywords))
    image = Dataset()
    image.ReferencedSOPClassUID = source.SOPClassUID
    image.ReferencedSOPInstanceUID = source.SOPInstanceUID
    image.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(SOURCE_IMAGE)]
    ds.SourceImageSequence = [image]


def _add_pixel_description(ds: Dataset, picture: NDArray[np.uint8]) -> None:
    """Add Image Pixel (PS3.3 C.7.6.3) but for the pixels. Their spacing is not known any more."""
    ds.SamplesPerPixel = 3
    ds.PhotometricInterpretation = "RGB"
    ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = picture.shape[:2]
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelRepresentation = 0
