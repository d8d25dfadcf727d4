"""What a status of an archive means, whatever protocol it comes by: one table for all of them.

C-STORE answers a Status (PS3.4 Table B.2-1, PS3.7 Annex C), STOW-RS a Failure Reason with the same
numbers (PS3.18 Table I.2-2). The same event has the same fate.
"""

from enum import StrEnum

from pynetdicom.status import code_to_category

PROCESSING_FAILURE = 0x0110
DUPLICATE_SOP_INSTANCE = 0x0111
"""The archive has it; our UIDs and bytes are deterministic, so that is well."""
NOT_AUTHORIZED = 0x0124
"""As 401 and 403 by HTTP: somebody can mend it, so the object waits."""
RESOURCE_LIMITATION = 0x0213
OUT_OF_RESOURCES = range(0xA700, 0xA800)
TRY_AGAIN = (PROCESSING_FAILURE, NOT_AUTHORIZED, RESOURCE_LIMITATION, *OUT_OF_RESOURCES)
"""Time, or the archive's administrator, may heal them."""


class Fate(StrEnum):
    """What becomes of an object."""

    TAKEN = "taken"
    AGAIN = "tried again"
    FINAL = "refused"


def fate(status: int) -> Fate:
    """Return what a Status or Failure Reason means for the object."""
    if status == DUPLICATE_SOP_INSTANCE or code_to_category(status) in ("Success", "Warning"):
        return Fate.TAKEN
    return Fate.AGAIN if status in TRY_AGAIN else Fate.FINAL
