"""What a header states about body part and view: that it agrees, that it contradicts, or neither.

A word or a code that is not known contradicts nothing: then the pixels decide, and the report says
so.
"""

import re
import unicodedata
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from pydicom import Dataset

from thoracle.image.attributes import LONGEST_QUOTE
from thoracle.settings import Select

# ---- terms ---------------------------------------------------------------------------------------
# What codes and words mean: the chest or another region, a frontal view or another one.
#
# The tables are our own. pydicom has one SNOMED-RT code for each concept, while images have all
# that the standard ever had. A code or a word that is in no table says nothing.
#
# References
# ----------
# PS3.16 CID 4009 DX Anatomy Imaged, CID 4010 DX View, CID 4031 Common Anatomic Regions, in their
# editions with SNOMED-RT (SRT) and SNOMED-CT (SCT); RadLex; PS3.3 C.7.3.1 and Annex L of PS3.16 for
# Body Part Examined.

SCHEMES = {"SNM3": "SRT", "99SDM": "SRT", "SNM": "SRT", "RADLEX": "RADLEX", "RDLX": "RADLEX"}
"""Older and other designators of a coding scheme (PS3.16 Section 8.1)."""


def _codes(scheme: str, values: str) -> frozenset[tuple[str, str]]:
    return frozenset((scheme, value) for value in values.split())


CHEST_CODES = (
    # Chest (the term of today and that of before 2019), chest cavity, lung, both lungs
    _codes("SCT", "816094009 51185008 43799004 39607008 74101002")
    | _codes("SRT", "T-D3000 T-D3200 T-28000 T-28080")
    | _codes("RADLEX", "RID1243 RID1301")
)
OTHER_REGION_CODES = (
    _codes(
        "SCT",
        """
        661005 774007 955009 2095001 4596009 7569003 7844006 12921003 13648007 13881006 14742008
        14975008 15776009 16953009 16982005 21306003 22356005 24136001 27949001 28231008 28273000
        29707007 29836001 30021000 30315005 30608006 32849002 34402009 34516001 34707002 38266002
        38848004 39723000 40983000 41216001 42575006 44567001 45048000 45289007 51299004 53120007
        53505006 53620006 54019009 54735007 55024004 56459004 56873002 58742003 59066005 61685007
        64234005 64688005 66019005 68367000 69536005 69695003 69930009 70258002 70925003 71341001
        71854001 72001000 72410000 72696002 74386004 74670003 76505004 76752008 79601000 79741001
        80144004 80891009 81745001 85050009 85562004 85856004 86598002 87342007 87953007 89546000
        89837001 91397008 91609006 102292000 110517009 110621006 110639002 110861005 113197003
        113345001 122494005 122495006 122496007 297171002 297172009 297173004 303270005 361078006
        363654007 371195002 371398005 416152001 416319003 416550000 416631005 416775004 416949008
        417437006 421060004 431491007 706342009 816092008 818981001 818982008 1217253001
        1217254007 1217256009 1217257000 1231522001
        """,
    )
    | _codes(
        "SRT",
        """
        R-FAB52 R-FAB53 R-FAB54 R-FAB55 R-FAB56 R-FAB57 R-FAB58 R-FE0C7 T-04000 T-11011 T-11100
        T-11102 T-11133 T-11149 T-11166 T-11167 T-11170 T-11180 T-11196 T-11210 T-11300 T-11501
        T-11502 T-11503 T-11AD0 T-11BF0 T-12280 T-12310 T-12340 T-12402 T-12410 T-12700 T-12710
        T-12730 T-12750 T-12770 T-12980 T-13600 T-14668 T-15290 T-15420 T-15430 T-15460 T-15610
        T-15680 T-15710 T-15750 T-15770 T-22000 T-24100 T-25000 T-26000 T-280A0 T-32000 T-50007
        T-56000 T-57000 T-58000 T-58200 T-58400 T-58600 T-59000 T-59300 T-59600 T-59900 T-60600
        T-60610 T-61100 T-61300 T-63000 T-64500 T-65000 T-65010 T-65600 T-7000B T-70010 T-73000
        T-73800 T-74000 T-75000 T-88920 T-92000 T-9200B T-AA000 T-AB959 T-D0010 T-D00F7 T-D00F8
        T-D00F9 T-D0146 T-D0300 T-D04FF T-D0801 T-D0821 T-D1000 T-D1100 T-D1213 T-D1460 T-D14AE
        T-D1600 T-D2220 T-D2500 T-D3300 T-D4000 T-D6000 T-D8000 T-D8200 T-D8300 T-D8500 T-D8700
        T-D8800 T-D8810 T-D9000 T-D9100 T-D9200 T-D9400 T-D9700 T-D9800 T-DD163
        """,
    )
    | _codes("RADLEX", "RID56 RID9080 RID39518")  # abdomen, head, shoulder
)
AP_CODES = (
    _codes("SCT", "399348003") | _codes("SRT", "R-10206") | _codes("RADLEX", "RID43583 RID50125")
)
PA_CODES = (
    _codes("SCT", "272479007")
    | _codes("SRT", "R-10214 R-40888")  # CID 4010 has had both
    | _codes("RADLEX", "RID43594 RID50118")
)
FRONTAL_CODES = (
    AP_CODES
    | PA_CODES
    | _codes("SCT", "399033003")
    | _codes("SRT", "R-10202")
    | _codes("RADLEX", "RID10521")
)
OTHER_VIEW_CODES = (
    _codes(
        "SCT",
        """
        30730003 119376003 260426006 260427002 260499007 399004004 399006002 399038007 399059000
        399061009 399067008 399071006 399099002 399110001 399132005 399135007 399160007 399162004
        399173006 399182000 399184004 399196006 399198007 399225005 399236003 399242004 399255003
        399260004 399272005 399288005 399312000 399316002 399325008 399335002 399351005 399352003
        399356000 399360002 399368009 410467002
        """,
    )
    | _codes(
        "SRT",
        """
        G-8300 G-A145 R-10204 R-10208 R-10210 R-10212 R-10216 R-10218 R-10220 R-10222 R-10224
        R-10226 R-10228 R-10230 R-10232 R-10234 R-10236 R-10238 R-10241 R-10242 R-10244 R-10246
        R-10248 R-10250 R-10252 R-10254 R-10256 R-10257 R-102C1 R-102C2 R-102C3 R-102C4 R-102C5
        R-102C6 R-102C7 R-102C8 R-102CD R-40782 R-40783 R-40810 R-40985
        """,
    )
    # Decubitus, lordotic, lateral, oblique, swimmer's and tangential views
    | _codes(
        "RADLEX",
        """
        RID10424 RID10425 RID10439 RID43584 RID43591 RID43593 RID43596 RID45661 RID45663 RID45780
        RID45781 RID45782 RID45795 RID50106 RID50113 RID50114 RID50120 RID50121 RID50124 RID50126
        RID50386
        """,
    )
)

_STROKES = str.maketrans("\u0141\u00d8\u0110\u0131", "LODI")
"""Letters with a stroke, which no normalisation takes off, and the i without a dot."""


def plain(text: str) -> str:
    """Return text in upper case, without accents, with one space for whatever parts words."""
    letters = unicodedata.normalize("NFKD", text.upper()).translate(_STROKES)
    kept = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return re.sub(r"[\W_]+", " ", kept).strip()


def _pattern(whole: str, parts: str) -> re.Pattern[str]:
    """Return a pattern of words by themselves, and of what may be a part of a word."""
    by_itself = "|".join(re.escape(plain(one.replace("_", " "))) for one in whole.split())
    within = "|".join(re.escape(plain(one.replace("_", " "))) for one in parts.split())
    return re.compile(rf"\b(?:{by_itself})\b|{within}")


# Words with a blank in them have a low line here. Scripts without blanks are searched as parts.
CHEST_WORDS = _pattern(
    """
    BRUST BORST BORSTKAS BRYST BRYSTKASSE BROST BROSTKORG BRJOST POITRINE PECHO PEITO PETTO
    PULMON PULMONES PULMAO PULMOES POLMONE POLMONI PLAMAN PLAMANI KLP PLUCA PLUCNI PLICE HRUD
    HRUDNIK HRUDNI HRUDNIKA GRUDNI_KOS PRSNI_KOS PLJUCA MELLKAS TUDO GOGUS GOGUS_KAFESI AKCIGER
    RINTA RINTAKEHA KEUHKO KEUHKOT RINDKERE KRUTINE PLAUCIAI KRUSKURVIS PLAUSAS LUNGE LUNGEN
    LUNGOR LONGEN DADA PARU NGUC PHOI LONGFOTO OGK ОГК CHST CXR THX
    """,
    """
    CHEST THORAX TORAX TORAACS THORAKS TORAKS TORACE TORACIC_CAGE THORACIC_CAGE CAGE_THORACIQUE
    LUNGS LUNG PULMO POUMON BRUSTKORB KLATKA_PIERS CAJA_TORACICA CAIXA_TORACICA GABBIA_TORACICA
    胸部 胸 가슴 흉부 ГРУДН
    ГРУДЬ ЛЕГКИЕ ЛЕГЕН
    θωρακ صدر سینه חזה
    בית_החזה ทรวงอก छाती
    """,
)
OTHER_REGION_WORDS = _pattern(
    """
    RIB RIBS RIBCAGE RIPPEN COTES COSTILLAS COSTELAS STERN STERNUM ESTERNON CLAVICLE
    CLAVICLES CLAVICULA KLAVIKULA SCHLUESSELBEIN SCHLUSSELBEIN SHOULDER SHOULDERS SCHULTER SCHOUDER
    EPAULE HOMBRO OMBRO SPALLA SCAPULA SCHULTERBLATT HUMERUS HUMERI HUMERO OBERARM ARM ARMS ELBOW
    ELBOWS ELLENBOGEN COUDE CODO COTOVELO GOMITO FOREARM FOREARMS UNTERARM AVANT_BRAS ANTEBRAZO
    WRIST WRISTS HANDGELENK POIGNET MUNECA PUNHO POLSO HAND HANDS MANO FINGER FINGERS THUMB THUMBS
    DAUMEN HIP HIPS HUFTE HUEFTE HEUP HANCHE CADERA QUADRIL ANCA FEMUR OBERSCHENKEL KNEE KNEES KNIE
    GENOU GENOUX RODILLA JOELHO GINOCCHIO PATELLA LEG LEGS TIBIA UNTERSCHENKEL ANKLE ANKLES
    SPRUNGGELENK ENKEL CHEVILLE TOBILLO TORNOZELO CAVIGLIA FOOT FEET FUSS VOET PIED PIEDE HEEL
    CALCANEUS TOE TOES ZEH EXTREMITY EXTREMITIES SKULL SCHADEL SCHAEDEL SCHEDEL CRANE CRANEO CRANIO
    HEAD KOPF BRAIN SINUS SINUSES FACIAL JAW MANDIBLE KIEFER TEETH ZAHN ORBIT ORBITS NOSE
    BREAST MAMMA HEART HERZ PELVIS BECKEN BEKKEN BASSIN BACINO BACIA SACRUM COCCYX KUB COLON
    WHOLE_BODY WHOLEBODY HWS BWS LWS RACHIS COLUMNA COLUNA COLONNA KOLANO STOPA MIEDNICA
    KREGOSLUP CZASZKA BRZUCH BUIK BAUCH OMUZ KALCA ABD ABDO 手 足
    """,
    """
    SPINE SPINAL ABDOM ABDPEL NECK WIRBEL WERVEL 胸椎 胸骨 腹 膝 骨盤 頭部 头部 肝
    脚 足部 足趾 足関節 左足 右足 双足 両足 肩 手部 手腕 手指 手関節 左手 右手 双手 両手
    복부 무릎 ЖИВОТ КОЛЕН ПОЗВОН ЧЕРЕП
    """,
)
ORGANS = _pattern(
    """
    ANCA BRAIN BREAST COLON HEAD HEART HERZ MAMMA NECK NOSE ORBIT ORBITS SINUS SINUSES TEETH ZAHN
    """,
    "NECK 肝",
)
"""Words of the above that descriptions have for an illness, too: "breast cancer, follow-up"."""
COMBINED_REGIONS = frozenset(
    """
    CHESTABDOMEN CHESTABDPELVIS NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV THORAXABDOMEN
    """.split()  # noqa: SIM905 - as the tables above
)
"""Defined terms (PS3.16 Annex L) of regions of which the chest is only a part."""
UNSAID = re.compile(
    r"|UNKNOWN|UNK|UNDEFINED|UNSPECIFIED|NONE|NO|NA|N A|OTHERS?|MISC|MISCELLANEOUS|DEFAULT|ANY|X+"
    r"|STANDARD|GENERAL|BODY"
)
AP_WORDS = re.compile(r"\b(AP|A P|ANTEROPOSTERIOR|ANTERO POSTERIOR|VENTRODORSAL|VD)\b")
PA_WORDS = re.compile(r"\b(PA|P A|POSTEROANTERIOR|POSTERO ANTERIOR|DORSOVENTRAL|DV)\b")
FRONTAL_WORDS = _pattern(
    """
    AP PA A_P P_A FRONTAL FRONT FRENTE FACE DE_FACE FRONTALE POSTEROANTERIOR POSTERO_ANTERIOR
    ANTEROPOSTERIOR ANTERO_POSTERIOR VENTRODORSAL DORSOVENTRAL VD DV PREDOZADNI ZADOPREDNI
    PRZEDNIO_TYLNE TYLNO_PRZEDNIE ON_ARKA ARKA_ON
    """,
    """
    正面 正位 后前位 前后位 後前 前後 정면
    ПРЯМ
    """,
)
LATERAL_WORDS = _pattern(
    """
    LAT LLAT RLAT LL RL LLD RLD SEITLICH SEITL PROFIL PERFIL PROFILO LATERALE LATERALNE BOCZNE
    BOCZNA BOCNI BOCNY BOCNA YAN ZIJ ZIJWAARTS
    """,
    "LATERAL 側面 侧位 侧面 측면 БОКОВ",
)
OTHER_VIEW_WORDS = _pattern(
    "LLO RLO LAO RAO LPO RPO OBL ML LM SCHRAG SCHRAEG OBLIQUA SKOSNE SIKMA KOSO",
    """
    OBLIQ OBLICU DECUB LORDOT AXIAL TANGENT SWIM 斜位 사위 КОСАЯ
    """,
)
"""Views that remain what they are where AP or PA stands beside them."""


# ---- statements ----------------------------------------------------------------------------------


class Verdict(Enum):
    """How a statement stands to what is required."""

    AGREES = "agrees"
    CONTRADICTS = "contradicts"
    NOT_UNDERSTOOD = "not understood"


class Statement(NamedTuple):
    """What one element of a header says."""

    verdict: Verdict
    element: str
    """Its name."""
    value: str = ""
    """What it says, to be quoted; empty where it may name a patient."""

    @property
    def found(self) -> str:
        """Element and value in words."""
        if self.value:
            return f"{self.element} {quoted(self.value)}"
        return f"another value in {self.element}"


def regions(ds: Dataset, settings: Select) -> Iterator[Statement]:
    """Yield what each element that states a region says of the chest."""
    own = _Own(settings.chest_words, settings.other_region_words)
    stated = False
    for code in codes_in(ds, "AnatomicRegionSequence"):
        stated = True
        verdict = own.of_code(code) or _of_code(code, CHEST_CODES, OTHER_REGION_CODES)
        yield Statement(verdict, "Anatomic Region", "^".join(code[::-1]))
    text = words(ds, "BodyPartExamined")
    verdict_of_words = own.of_words(text)
    if verdict_of_words is None and not UNSAID.fullmatch(text):
        verdict_of_words = _of_region_words(text)
    if verdict_of_words is not None:
        yield Statement(verdict_of_words, "Body Part Examined", text)
    elif not stated:
        yield from _region_of_text(ds, own)


def _of_region_words(text: str) -> Verdict:
    if text.replace(" ", "") in COMBINED_REGIONS:
        return Verdict.CONTRADICTS
    chest = bool(CHEST_WORDS.search(text))
    return _either(chest, bool(OTHER_REGION_WORDS.search(text)))


def _region_of_text(ds: Dataset, own: "_Own") -> Iterator[Statement]:
    """Yield what the first description says that names one region."""
    for keyword in ("ProtocolName", "SeriesDescription", "StudyDescription"):
        text = words(ds, keyword)
        # An organ in free text may be what the patient has, and not what the picture is of.
        verdict = own.of_words(text) or _of_region_words(ORGANS.sub(" ", text))
        if verdict is not Verdict.NOT_UNDERSTOOD:
            # Free text is not quoted: names of patients have been seen in it.
            yield Statement(verdict, keyword)
            return


def views(ds: Dataset, settings: Select) -> Iterator[Statement]:
    """Yield what each element that states a view says of a frontal one."""
    own = _Own(settings.frontal_words, settings.other_view_words)
    stated = False
    for code in codes_in(ds, "ViewCodeSequence"):
        stated = True
        verdict = own.of_code(code) or _of_code(code, FRONTAL_CODES, OTHER_VIEW_CODES)
        yield Statement(verdict, "View Code", "^".join(code[::-1]))
    text = words(ds, "ViewPosition")
    if own.of_words(text) or not UNSAID.fullmatch(text):
        verdict = own.of_words(text) or _of_view_words(text)
        stated |= verdict is not Verdict.NOT_UNDERSTOOD
        yield Statement(verdict, "View Position", text)
    orientation = values(ds, "PatientOrientation")
    if any(orientation):
        verdict = _of_orientation(orientation)
        stated |= verdict is not Verdict.NOT_UNDERSTOOD
        yield Statement(verdict, "Patient Orientation", "\\".join(orientation))
    if not stated:
        yield from _view_of_text(ds, own)


def _of_view_words(text: str) -> Verdict:
    if OTHER_VIEW_WORDS.search(text):
        return Verdict.CONTRADICTS
    frontal = bool(FRONTAL_WORDS.search(text))
    return _either(frontal, bool(LATERAL_WORDS.search(text)))


def _of_orientation(orientation: list[str]) -> Verdict:
    """Return what the directions of rows and columns say (PS3.3 Section C.7.6.1.1.1)."""
    letters = {part[:1] for part in orientation}
    if len(orientation) != 2 or not letters <= set("LRAPHF"):
        return Verdict.NOT_UNDERSTOOD
    if letters & set("AP"):
        return Verdict.CONTRADICTS
    return _either(bool(letters & set("LR") and letters & set("HF")), False)


def _view_of_text(ds: Dataset, own: "_Own") -> Iterator[Statement]:
    """Yield what the first description of the series says that names one kind of view.

    Study Description is of no use: "Chest PA and lateral" stands on both images.
    """
    for keyword in ("ProtocolName", "SeriesDescription"):
        text = words(ds, keyword)
        verdict = own.of_words(text) or _of_view_words(text)
        if verdict is not Verdict.NOT_UNDERSTOOD:
            yield Statement(verdict, keyword)
            return


def directions(ds: Dataset) -> set[str]:
    """Return which of ``AP`` and ``PA`` the header states; both when elements disagree."""
    text, coded = words(ds, "ViewPosition"), codes_in(ds, "ViewCodeSequence")
    return {
        name
        for name, codes, pattern in (
            ("AP", AP_CODES, AP_WORDS),
            ("PA", PA_CODES, PA_WORDS),
        )
        if pattern.search(text) or any(code in codes for code in coded)
    }


class _Own(NamedTuple):
    """A site's own words for what agrees and for what contradicts: they come first."""

    agreeing: tuple[str, ...]
    contradicting: tuple[str, ...]

    def of_words(self, text: str) -> Verdict | None:
        for verdict, own in self._pairs():
            if text and text in {plain(one) for one in own if "^" not in one}:
                return verdict
        return None

    def of_code(self, code: tuple[str, str]) -> Verdict | None:
        for verdict, own in self._pairs():
            if code in {_code(*one.split("^", 1)) for one in own if "^" in one}:
                return verdict
        return None

    def _pairs(self) -> tuple[tuple[Verdict, tuple[str, ...]], ...]:
        return (Verdict.AGREES, self.agreeing), (Verdict.CONTRADICTS, self.contradicting)


def _either(agrees: bool, contradicts: bool) -> Verdict:
    if agrees == contradicts:
        return Verdict.NOT_UNDERSTOOD
    return Verdict.AGREES if agrees else Verdict.CONTRADICTS


def _of_code(
    code: tuple[str, str],
    agreeing: frozenset[tuple[str, str]],
    contradicting: frozenset[tuple[str, str]],
) -> Verdict:
    return _either(code in agreeing, code in contradicting)


def _code(value: str, scheme: str) -> tuple[str, str]:
    """Return scheme and value of a code, the scheme by the name it has in the tables."""
    designator = scheme.strip().upper()
    return SCHEMES.get(designator, designator), value.strip()


def codes_in(ds: Dataset, keyword: str) -> list[tuple[str, str]]:
    """Return scheme and value of each code of a code sequence that has a value."""
    found = []
    for item in ds.get(keyword) or []:
        several = (item.get(name) for name in ("CodeValue", "LongCodeValue", "URNCodeValue"))
        value = next(filter(None, several), "")
        found.append(_code(str(value), str(item.get("CodingSchemeDesignator") or "")))
    return [code for code in found if code[1]]


def values(ds: Dataset, keyword: str) -> list[str]:
    """Return the values of an element in upper case."""
    value = ds.get(keyword)
    several = [value] if value is None or isinstance(value, str) else list(value)
    return [str(one).strip().upper() for one in several if one]


def words(ds: Dataset, keyword: str) -> str:
    """Return the values of an element as plain words."""
    return plain(" ".join(values(ds, keyword)))


def quoted(text: str) -> str:
    """Return text from a header so that it can neither flood nor forge a line of a log."""
    return repr(text[:LONGEST_QUOTE])
