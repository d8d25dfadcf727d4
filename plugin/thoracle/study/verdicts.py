"""A reader's verdict: its row, its mark on the worklist and its event, in one transaction."""

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, true

from thoracle.errors import ThoracleError
from thoracle.records import Kind
from thoracle.store import trail
from thoracle.store.tables import analysis, bundle, now, result, study, verdict, worklist
from thoracle.study import analyses, reading_list
from thoracle.study.published import KEPT_BACK, is_of_analysis, is_of_published

# ---- rows ----------------------------------------------------------------------------------------
# Statements about what readers say of results. Rows are only ever added: the newest counts.
#
# The database itself refuses to change or delete one (migration 0004).

LONGEST_COMMENT = 2000
"""Characters."""


class Opinion(StrEnum):
    """What a reader says of a result."""

    AGREE = "agree"
    DISAGREE = "disagree"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Judged:
    """The result that is judged, as it was at that time."""

    study_instance_uid: str
    generation: int
    bundle_digest: str
    sop_instance_uid: str
    """Of the report."""
    outcome: str
    probability: float | None
    """Calibrated, 0 to 1; ``None`` when rejected."""
    device: str | None
    """That made the images, as the worklist names it."""


def result_to_judge(
    connection: Connection, study_instance_uid: str, *, with_kept_back: bool = False
) -> Judged | None:
    """Return the newest result of a study; ``None`` when there is none or it was withdrawn.

    ``with_kept_back``: for who may know of results that a rule keeps back. For others there is
    none while the newest is kept back: nobody judges what is about to be replaced.
    """
    row = connection.execute(
        select(
            analysis.c.study_instance_uid,
            analysis.c.generation,
            analysis.c.bundle_digest,
            result.c.sop_instance_uid,
            analysis.c.outcome,
            analysis.c.probability,
            worklist.c.device,
            analysis.c.state,
            analysis.c.sending,
        )
        .join(result, is_of_analysis(result) & (result.c.kind == Kind.SR))
        .outerjoin(worklist, worklist.c.study_instance_uid == analysis.c.study_instance_uid)
        .where(analysis.c.study_instance_uid == study_instance_uid)
        .order_by(analysis.c.generation.desc(), result.c.created_at.desc())
        .limit(1)
    ).first()
    if row is None or row.state != "done":
        return None
    if row.sending in KEPT_BACK and not with_kept_back:
        return None
    return Judged(*row[:-2])


def add_row(
    connection: Connection, result_: Judged, opinion: Opinion, comment: str, person: str
) -> int:
    """Record a verdict; return its number."""
    values = {**asdict(result_), "opinion": opinion.value, "comment": comment, "person": person}
    statement = insert(verdict).values(recorded_at=now(), **values).returning(verdict.c.id)
    return int(connection.execute(statement).scalar_one())


def of_study(
    connection: Connection, study_instance_uid: str, *, with_kept_back: bool = False
) -> Sequence[Row[Any]]:
    """Return the verdicts on a study, newest first.

    ``with_kept_back``: those too on results that a rule keeps back.
    """
    return connection.execute(
        select(verdict)
        .where(
            verdict.c.study_instance_uid == study_instance_uid,
            true() if with_kept_back else is_of_published(verdict),
        )
        .order_by(verdict.c.id.desc())
    ).all()


def exported(connection: Connection) -> Iterator[dict[str, Any]]:
    """Yield all verdicts, oldest first, with Accession Number and whether each is the newest."""
    newest = _newest().subquery()
    statement = (
        select(
            verdict,
            study.c.accession_number,
            bundle.c.finding,
            newest.c.id.is_not(None).label("counts"),
        )
        .join(study, study.c.study_instance_uid == verdict.c.study_instance_uid)
        .outerjoin(bundle, bundle.c.digest == verdict.c.bundle_digest)
        .outerjoin(newest, newest.c.id == verdict.c.id)
        .order_by(verdict.c.id)
    )
    for row in connection.execute(statement).mappings():
        yield {**row, "counts": bool(row["counts"])}


def newest(connection: Connection) -> Sequence[Row[Any]]:
    """Return the newest verdict of each study, with its patient; by Study Instance UID."""
    ids = _newest().subquery()
    return connection.execute(
        select(verdict, study.c.patient_id, study.c.issuer_of_patient_id)
        .join(ids, ids.c.id == verdict.c.id)
        .join(study, study.c.study_instance_uid == verdict.c.study_instance_uid)
        .order_by(verdict.c.study_instance_uid)
    ).all()


def _newest() -> Any:
    return select(func.max(verdict.c.id).label("id")).group_by(verdict.c.study_instance_uid)


# ---- verdict -------------------------------------------------------------------------------------


class ResultChanged(ThoracleError):
    """The result that the reader saw is no longer current."""


def give(
    connection: Connection,
    study_instance_uid: str,
    report: str,
    opinion: Opinion,
    comment: str,
    columns: trail.Columns,
    *,
    with_kept_back: bool = False,
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
    with_kept_back
        Whether the reader may know of results that a rule keeps back.

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
    judged = result_to_judge(connection, study_instance_uid, with_kept_back=with_kept_back)
    if judged is None or judged.sop_instance_uid != report:
        found = "none" if judged is None else "another one"
        raise ResultChanged(
            f"{study_instance_uid}: found {found}, required: the result that was looked at"
        )
    number = add_row(connection, judged, opinion, comment, columns["user_id"] or "")
    # The comment stays with its row: it may name the patient, and the trail is read by others.
    detail = {
        "verdict": number,
        "opinion": opinion.value,
        "generation": judged.generation,
        "comment_sha256": digest(comment),
    }
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


def digest(comment: str) -> str:
    """Return by what the trail knows a comment."""
    return hashlib.sha256(comment.encode()).hexdigest()


def _printable(text: str) -> str:
    """Return a text with its line ends as line feeds, and without other control characters."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    kept = (one for one in lines if one == "\n" or unicodedata.category(one)[0] != "C")
    return "".join(kept).strip()
