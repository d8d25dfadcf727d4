"""What a header states about body part and view, in codes, in defined terms, or in plain words."""

import re
import unicodedata
from collections.abc import Iterator

from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

Statement = tuple[bool, str]
"""Whether it is the chest, or a frontal view; and the element with its value, to be quoted."""

_CHEST_CODES = (
    codes.SCT.Chest,
    codes.SCT.ThoracicStructure,
    codes.SCT.ChestCavity,
    codes.SCT.Lung,
)
_FRONTAL_CODES = (
    codes.SCT.Frontal,
    codes.SCT.AnteroPosterior,
    codes.SCT.PosteroAnterior,
)
_SNOMED_RT = ("SNM3", "99SDM")  # designators of SRT before 2003 (PS3.16 Section 8.1)

# Patterns are searched in upper case without accents, where words are parted by one space.
_CHEST = re.compile(
    r"CHEST|CXR|THORAX|TORAX|TORACE|TORAKS|LUNG|PULMO|POUMON|BRUSTKORB|KLATKA PIERS"
    r"|\u80f8\u90e8|\u0413\u0420\u0423\u0414\u041d"  # Japanese and Chinese; Russian
)
_ELSEWHERE = re.compile(
    r"\b(RIBS?|RIBCAGE|STERN\w*|CLAVIC\w*|SHOULDERS?|SCAPULA|HUMER\w*|ARMS?|ELBOWS?|FOREARMS?"
    r"|WRISTS?|HANDS?|FINGERS?|THUMBS?|HIPS?|FEMUR|KNEES?|PATELLA|LEGS?|TIBIA|ANKLES?|FOOT|FEET"
    r"|HEEL|TOES?|EXTREMITY|SKULL|HEAD|BRAIN|SINUS\w*|FACE|FACIAL|JAW|MANDIBLE|TEETH|BREAST"
    r"|HEART|PELVI\w*|SACRUM|COCCYX|KUB|COLON|WHOLE ?BODY)\b|SPINE|ABD|NECK"
)
_UNSAID = re.compile(r"|UNKNOWN|UNDEFINED|UNSPECIFIED|NONE|NO|NA|N A|OTHERS?|MISC|DEFAULT|ANY|X+")
_FRONTAL = re.compile(r"\b(AP|PA|A P|P A|FRONTAL|FRONT)\b")
_NOT_FRONTAL = re.compile(
    r"LATERAL|OBLIQ|DECUB|LORDOT|AXIAL|TANGENT|SWIM"
    r"|\b(LAT|LLAT|RLAT|LL|RL|LLD|RLD|LLO|RLO|LAO|RAO|LPO|RPO|OBL|ML|LM)\b"
)


def regions(ds: Dataset) -> Iterator[Statement | None]:
    """Yield for each element that states a region whether it is the chest, and its words."""
    stated = False
    for code in codes_in(ds, "AnatomicRegionSequence"):
        stated = True
        yield code in _CHEST_CODES, f"Anatomic Region {quoted(code.value)}"
    text = words(ds, "BodyPartExamined")
    if not _UNSAID.fullmatch(text):
        chest = bool(_CHEST.search(text)) and not _ELSEWHERE.search(text)
        yield chest, f"Body Part Examined {quoted(text)}"
    elif not stated:
        yield _region_of_text(ds)


def _region_of_text(ds: Dataset) -> Statement | None:
    """Return what the first description says that names one region."""
    for keyword in ("ProtocolName", "SeriesDescription", "StudyDescription"):
        text = words(ds, keyword)
        chest, elsewhere = bool(_CHEST.search(text)), bool(_ELSEWHERE.search(text))
        if chest != elsewhere:
            # Free text is not quoted: names of patients have been seen in it.
            return chest, f"another body part in {keyword}"
    return None


def views(ds: Dataset) -> Iterator[Statement | None]:
    """Yield for each element that states a view whether it is frontal, and its words."""
    stated = False
    for code in codes_in(ds, "ViewCodeSequence"):
        stated = True
        yield code in _FRONTAL_CODES, f"View Code {quoted(code.value)}"
    text = words(ds, "ViewPosition")
    if _FRONTAL.search(text) or _NOT_FRONTAL.search(text):
        stated = True
        yield not _NOT_FRONTAL.search(text), f"View Position {quoted(text)}"
    letters = {part[:1] for part in values(ds, "PatientOrientation")}
    if letters & set("AP"):
        yield False, "Patient Orientation " + quoted("\\".join(values(ds, "PatientOrientation")))
    elif letters & set("LR") and letters & set("HF"):
        yield True, "Patient Orientation"
    elif not stated:
        yield _view_of_text(ds)


def _view_of_text(ds: Dataset) -> Statement | None:
    """Return what the first description of the series says that names one kind of view.

    Study Description is of no use: "Chest PA and lateral" stands on both images.
    """
    for keyword in ("ProtocolName", "SeriesDescription"):
        text = words(ds, keyword)
        frontal, other = bool(_FRONTAL.search(text)), bool(_NOT_FRONTAL.search(text))
        if frontal != other:
            return frontal, f"another view in {keyword}"
    return None


def codes_in(ds: Dataset, keyword: str) -> list[Code]:
    """Return the codes of a code sequence; ``Code`` knows SNOMED RT as well as CT."""
    found = []
    for item in ds.get(keyword) or []:
        scheme = words(item, "CodingSchemeDesignator")
        scheme = "SRT" if scheme in _SNOMED_RT else scheme
        found.append(Code(str(item.get("CodeValue") or "").strip(), scheme, ""))
    return [code for code in found if code.value]


def values(ds: Dataset, keyword: str) -> list[str]:
    """Return the values of an element in upper case."""
    value = ds.get(keyword)
    several = [value] if value is None or isinstance(value, str) else list(value)
    return [str(one).strip().upper() for one in several if one]


def words(ds: Dataset, keyword: str) -> str:
    """Return the values of an element as plain words."""
    return plain(" ".join(values(ds, keyword)))


def plain(text: str) -> str:
    """Return text in upper case, without accents, with one space for whatever parts words."""
    letters = unicodedata.normalize("NFKD", text.upper())
    kept = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return re.sub(r"[\W_]+", " ", kept).strip()


def quoted(text: str) -> str:
    """Return text from a header so that it can neither flood nor forge a line of a log."""
    return repr(text[:40])
