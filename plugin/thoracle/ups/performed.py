"""What a performer says of a workitem: progress, what was done, why not (PS3.3 Section C.30)."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as Concept

from thoracle.records import SCHEME

COMPUTER_AIDED_DIAGNOSIS: Final = codes.cid9231.ComputerAidedDiagnosis
OBJECT_SET_INCOMPLETE: Final = codes.cid9300.ObjectSetIncomplete
OBJECT_TYPES_NOT_SUPPORTED: Final = codes.cid9300.ObjectTypesNotSupported
EQUIPMENT_FAILURE: Final = codes.cid9300.EquipmentFailure
"""Procedure Step Discontinuation Reasons (CID 9300)."""


def progress(percent: int, text: str) -> Dataset:
    """Return the modification that tells how far we are."""
    item = Dataset()
    item.ProcedureStepProgress = str(percent)
    item.ProcedureStepProgressDescription = text[:64]
    return _with(ProcedureStepProgressInformationSequence=[item])


def completed(
    workitem_code: str,
    station: str,
    begun: datetime,
    text: str,
    outputs: Sequence[Dataset],
) -> Dataset:
    """Return the modification that meets the requirements for COMPLETED (PS3.4 Table CC.2.5-3).

    Parameters
    ----------
    workitem_code
        Code Value (DCM) of the workitem.
    station
        Our AE title.
    begun
        When the workitem was claimed.
    text
        What came of it, for people.
    outputs
        Items of Output Information Sequence.
    """
    standard = workitem_code == COMPUTER_AIDED_DIAGNOSIS.value
    meaning = COMPUTER_AIDED_DIAGNOSIS.meaning if standard else "AI analysis"
    item = Dataset()
    item.PerformedStationNameCodeSequence = [_item(Concept(station, SCHEME, "Thoracle"))]
    item.PerformedStationClassCodeSequence = []
    item.PerformedStationGeographicLocationCodeSequence = []
    item.PerformedProcessingParametersSequence = []
    item.PerformedProcedureStepStartDateTime = _moment(begun)
    item.PerformedProcedureStepEndDateTime = _moment(datetime.now(UTC))
    item.PerformedProcedureStepDescription = text[:64]
    item.PerformedWorkitemCodeSequence = [_item(Concept(workitem_code, "DCM", meaning))]
    item.OutputInformationSequence = list(outputs)
    modification = progress(100, "Done")
    modification.UnifiedProcedureStepPerformedProcedureSequence = [item]
    return modification


def canceled(reason: Concept, text: str) -> Dataset:
    """Return the modification that meets the requirements for CANCELED (PS3.4 Table CC.2.5-3)."""
    item = Dataset()
    item.ProcedureStepCancellationDateTime = _moment(datetime.now(UTC))
    item.ReasonForCancellation = text
    item.ProcedureStepDiscontinuationReasonCodeSequence = [_item(reason)]
    return _with(ProcedureStepProgressInformationSequence=[item])


def _moment(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y%m%d%H%M%S+0000")


def _item(code: Concept) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code[:3]
    return item


def _with(**attributes: object) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds
