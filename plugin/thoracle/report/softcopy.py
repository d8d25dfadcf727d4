"""The presentation state that outlines salient regions on the original image (PS3.3 A.33.1).

It says how the whole image is shown, so what the modality stated is repeated: a viewer applies the
transformations of the state alone, not those of the image (PS3.4 N.2).
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import numpy as np
from highdicom import pr
from highdicom.color import CIELabColor
from pydicom.dataset import Dataset
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage
from pydicom.valuerep import DSfloat

from thoracle.errors import ReportError
from thoracle.image import luts
from thoracle.records import BundleIdentity, Finding, Kind, Reading, Region
from thoracle.report import context, header, sentences
from thoracle.settings import Report as ReportSettings

COLOUR: Final = CIELabColor(80, 15, 75)
"""Amber: seen on black, grey and white alike."""
_LETTER: Final = 0.6
"""Width of a letter by its height, about."""
_LINE: Final = 1 / 40
"""Height of the text by that of the image."""


def is_greyscale(source: Dataset) -> bool:
    """Return whether a presentation state can be about the image: it is MONOCHROME1 or 2."""
    return source.get("PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2")


def build(
    source: Dataset,
    regions: Sequence[Region],
    reading: Reading,
    bundle: BundleIdentity,
    *,
    content_datetime: datetime,
    settings: ReportSettings,
    instance_number: int,
    context_source: Dataset,
) -> Dataset:
    """Return the Grayscale Softcopy Presentation State of an image and its regions.

    An image that states no VOI LUT or window is shown without one, as viewers show the original.

    Parameters
    ----------
    source
        The image, without pixel data; the state refers to it and to nothing else.
    regions
        Outlines in pixels of the source, one or more.
    reading
        What is said of the source; outcome and probability are written beside the regions.
    content_datetime
        As for :func:`thoracle.report.sr.build`.
    instance_number
        Of the state in its series.
    context_source
        The image whose patient and study are copied: the same for all objects of a result, so
        that they share a series.

    Raises
    ------
    ReportError
        There is no region, the reading is of another image, the image is in colour, or the time
        has no zone.
    """
    if not regions:
        raise ReportError("regions: found none, required: at least one")
    if reading.sop_instance_uid != source.SOPInstanceUID:
        raise ReportError(
            f"reading: found {reading.sop_instance_uid}, required: {source.SOPInstanceUID}"
        )
    if not is_greyscale(source):
        raise ReportError(
            f"PhotometricInterpretation: found {source.get('PhotometricInterpretation')}, "
            "required: MONOCHROME1 or MONOCHROME2"
        )
    state = header.base(Kind.PR, context_source, bundle, content_datetime, settings)
    # The chest is no paired part, and where it is not named Laterality is due (PS3.3 C.7.3.1).
    state.BodyPartExamined = "CHEST"
    label = sentences.label_on_image(reading, bundle.finding)
    layer = layer_of(bundle.finding)
    _add_identification(state, instance_number, layer, label)
    state.ReferencedSeriesSequence = [_series_reference(source)]
    _add_annotation(state, source, regions, layer, label)
    state.DisplayedAreaSelectionSequence = [_displayed_area(source)]
    state.update(_modality_lut(source))
    if voi := _voi_lut(source):
        state.SoftcopyVOILUTSequence = [voi]
    # P-values, not photometric interpretation, decide what is black (PS3.3 C.11.6.1): without
    # INVERSE a viewer would show a MONOCHROME1 image as a negative.
    inverse = source.PhotometricInterpretation == "MONOCHROME1"
    inverse |= source.get("PresentationLUTShape") == "INVERSE"
    state.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"
    return header.identified(state, context_source, GrayscaleSoftcopyPresentationStateStorage)


def layer_of(finding: Finding) -> str:
    """Return the name of the graphic layer, e.g. ``AI_PNEUMONIA``: a CS of 16 characters."""
    return f"AI_{re.sub('[^A-Z0-9]', '_', finding.short_name.upper())}"[:16]


def _add_identification(state: Dataset, instance_number: int, layer: str, label: str) -> None:
    """Add Presentation State Identification (PS3.3 C.11.10); Content Date is that of creation."""
    state.InstanceNumber = instance_number
    state.ContentLabel = layer
    state.ContentDescription = label
    state.ContentCreatorName = "Thoracle^AI"
    state.PresentationCreationDate = state.ContentDate
    state.PresentationCreationTime = state.ContentTime
    # These are of all other kinds of objects, but not of this one.
    del state.ContentDate
    del state.ContentTime


def _image_reference(source: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    return item


def _series_reference(source: Dataset) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = source.SeriesInstanceUID
    item.ReferencedImageSequence = [_image_reference(source)]
    return item


def _add_annotation(
    state: Dataset, source: Dataset, regions: Sequence[Region], name: str, text: str
) -> None:
    """Add Graphic Annotation and Graphic Layer (PS3.3 C.10.5, C.10.7)."""
    layer = pr.GraphicLayer(
        name, order=1, description="AI saliency, no finding of disease", display_color=COLOUR
    )
    outlines = [
        pr.GraphicObject(
            pr.GraphicTypeValues.POLYLINE,
            np.array(region.outline),
            pr.AnnotationUnitsValues.PIXEL,
        )
        for region in regions
    ]
    words = pr.TextObject(
        text,
        pr.AnnotationUnitsValues.PIXEL,
        bounding_box=text_box(len(text), regions, int(source.Rows), int(source.Columns)),
        text_justification=pr.TextJustificationValues.LEFT,
    )
    state.GraphicLayerSequence = [layer]
    state.GraphicAnnotationSequence = [
        pr.GraphicAnnotation([source], layer, graphic_objects=outlines, text_objects=[words])
    ]


def text_box(
    letters: int, regions: Sequence[Region], rows: int, columns: int
) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a line of text that covers no region, in pixels.

    It is below the regions where it fits, else above them, at the lower or at the upper edge;
    where regions are everywhere, at the lower edge.
    """
    corners = np.array([corner for region in regions for corner in region.outline])
    (left, top), (_, bottom) = corners.min(axis=0), corners.max(axis=0)
    height = max(1.0, rows * _LINE)
    width = min(float(columns), letters * height * _LETTER)
    start = float(min(left, columns - width))
    places = [bottom + height / 2, top - height * 1.5, rows - height, 0.0]
    free = (
        place
        for place in places
        if 0 <= place <= rows - height and (place >= bottom or place + height <= top)
    )
    upper = float(next(free, rows - height))
    return start, upper, start + width, upper + height


def _displayed_area(source: Dataset) -> Dataset:
    """Return the whole image (PS3.3 C.10.4); its spacing is the first that the source states."""
    area = Dataset()
    area.DisplayedAreaTopLeftHandCorner = [1, 1]
    area.DisplayedAreaBottomRightHandCorner = [int(source.Columns), int(source.Rows)]
    area.PresentationSizeMode = "SCALE TO FIT"
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        spacing = luts.numbers(source, keyword)
        if len(spacing) == 2 and min(spacing) > 0:
            area.PresentationPixelSpacing = source[keyword].value
            return area
    ratio = [int(number) for number in luts.numbers(source, "PixelAspectRatio")]
    area.PresentationPixelAspectRatio = ratio if len(ratio) == 2 and min(ratio) > 0 else [1, 1]
    return area


def _modality_lut(source: Dataset) -> Dataset:
    """Return the attributes of Modality LUT (PS3.3 C.11.1) as they take effect."""
    found = Dataset()
    table = luts.table(source, "ModalityLUTSequence")
    if table is not None:
        keywords = ("LUTDescriptor", "LUTExplanation", "ModalityLUTType", "LUTData")
        found.ModalityLUTSequence = [_lut(source, table, keywords)]
        return found
    found = context.copied(source, ("RescaleIntercept", "RescaleSlope", "RescaleType"))
    if found.get("RescaleIntercept") is None and found.get("RescaleSlope") is None:
        return Dataset()
    for keyword, default in (("RescaleIntercept", 0), ("RescaleSlope", 1), ("RescaleType", "US")):
        if not found.get(keyword) and (keyword != "RescaleIntercept" or found.get(keyword) is None):
            setattr(found, keyword, default)
    return found


def _voi_lut(source: Dataset) -> Dataset:
    """Return the VOI LUT or window (PS3.3 C.11.8) that the classifier saw, if there is any."""
    found = Dataset()
    table = luts.table(source, "VOILUTSequence")
    if table is not None:
        keywords = ("LUTDescriptor", "LUTExplanation", "LUTData")
        found.VOILUTSequence = [_lut(source, table, keywords)]
        return found
    window = luts.window(source)
    if window is not None:
        found.WindowCenter = DSfloat(window.center, auto_format=True)
        found.WindowWidth = DSfloat(window.width, auto_format=True)
        found.VOILUTFunction = window.function
    return found


def _lut(source: Dataset, table: luts.Table, keywords: Sequence[str]) -> Dataset:
    lut = context.copied(table.item, keywords)
    if table.repeated:  # what was shown, not what is missing
        lut.LUTData = table.entries.astype("<u2").tobytes()
        lut["LUTData"].VR = "OW"
    # Words of a big endian source: what we send is little endian.
    elif source.original_encoding[1] is False and isinstance(lut.LUTData, bytes):
        lut.LUTData = np.frombuffer(lut.LUTData, ">u2").astype("<u2").tobytes()
    return lut
