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
    "UIDs differ from the command's, a required UID is missing, or there is less pixel data than "
    "Rows and Columns call for.",
)
CANNOT_UNDERSTAND = Status(
    0xC000,
    "Error: Cannot Understand",
    "PS3.4 Table B.2-1",
    "The data set is cut short or cannot be parsed, or its UID was used before for another "
    "patient or other pixels; sending it again will not help.",
)

STATUSES = (SUCCESS, OUT_OF_RESOURCES, DATA_SET_MISMATCH, CANNOT_UNDERSTAND)
