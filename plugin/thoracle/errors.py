"""Errors, and what the program does about each.

ThoracleError
├── SettingsError           the program does not start; every fault is named at once
├── DataFolderInUse         the program does not start: a second process would share the data folder
├── LeaseLost               another gateway has taken over; this process ends
├── ReceiveError            answered to the sender as a C-STORE status (receive/storescp.py)
│   ├── OutOfResources      0xA700: the sender should try again
│   ├── DataSetMismatch     0xA900: the data set is not what the command announced
│   ├── CannotUnderstand    0xC000: the data set cannot be read; sending it again will not help
│   │   └── BeyondBudget    0xC000: reading it would cost more than receive.budget allows
│   └── NotAuthorized       0x0124: the caller may not use this service
├── NotAnalysable           final for this image; the study's report says why, with a code
├── ObjectsAway             tried again: the bucket of [objects] does not answer, or refuses
├── BundleError             not the bundle that the settings name; the program does not start
├── FileMissing             final for this generation: an image's file has gone from the disk
├── ReportError             final: the report would not be valid
│   └── ReportLimits        final: building it took too much memory or time
└── DeliveryError
    ├── ArchiveUnavailable  tried again later
    │   └── ArchiveSilent   of a request for proof: a weaker proof has to do
    └── ArchiveRefused      final: the archive answered with a failure status
"""

from thoracle.records import Reason


class ThoracleError(Exception):
    """Something Thoracle can name went wrong."""


class SettingsError(ThoracleError):
    """A setting has a value that Thoracle cannot use."""


class DataFolderInUse(ThoracleError):
    """Another Thoracle process works in this data folder."""


class LeaseLost(ThoracleError):
    """The gateway may have been taken for dead: it must do nothing more."""


class ReceiveError(ThoracleError):
    """An object was not stored; the sender is told so by ``status``."""

    status: int


class OutOfResources(ReceiveError):
    """Storage is not available now (PS3.4 Table B.2-1, Refused: Out of Resources)."""

    status = 0xA700


class DataSetMismatch(ReceiveError):
    """The data set does not match its SOP Class or command (PS3.4 Table B.2-1)."""

    status = 0xA900


class CannotUnderstand(ReceiveError):
    """The data set cannot be parsed (PS3.4 Table B.2-1, Error: Cannot Understand)."""

    status = 0xC000


class BeyondBudget(CannotUnderstand):
    """Reading the data set would cost more than the budget of an object; says which."""


class NotAuthorized(ReceiveError):
    """The caller may not use this service (PS3.7 Section C.4.19, Refused: Not Authorized)."""

    status = 0x0124


class NotAnalysable(ThoracleError):
    """The image gets no score.

    Parameters
    ----------
    reason
        The coded reason that the report and the audit carry.
    detail
        What was found and what is required, free of patient data.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.code.meaning}: {detail}")
        self.reason = reason
        self.detail = detail


class ObjectsAway(ThoracleError, OSError):
    """An object cannot be read or kept now, because its bucket cannot be reached or refuses.

    For whoever reads a file it is one more way in which a file cannot be read.
    """


class BundleError(ThoracleError):
    """The bundle folder is not usable or not the one that the settings name."""


class ReportError(ThoracleError):
    """A report cannot be built as a valid object."""


class ReportLimits(ReportError):
    """Building a report took more memory or time than allowed."""


class FileMissing(ThoracleError):
    """The file of an acknowledged image is not there."""


class DeliveryError(ThoracleError):
    """A result did not reach its destination."""


class ArchiveUnavailable(DeliveryError):
    """The destination could not be reached or was out of resources."""


class ArchiveSilent(ArchiveUnavailable):
    """The destination took the association and gave no answer: most do so to a stranger."""


class ArchiveRefused(DeliveryError):
    """The destination answered with a failure that a repetition cannot heal."""
