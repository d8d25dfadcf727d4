"""Attributes of workitems: what they may name, what an end requires, what a performer may set."""

from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.valuerep import format_number_as_ds

from thoracle.ups.states import (
    INVALID_ATTRIBUTE_VALUE,
    NO_SUCH_ATTRIBUTE,
    ONLY_CREATED_SCHEDULED,
    Refused,
    State,
)


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """An object that a workitem names."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    destinations: tuple[str, ...] = ()
    """Names of the destinations that are proven to have it under this UID."""
    sender: str | None = None
    """AE title that a received image came from."""


def from_json(model: dict[str, Any]) -> Dataset:
    """Return the data set of a DICOM JSON model (PS3.18 Annex F).

    Raises
    ------
    ValueError
        It holds a value that cannot be read. The text does not quote it, as pydicom's does.
    """
    try:
        ds = Dataset.from_json(model)
        for element in ds.iterall():
            if element.VR == "DS" and element.VM:
                numbers = element.value if element.VM > 1 else [element.value]
                element.value = [_decimal(float(one)) for one in numbers]
    except Exception:  # noqa: BLE001 - whatever it was, its text may name a patient
        raise ValueError("found an attribute that cannot be read from JSON") from None
    return ds


def _decimal(number: float) -> str:
    """Return a number as a DS, at most 16 characters (PS3.5 Section 6.2).

    In JSON it is a number; of it pydicom makes 50.0 where 50 was, and 17 characters of
    .333333333333333.
    """
    if number.is_integer() and abs(number) < 1e15:
        return f"{number:.0f}"
    return format_number_as_ds(number)


_COMPLETED = (
    "PerformedStationNameCodeSequence",
    "PerformedProcedureStepStartDateTime",
    "PerformedWorkitemCodeSequence",
    "PerformedProcedureStepEndDateTime",
)
_CANCELED = ("ProcedureStepCancellationDateTime", "ProcedureStepDiscontinuationReasonCodeSequence")


def unmet(ds: Dataset, wanted: State) -> str | None:
    """Return the keyword of what a workitem lacks for a final state, if it lacks something.

    PS3.4 Table CC.2.5-3, final state codes P (completed) and X (canceled). Output Information
    Sequence has to be there and may be empty.
    """
    if wanted is State.COMPLETED:
        item = _first(ds, "UnifiedProcedureStepPerformedProcedureSequence")
        if item is None:
            return "UnifiedProcedureStepPerformedProcedureSequence"
        lacking = [keyword for keyword in _COMPLETED if not item.get(keyword)]
        if "OutputInformationSequence" not in item:
            lacking.append("OutputInformationSequence")
    elif wanted is State.CANCELED:
        item = _first(ds, "ProcedureStepProgressInformationSequence")
        if item is None:
            return "ProcedureStepProgressInformationSequence"
        lacking = [keyword for keyword in _CANCELED if not item.get(keyword)]
    else:
        return None
    return lacking[0] if lacking else None


def _first(ds: Dataset, keyword: str) -> Any:
    items = ds.get(keyword) or []
    return items[0] if items else None


SETTABLE = frozenset(
    {
        "CommentsOnTheScheduledProcedureStep",
        "ExpectedCompletionDateTime",
        "ProcedureStepProgressInformationSequence",
        "ScheduledHumanPerformersSequence",
        "ScheduledProcedureStepPriority",
        "ScheduledStationNameCodeSequence",
        "UnifiedProcedureStepPerformedProcedureSequence",
    }
)
"""What a performer may set (out of PS3.4 Table CC.2.5-3): the rest is what the listener says."""


def check_values(modification: Dataset) -> None:
    """Raise ``Refused`` when an N-SET holds what may not be set, or a value that cannot be."""
    state = modification.get("ProcedureStepState")
    if state is not None:
        scheduled = state == State.SCHEDULED
        raise Refused(ONLY_CREATED_SCHEDULED if scheduled else NO_SUCH_ATTRIBUTE)
    for element in modification:
        if element.keyword not in SETTABLE:
            raise Refused(NO_SUCH_ATTRIBUTE, f"{element.tag} {element.keyword}"[:64])
    priority = modification.get("ScheduledProcedureStepPriority", "LOW")
    if priority not in ("HIGH", "MEDIUM", "LOW"):
        raise Refused(INVALID_ATTRIBUTE_VALUE, "ScheduledProcedureStepPriority")
    item = _first(modification, "ProcedureStepProgressInformationSequence") or Dataset()
    if not 0 <= float(item.get("ProcedureStepProgress") or 0) <= 100:
        raise Refused(INVALID_ATTRIBUTE_VALUE, "ProcedureStepProgress")
