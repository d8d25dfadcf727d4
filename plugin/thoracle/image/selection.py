"""Which images are plain frontal chest radiographs, by their header alone.

Only a known contradiction refuses. What is missing, and what is not understood, refuses nothing:
the classifier's input gate looks at the picture itself, and the report says so.
"""

import re

from pydicom import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from thoracle.errors import NotAnalysable
from thoracle.image import attributes, image_pixel
from thoracle.image.anatomy import (
    Statement,
    Verdict,
    directions,
    plain,
    quoted,
    regions,
    values,
    views,
    words,
)
from thoracle.image.codecs import MALFORMED
from thoracle.records import Population, Reason
from thoracle.settings import Select

OWN_MANUFACTURER = "Thoracle"
"""Manufacturer (0008,0070) of everything that Thoracle makes: never analysed again."""
ASPECT = (0.6, 1.7)
"""Rows by columns of a chest radiograph."""
LEAST_BITS_STORED = 8
_INTENTS = ("FOR PRESENTATION", "FOR PROCESSING")
_RADIOGRAPHS = ("CR", "DX", "DR", "RG", "OT")
"""Modalities of radiographs. DR and RG are retired or misused, OT is digitised film."""

_OTHER_MODALITIES = frozenset(
    """
    ANN AR ASMT AU BDUS BI BMD CF CT CTPROTOCOL CFM DF DG DMS DS EC ECG EPS ES FA FID FS GM HC HD IO
    IVOCT IVUS KER KO LEN LP LS MA MG MR MS NM OAM OCT OP OPM OPR OPT OPTBSV OPTENF OPV OSS PLAN POS
    PR PT PX REG RESP RF RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT SEG SM SMR
    SR SRF ST STAIN TEXTUREMAP TG US VA VF XA XAPROTOCOL XC
    """.split()  # noqa: SIM905 - as a list it would take a line for each name
)
"""Defined terms of Modality that are no radiograph (PS3.3 C.7.3.1.1.1), retired ones too."""
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
    """Return when the header does not contradict an image that the bundle is meant for.

    Parameters
    ----------
    ds
        The data set as :func:`header.read` returns it; needs no pixel data.
    settings
        Least size, least age where it is not the bundle's, a site's own words, and whether raw
        data are analysed.
    population
        Whom the bundle is meant for.

    Raises
    ------
    NotAnalysable
        With the first contradiction. The detail says what was found and what is required;
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
        _check_body_part(ds, settings)
        _check_view(ds, settings, population)
        _check_samples(ds)
        _check_geometry(ds, settings)
        _check_age(ds, settings, population)
    except MALFORMED as error:  # of a data set that attributes.readable() has not seen
        detail = f"the header is malformed ({type(error).__name__})"
        raise NotAnalysable(Reason.UNDECODABLE, detail) from error


def limitations(ds: Dataset, settings: Select, population: Population) -> tuple[str, ...]:
    """Return sentences about an image that passed :func:`check`, for the report."""
    years, least = age_years(ds), population.least_age_years
    orientation = "\\".join(part[:1] for part in values(ds, "PatientOrientation"))
    region, view = list(regions(ds, settings)), list(views(ds, settings))
    sentences = {
        **_unsaid("body part", region),
        **_unsaid("view", view),
        "Antero-posterior view, as at the bedside: heart and mediastinum appear larger.": (
            "AP" in directions(ds)
        ),
        "The image may be stored mirrored or rotated (Patient Orientation is not L\\F).": (
            orientation not in ("", "L\\F")
        ),
        **_laterality(ds),
        "The patient's age is not stated.": years is None and not ds.get("PatientAge"),
        "The patient's age is not stated in a form that is known.": (
            years is None and bool(ds.get("PatientAge"))
        ),
        f"The patient is younger than {least} years, which the model is not meant for.": (
            years is not None and years < least
        ),
        "Secondary capture: how the image was acquired is not known.": (
            ds.get("SOPClassUID") in _SECONDARY_CAPTURE
        ),
        "Raw data (For Processing) without the display processing of the modality.": (
            _is_for_processing(ds)
        ),
        **_unknown(ds, "PresentationIntentType", "Presentation Intent Type", _INTENTS),
        **_unknown(ds, "Modality", "Modality", population.modalities),
    }
    return tuple(sentence for sentence, applies in sentences.items() if applies)


def _unsaid(what: str, statements: list[Statement]) -> dict[str, bool]:
    """Return a sentence where nothing is stated, and one for each value that is not understood."""
    unknown = [one for one in statements if one.verdict is Verdict.NOT_UNDERSTOOD]
    agrees = any(one.verdict is Verdict.AGREES for one in statements)
    found = {f"The {what} is not stated in the image.": not statements}
    for one in unknown:
        end = "another element states it" if agrees else "the pixels decide"
        found[f"The {what} is not stated in a term that is known: found {one.found}; {end}."] = True
    return found


def _laterality(ds: Dataset) -> dict[str, bool]:
    """Return a sentence where one side is stated: the chest is no paired part."""
    found = {}
    for keyword, name in (("ImageLaterality", "Image Laterality"), ("Laterality", "Laterality")):
        side = words(ds, keyword)
        sentence = f"{name}: found {quoted(side)}, a chest radiograph has none; the pixels decide."
        found[sentence] = side not in ("", "U", "B")
    return found


def _unknown(ds: Dataset, keyword: str, name: str, known: tuple[str, ...]) -> dict[str, bool]:
    """Return a sentence where an element states what is not known."""
    found = words(ds, keyword)
    sentence = f"{name}: found {quoted(found)}, which is not known; the pixels decide."
    return {sentence: bool(found) and found not in known}


def age_years(ds: Dataset) -> float | None:
    """Return the patient's age in years from Patient's Age or the dates; ``None`` if unknown."""
    text = attributes.text(ds, "PatientAge").upper()
    stated = re.fullmatch(r"(\d{1,3}) ?([DWMY])", text, re.ASCII)
    if stated:
        return int(stated[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[stated[2]]
    # With points: as ACR-NEMA wrote dates (PS3.5 Table 6.2-1, note of DA).
    dates = [
        attributes.text(ds, name).replace(".", "") for name in ("PatientBirthDate", "StudyDate")
    ]
    if not all(re.fullmatch(r"\d{8}", date, re.ASCII) for date in dates):
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
    if uid and uid not in _SOP_CLASSES:
        detail = f"found SOP class {quoted(uid.name)}, required: CR, DX or Secondary Capture"
        raise NotAnalysable(Reason.NOT_A_RADIOGRAPH, detail)
    modality = words(ds, "Modality")
    meant = population.modalities
    known = modality in _OTHER_MODALITIES or modality in _RADIOGRAPHS
    if known and modality not in meant:
        detail = f"found Modality {quoted(modality)}, required: one of {', '.join(meant)}"
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
        detail = "found Presentation Intent Type FOR PROCESSING, required: FOR PRESENTATION"
        raise NotAnalysable(Reason.FOR_PROCESSING, detail)


def _check_image_type(ds: Dataset) -> None:
    """Refuse localizers and what was computed from several images or by another program.

    DERIVED alone says nothing: modalities write it on every image they have sharpened.
    """
    for value in values(ds, "ImageType")[2:]:
        if _DERIVED.search(plain(value)):
            detail = f"found Image Type {quoted(value)}, required: a plain radiograph"
            raise NotAnalysable(Reason.DERIVED, detail)


def _check_body_part(ds: Dataset, settings: Select) -> None:
    """Refuse when an element states another region than the chest."""
    for one in regions(ds, settings):
        if one.verdict is Verdict.CONTRADICTS:
            raise NotAnalysable(Reason.NOT_CHEST, f"found {one.found}, required: the chest")


def _check_view(ds: Dataset, settings: Select, population: Population) -> None:
    """Refuse when an element states another view than a frontal one, or one not meant."""
    for one in views(ds, settings):
        if one.verdict is Verdict.CONTRADICTS:
            detail = f"found {one.found}, required: antero-posterior or postero-anterior"
            raise NotAnalysable(Reason.NOT_FRONTAL, detail)
    stated = directions(ds)
    if stated and not stated & set(population.views):
        found, meant = ", ".join(sorted(stated)), ", ".join(population.views)
        raise NotAnalysable(Reason.OTHER_VIEW, f"found the view {found}, required: {meant}")


def _check_samples(ds: Dataset) -> None:
    """Refuse colour images and those of few grey levels."""
    samples = int(ds.get("SamplesPerPixel") or 1)
    photometric = words(ds, "PhotometricInterpretation")
    if samples != 1 or photometric not in (*image_pixel.GREY, ""):
        detail = f"found {samples} samples per pixel, {quoted(photometric)}; required: 1, grey"
        raise NotAnalysable(Reason.NOT_A_RADIOGRAPH, detail)
    bits = int(ds.get("BitsStored") or LEAST_BITS_STORED)
    if bits < LEAST_BITS_STORED:
        detail = f"found {bits} bits stored, required: at least {LEAST_BITS_STORED}"
        raise NotAnalysable(Reason.NOT_A_RADIOGRAPH, detail)


def _check_geometry(ds: Dataset, settings: Select) -> None:
    """Refuse several frames, small images and those that are very high or wide."""
    frames = int(ds.get("NumberOfFrames") or 1)
    if frames != 1:
        raise NotAnalysable(Reason.GEOMETRY, f"found {frames} frames, required: 1")
    rows, columns = int(ds.get("Rows") or 0), int(ds.get("Columns") or 0)
    if not rows or not columns:
        raise NotAnalysable(Reason.NO_IMAGE, "found no rows or columns")
    least = settings.minimum_rows_columns
    if min(rows, columns) < least:
        detail = f"found {rows} x {columns} pixels, required: at least {least} x {least}"
        raise NotAnalysable(Reason.GEOMETRY, detail)
    lowest, highest = ASPECT
    if not lowest <= rows / columns <= highest:
        detail = f"found rows / columns {rows / columns:.2f}, required: {lowest} to {highest}"
        raise NotAnalysable(Reason.GEOMETRY, detail)


def _check_age(ds: Dataset, settings: Select, population: Population) -> None:
    """Refuse patients known to be younger than the settings say, else than the bundle's least."""
    years, least = age_years(ds), settings.minimum_age_years
    if least is None:
        least = population.least_age_years
    if years is not None and years < least:
        # The age found is the patient's data and stays out of the detail.
        detail = f"found a younger patient, required: {least} years"
        raise NotAnalysable(Reason.TOO_YOUNG, detail)
