"""Every status that the C-STORE handler can answer, with its clause and when it is used."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Status:
    """A row of the table: a service status and the situation that it stands for."""

    code: int
    name: str
    clause: str
    when: str


SUCCESS = Status(
    0x0000,
    "Success",
    "PS3.4 B.2.3",
    "File and folder are synchronised to disk and the database row is committed; also for an "
    "object that we already have.",
)
OUT_OF_RESOURCES = Status(
    0xA700,
    "Refused: Out of Resources",
    "PS3.4 Table B.2-1",
    "Disk or database cannot take the object now, or it is larger than the limit; sending again "
    "later can help.",
)
DATA_SET_MISMATCH = Status(
    0xA900,
    "Error: Data Set Does Not Match SOP Class",
    "PS3.4 Table B.2-1",
    "UIDs differ from the command's, a required UID is missing or none, Rows or Columns are 0, or "
    "there is less pixel data than they call for.",
)
CANNOT_UNDERSTAND = Status(
    0xC000,
    "Error: Cannot Understand",
    "PS3.4 Table B.2-1",
    "The data set is missing, cut short or cannot be parsed; reading it would cost more than "
    "receive.budget allows (the comment says of what); or its UID was used before for another "
    "study or other pixels. Sending it again will not help.",
)
NOT_AUTHORIZED = Status(
    0x0124,
    "Refused: Not Authorized",
    "PS3.7 Section C.4.19",
    "receive.store_ae_titles does not name the caller.",
)

PROCESSING_FAILURE = Status(
    0x0110,
    "Processing Failure",
    "PS3.7 Annex C",
    "Of a C-ECHO alone: no object could be stored now; Error Comment says why.",
)

STATUSES = (SUCCESS, OUT_OF_RESOURCES, DATA_SET_MISMATCH, CANNOT_UNDERSTAND, NOT_AUTHORIZED)
