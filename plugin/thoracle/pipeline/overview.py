"""What is where: the questions of ``thoracle status``."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, case, func, select, text

from thoracle.outbox import rows as outbox_rows
from thoracle.outbox.rows import DICOM
from thoracle.retention import holds
from thoracle.store import workflows
from thoracle.store.tables import (
    analysis,
    commitment,
    header,
    instance,
    outbox,
    performance,
    result,
    study,
    workitem,
)
from thoracle.study import results
from thoracle.ups import performances
from thoracle.ups import workitem_rows as workitems

# The Transaction UID is a lock: it is not shown.
_WORKITEM = ("sop_instance_uid", "generation", "state", "claimed_by", "created_at", "changed_at")
_PERFORMANCE = ("sop_instance_uid", "manager", "state", "attempts", "detail", "changed_at")


def counts(connection: Connection) -> dict[str, dict[str, int]]:
    """Return numbers of rows by state."""
    answer = {
        "received": {
            "studies": connection.execute(select(func.count()).select_from(study)).scalar_one(),
            "images": connection.execute(select(func.count()).select_from(instance)).scalar_one(),
            "not yet complete": connection.execute(
                select(func.count()).select_from(instance).where(instance.c.generation.is_(None))
            ).scalar_one(),
        },
        "analyses": _by(connection, analysis.c.state),
        "outcomes": _by(connection, analysis.c.outcome),
        "outbox": outbox_rows.by_kind(connection),
        "workitems": _by(connection, workitem.c.state),
        "performances": _by(connection, performance.c.state),
        "files": {
            f"{name} {state}": number
            for name, table in (("images", instance), ("results", result))
            for state, number in _by(connection, table.c.file_state).items()
        }
        | {
            "headers kept": connection.execute(
                select(func.count()).select_from(header)
            ).scalar_one()
        },
        "legal holds": {"held": len(holds.rows(connection))},
    }
    status = workflows.table(connection, workflows.STATUS)
    if status is not None:
        rows = connection.execute(
            text(
                f"SELECT name || ' ' || lower(status), count(*) FROM {status} "  # noqa: S608 - a constant
                "WHERE status <> 'SUCCESS' GROUP BY name, status"
            )
        )
        answer["work"] = {str(name): int(number) for name, number in rows}
    return answer


def _by(connection: Connection, column: Any) -> dict[str, int]:
    statement = select(column, func.count()).where(column.is_not(None)).group_by(column)
    return {row[0]: row[1] for row in connection.execute(statement)}


def studies(
    connection: Connection, limit: int, study_instance_uid: str | None = None
) -> list[dict[str, Any]]:
    """Return the studies that changed last, with their newest analysis and its deliveries."""
    newest = (
        select(
            analysis.c.study_instance_uid,
            analysis.c.generation,
            analysis.c.state,
            analysis.c.outcome,
            analysis.c.probability,
            analysis.c.sending,
        )
        .where(analysis.c.state != "superseded")
        .subquery()
    )
    statement = (
        select(
            study.c.study_instance_uid,
            study.c.accession_number,
            study.c.generation,
            study.c.changed_at,
            newest.c.state,
            newest.c.outcome,
            newest.c.probability,
            newest.c.sending,
        )
        .outerjoin(
            newest,
            (newest.c.study_instance_uid == study.c.study_instance_uid)
            & (newest.c.generation == study.c.generation),
        )
        .order_by(study.c.changed_at.desc())
        .limit(limit)
    )
    if study_instance_uid is not None:
        statement = statement.where(study.c.study_instance_uid == study_instance_uid)
    rows = [dict(row) for row in connection.execute(statement).mappings()]
    uids = [row["study_instance_uid"] for row in rows]
    sent = _sent(connection, uids)
    offered = _shown(workitems.of_study(connection, *uids), _WORKITEM)
    performed = _shown(performances.of_study(connection, *uids), _PERFORMANCE)
    for row in rows:
        row["outbox"] = sent.get(row["study_instance_uid"], [])
        row["workitems"] = offered.get(row["study_instance_uid"], [])
        row["performances"] = performed.get(row["study_instance_uid"], [])
    return rows


def _shown(rows: Iterable[Row[Any]], columns: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return these columns of rows, by study."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        shown = {name: row._mapping[name] for name in columns}
        found.setdefault(row.study_instance_uid, []).append(shown)
    return found


def dead(connection: Connection, study_instance_uid: str) -> int:
    """Return how many items of a study were refused or given up.

    What is no longer kept cannot be sent again, and does not count.
    """
    return len(outbox_rows.dead(connection, study_instance_uid))


def standing_report(connection: Connection, study_instance_uid: str) -> str | None:
    """Return the SOP Instance UID of a study's newest report, if it is not withdrawn."""
    report = results.standing(connection, study_instance_uid)
    return None if report is None else str(report.sop_instance_uid)


def is_read_again(connection: Connection, study_instance_uid: str) -> bool:
    """Return whether an analysis of a study has not ended: its result will be a new one."""
    column = analysis.c
    planned = (column.study_instance_uid == study_instance_uid) & (column.state == "planned")
    return connection.execute(select(column.generation).where(planned).limit(1)).first() is not None


def _sent(connection: Connection, uids: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Return what was to be sent of studies, and what became of it, by study."""
    statement = (
        select(
            result.c.study_instance_uid,
            result.c.generation,
            outbox.c.sop_instance_uid,
            outbox.c.peer,
            case((outbox.c.kind == DICOM, result.c.kind), else_=outbox.c.kind).label("kind"),
            outbox.c.state,
            outbox.c.proof,
            outbox.c.attempts,
            outbox.c.next_attempt_at,
            outbox.c.detail,
            commitment.c.state.label("request"),
            commitment.c.due_at,
        )
        .join(result, result.c.sop_instance_uid == outbox.c.sop_instance_uid)
        .outerjoin(commitment, commitment.c.transaction_uid == outbox.c.transaction_uid)
        .where(result.c.study_instance_uid.in_(uids))
        .order_by(result.c.generation, result.c.created_at, outbox.c.peer, result.c.kind)
    )
    answer: dict[str, list[dict[str, Any]]] = {}
    for row in connection.execute(statement).mappings():
        values = dict(row)
        answer.setdefault(values.pop("study_instance_uid"), []).append(values)
    return answer
