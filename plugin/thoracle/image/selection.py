"""Which images are plain frontal chest radiographs, by their header alone.

What is missing refuses nothing: the classifier's input gate looks at the picture itself. What is
stated must agree: each element that says something has to say "chest" and "frontal".
"""

import re

from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from thoracle.errors import NotAnalysable
from thoracle.image.anatomy import codes_in, plain, quoted, regions, values, views, words
from thoracle.image.codecs import MALFORMED
from thoracle.records import Population, Reason
from thoracle.settings import Select

OWN_MANUFACTURER = "Thoracle"
"""Manufacturer (0008,0070) of everything that Thoracle makes: never analysed again."""
ASPECT = (0.6, 1.7)
"""Rows by columns of a chest radiograph."""
LEAST_BITS_STORED = 8

_SECONDARY_CAPTURE = (
    SecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)
_SOP_CLASSES = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    *_SECONDARY_CAPTURE,
)
_DERIVED = re.compile(
    r"LOCALI[SZ]ER|SCOUT|STITCH|COMPOS|JOINED|SUBTRACT|SUPPRESS|BONE|SOFT ?TISSUE|DUAL ?ENERGY"
    r"|TOMO|\b(SUB|DSA|DES|CAD|AI|MIP|HEATMAP)\b"
)


def check(ds: Dataset, settings: Select, population: Population) -> None:
    """Return when the header does not speak against an image that the bundle is meant for.

    Parameters
    ----------
    ds
        The data set; needs no pixel data.
    settings
        Least size, least age where it is not the bundle's, and whether raw data are analysed.
    population
        Whom the bundle is meant for.

    Raises
    ------
    NotAnalysable
        With the first reason against it. The detail says what was found and what is required;
        it never quotes an element that may identify the patient.

    References
    ----------
    PS3.3 C.7.1.1, C.7.6.1, C.7.6.3, C.8.1.1, C.8.11.1, C.8.11.2, C.8.11.5; PS3.16 CID 4010.
    """
    try:
        check_not_ours(ds)
        _check_modality(ds, population)
        _check_intent(ds, settings)
        _check_image_type(ds)
        _check_body_part(ds)
        _check_view(ds, population)
        _check_samples(ds)
        _check_geometry(ds, settings)
        _check_age(ds, settings, population)
    except MALFORMED as error:
        detail = f"the header is malformed ({type(error).__name__})"
        raise NotAnalysable(Reason.UNDECODABLE, detail) from error


def limitations(ds: Dataset, population: Population) -> tuple[str, ...]:
    """Return sentences about an image that passed :func:`check`, for the report."""
    years, least = age_years(ds), population.least_age_years
    orientation = "\\".join(part[:1] for part in values(ds, "PatientOrientation"))
    sentences = {
        "The body part is not stated in the image.": not any(regions(ds)),
        "The view is not stated in the image.": not any(views(ds)),
        "Antero-posterior view, as at the bedside: heart and mediastinum appear larger.": (
            bool(re.search(r"\b(AP|A P)\b", words(ds, "ViewPosition")))
            or codes.SCT.AnteroPosterior in codes_in(ds, "ViewCodeSequence")
        ),
        "The image may be stored mirrored or rotated (Patient Orientation is not L\\F).": (
            orientation not in ("", "L\\F")
        ),
        "The patient's age is not stated.": years is None,
        f"The patient is younger than {least} years, which the model is not meant for.": (
            years is not None and years < least
        ),
        "Secondary capture: how the image was acquired is not known.": (
            ds.get("SOPClassUID") in _SECONDARY_CAPTURE
        ),
        "Raw data (For Processing) without the display processing of the modality.": (
            _is_for_processing(ds)
        ),
    }
    return tuple(sentence for sentence, applies in sentences.items() if applies)


def age_years(ds: Dataset) -> float | None:
    """Return the patient's age in years from Patient's Age or the dates; ``None`` if unknown."""
    stated = re.fullmatch(r"(\d{1,3})([DWMY])", str(ds.get("PatientAge") or "").strip().upper())
    if stated:
        return int(stated[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[stated[2]]
    dates = [str(ds.get(name) or "") for name in ("PatientBirthDate", "StudyDate")]
    if not all(re.fullmatch(r"\d{8}", date) for date in dates):
        return None
    born, today = (int(date) for date in dates)
    # The difference of YYYYMMDD numbers, whole ten thousands, is the age in full years.
    years = (today - born) // 10000
    return years if 0 <= years <= 130 else None


def check_not_ours(ds: Dataset) -> None:
    """Refuse what Thoracle, or another program of its kind, made."""
    sources = [ds, *(ds.get("ContributingEquipmentSequence") or [])]
    if any(words(item, "Manufacturer") == OWN_MANUFACTURER.upper() for item in sources):
        raise NotAnalysable(Reason.OWN_OUTPUT, f"found equipment by {OWN_MANUFACTURER}")
    made = [value for value in values(ds, "ImageType") if value.startswith("AI_")]
    if made:
        raise NotAnalysable(Reason.OWN_OUTPUT, f"found Image Type {quoted(made[0])}")


def _check_modality(ds: Dataset, population: Population) -> None:
    """Refuse other SOP classes than those of radiographs, and modalities not meant."""
    uid = ds.get("SOPClassUID")
    if uid is not None and uid not in _SOP_CLASSES:
        detail = f"found SOP class {quoted(uid.name)}, required is CR, DX or Secondary Capture"
        raise NotAnalysable(Reason.NOT_A_RADIOGRAPH, detail)
    modality = words(ds, "Modality")
    meant = population.modalities
    if modality and modality not in meant:
        detail = f"found Modality {quoted(modality)}, required is one of {', '.join(meant)}"
        raise NotAnalysable(Reason.NOT_A_RADIOGRAPH, detail)


def _is_for_processing(ds: Dataset) -> bool:
    """Return whether the image is raw data (PS3.3 Section C.8.11.1)."""
    return (
        words(ds, "PresentationIntentType") == "FOR PROCESSING"
        or ds.get("SOPClassUID") == DigitalXRayImageStorageForProcessing
    )


def _check_intent(ds: Dataset, settings: Select) -> None:
    """Refuse raw data unless the settings allow them."""
    if _is_for_processing(ds) and not settings.for_processing:
        detail = "found Presentation Intent Type FOR PROCESSING, required is FOR PRESENTATION"
        raise NotAnalysable(Reason.FOR_PROCESSING, detail)


def _check_image_type(ds: Dataset) -> None:
    """Refuse localizers and what was computed from several images or by another program.

    DERIVED alone says nothing: modalities write it on every image they have sharpened.
    """
    for value in values(ds, "ImageType")[2:]:
        if _DERIVED.search(plain(value)):
            detail = f"found Image Type {quoted(value)}, required is a plain radiograph"
            raise NotAnalysable(Reason.DERIVED, detail)


def _check_body_part(ds: Dataset) -> None:
    """Refuse when an element states another region than the chest."""
    for chest, found in filter(None, regions(ds)):
        if not chest:
            detail = f"found {found}, required is the chest"
            raise NotAnalysable(Reason.NOT_CHEST, detail)


def _check_view(ds: Dataset, population: Population) -> None:
    """Refuse when an element states another view than a frontal one, or one not meant."""
    for frontal, found in filter(None, views(ds)):
        if not frontal:
            detail = f"found {found}, required is antero-posterior or postero-anterior"
            raise NotAnalysable(Reason.NOT_FRONTAL, detail)
    stated = set(words(ds, "ViewPosition").split()) & {"AP", "PA"}
    if stated and not stated & set(population.views):
        found, meant = ", ".join(sorted(stated)), ", ".join(population.views)
        raise NotAnalysable(Reason.OTHER_VIEW, f"found View Position {found}, required is {meant}")


def _check_samples(ds: Dataset) -> None:
    """Refuse colour images and those of few grey levels."""
    samples = int(ds.get("SamplesPerPixel") or 1)
    photometric = words(ds, "PhotometricInterpretation")
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2", ""):
        detail = f"found {samples} samples per pixel, {quoted(photometric)}; required is 1, grey"
        raise NotAnalysable(Reason.NOT_A_RADIOGRAPH, detail)
    bits = int(ds.get("BitsStored") or LEAST_BITS_STORED)
    if bits < LEAST_BITS_STORED:
        detail = f"found {bits} bits stored, required are at least {LEAST_BITS_STORED}"
        raise NotAnalysable(Reason.NOT_A_RADIOGRAPH, detail)


def _check_geometry(ds: Dataset, settings: Select) -> None:
    """Refuse several frames, small images and those that are very high or wide."""
    frames = int(ds.get("NumberOfFrames") or 1)
    if frames != 1:
        raise NotAnalysable(Reason.GEOMETRY, f"found {frames} frames, required is 1")
    rows, columns = int(ds.get("Rows") or 0), int(ds.get("Columns") or 0)
    if not rows or not columns:
        raise NotAnalysable(Reason.NO_IMAGE, "found no rows or columns")
    least = settings.minimum_rows_columns
    if min(rows, columns) < least:
        detail = f"found {rows} x {columns} pixels, required are at least {least} x {least}"
        raise NotAnalysable(Reason.GEOMETRY, detail)
    lowest, highest = ASPECT
    if not lowest <= rows / columns <= highest:
        detail = f"found rows / columns {rows / columns:.2f}, required is {lowest} to {highest}"
        raise NotAnalysable(Reason.GEOMETRY, detail)


def _check_age(ds: Dataset, settings: Select, population: Population) -> None:
    """Refuse patients known to be younger than the settings say, else than the bundle's least."""
    years, least = age_years(ds), settings.minimum_age_years
    if least is None:
        least = population.least_age_years
    if years is not None and years < least:
        # The age found is the patient's data and stays out of the detail.
        detail = f"found a younger patient, required are {least} years"
        raise NotAnalysable(Reason.TOO_YOUNG, detail)
