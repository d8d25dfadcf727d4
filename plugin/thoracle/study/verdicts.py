"""A reader's verdict: its row, its mark on the worklist and its event, in one transaction."""

import unicodedata

from sqlalchemy import Connection

from thoracle.errors import ThoracleError
from thoracle.store import trail
from thoracle.study import analyses, reading_list
from thoracle.study import verdict_rows as verdicts
from thoracle.study.verdict_rows import LONGEST_COMMENT, Opinion


class ResultChanged(ThoracleError):
    """The result that was looked at is not the one that stands."""


def give(
    connection: Connection,
    study_instance_uid: str,
    report: str,
    opinion: Opinion,
    comment: str,
    columns: trail.Columns,
) -> int:
    """Record what a reader says of the result of a study; return the verdict's number.

    When it raises, the transaction must be rolled back.

    Parameters
    ----------
    report
        SOP Instance UID of the report that the reader saw.
    comment
        Up to ``LONGEST_COMMENT`` characters; it may be empty. Control characters but line ends
        are left out.
    columns
        Of the event: who gives it (``user_id``), from where, by what means.

    Raises
    ------
    ResultChanged
        There is no result that stands, or not that one: nobody judges what they have not seen.
    ThoracleError
        The comment is too long.
    """
    comment = _printable(comment)
    if len(comment) > LONGEST_COMMENT:
        raise ThoracleError(
            f"comment: found {len(comment)} characters, allowed are {LONGEST_COMMENT}"
        )
    # First, because it is the lock: no other result is recorded between the question and the row.
    reading_list.review(connection, study_instance_uid, opinion.value)
    judged = verdicts.judged(connection, study_instance_uid)
    if judged is None or judged.sop_instance_uid != report:
        found = "none" if judged is None else "another one"
        raise ResultChanged(
            f"{study_instance_uid}: found {found}, required is the result that was looked at"
        )
    number = verdicts.add_row(connection, judged, opinion, comment, columns["user_id"] or "")
    # The comment stays with its row: it may name the patient, and the trail is read by others.
    detail = {"verdict": number, "opinion": opinion.value, "generation": judged.generation}
    trail.record(
        connection,
        trail.Event.VERDICT_GIVEN,
        {
            **analyses.of_study(connection, study_instance_uid),
            **columns,
            "result_sop_instance_uid": judged.sop_instance_uid,
            "bundle_digest": judged.bundle_digest,
            "outcome": judged.outcome,
            "probability": judged.probability,
            "detail": {**columns.get("detail", {}), **detail},
        },
    )
    return number


def _printable(text: str) -> str:
    """Return a text with its line ends as line feeds, and without other control characters."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    kept = (one for one in lines if one == "\n" or unicodedata.category(one)[0] != "C")
    return "".join(kept).strip()
