"""Coded concepts of the reports: each is named once, here, and nowhere spelled as text.

Codes that pydicom knows are taken from it (generated from PS3.16); the others are written out,
with the reason why pydicom has none.
"""

from typing import Final

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as Concept

from thoracle import records


def concept(code: records.Code) -> Concept:
    """Return a code of our records in the form that pydicom and highdicom take."""
    return Concept(code.value, code.scheme, code.meaning)


def item(code: Concept) -> Dataset:
    """Return a code as the item of a code sequence (PS3.3 Section 8.8)."""
    coded = Dataset()
    coded.CodeValue, coded.CodingSchemeDesignator, coded.CodeMeaning = code[:3]
    return coded


# In the reports that are not of CID 100, which has no radiography of the chest.
PLAIN_XRAY_OF_CHEST: Final = Concept("399208008", "SCT", "Plain X-ray of chest")
IMAGING_PROCEDURE: Final = codes.cid100.ImagingProcedure
TARGET_REGION: Final = codes.DCM.TargetRegion
CHEST: Final = codes.cid4031.Chest
LUNG: Final = Concept("39607008", "SCT", "Lung")

PROBABILITY: Final = codes.DCM.Probability
PERCENT: Final = codes.UCUM.Percent
ARTIFICIAL_INTELLIGENCE: Final = codes.cid7162.ArtificialIntelligence
DEVICE: Final = codes.cid270.Device
PROCESSING_EQUIPMENT: Final = codes.DCM.ProcessingEquipment

IMAGING_MEASUREMENT_REPORT: Final = codes.cid7021.ImagingMeasurementReport
DIAGNOSTIC_IMAGING_REPORT: Final = codes.cid7000.DiagnosticImagingReport
# TID 1500 row 12 takes the concept from UMLS; pydicom has no UMLS dictionary.
QUALITATIVE_EVALUATIONS: Final = Concept("C0034375", "UMLS", "Qualitative Evaluations")
CONCLUSION: Final = codes.DCM.Conclusion
CONCLUSIONS: Final = codes.cid7001.Conclusions
FINDINGS: Final = codes.cid7001.Findings
PROCEDURE_REPORTED: Final = codes.DCM.ProcedureReported
COMMENT: Final = codes.DCM.Comment
ENGLISH: Final = Concept("en", "RFC5646", "English")

IMAGE_LIBRARY: Final = codes.DCM.ImageLibrary
IMAGE_LIBRARY_GROUP: Final = codes.DCM.ImageLibraryGroup
SOURCE_IMAGE: Final = codes.cid7202.SourceImageForImageProcessingOperation
SOURCE: Final = Concept("260753009", "SCT", "Source")
MODALITY: Final = codes.DCM.Modality

SELECTED_REGION: Final = codes.DCM.SelectedRegion
# A class activation map, not (130403) Grad-CAM, which has no negative values.
CLASS_ACTIVATION: Final = codes.DCM.ClassActivation
# No standard concept names how much of a region a network takes for an opacity.
OPACITY_SHARE: Final = Concept("OPACITY-SHARE", records.SCHEME, "Share seen as opacity")
SALIENCY: Final = {
    records.SaliencyKind.CLASS_ACTIVATION: CLASS_ACTIVATION,
    records.SaliencyKind.OPACITIES: OPACITY_SHARE,
}
"""What is measured of a salient region, by the kind of map."""
MEAN: Final = codes.SCT.Mean
NO_UNITS: Final = codes.UCUM.NoUnits
KEY_IMAGES: Final = codes.DCM.KeyImages
ILLUSTRATION_OF_ROI: Final = codes.DCM.IllustrationOfROI

OF_INTEREST: Final = codes.cid7010.OfInterest
REJECTED_FOR_QUALITY_REASONS: Final = codes.cid7010.RejectedForQualityReasons
DOCUMENT_TITLE_MODIFIER: Final = codes.DCM.DocumentTitleModifier
OTHER_FAILURE: Final = codes.cid7011.OtherFailure
KEY_OBJECT_DESCRIPTION: Final = codes.DCM.KeyObjectDescription

QUALITY_ASSESSMENT: Final = codes.DCM.QualityAssessment
UNUSABLE: Final = codes.cid6044.UnusableQualityRendersImageUnusable
# No standard concept names "why there is no result"; the values are those of records.Reason.
NO_RESULT_REASON: Final = Concept("NO-RESULT-REASON", records.SCHEME, "Reason for no result")

QUALITY_REASONS: Final = frozenset(
    {
        records.Reason.FLAT,
        records.Reason.INVERTED,
        records.Reason.NOT_UPRIGHT,
        records.Reason.INCOMPLETE,
        records.Reason.NO_IMAGE,
        records.Reason.UNDECODABLE,
    }
)
"""Reasons that are a fault of the image itself, and so a Quality Assessment (CID 6044) too."""
