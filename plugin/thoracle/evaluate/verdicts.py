"""Readers' verdicts as labels: no image is read again, the results are those that were judged.

The rule is in docs/evaluate.md. Whoever judged had seen the answer, so these labels favour it;
the caveat that says so goes wherever the figures go.
"""

import getpass
from collections.abc import Iterable
from typing import Any

from thoracle.evaluate.labels import Label, Labels
from thoracle.evaluate.match import Case, Matched
from thoracle.evaluate.results import Result
from thoracle.records import Outcome
from thoracle.settings import Settings
from thoracle.store import database, trail
from thoracle.study import verdicts
from thoracle.study.verdicts import Opinion

CAVEAT = (
    "The labels are verdicts of readers who had seen the model's answer: they favour it, and "
    "indeterminate and rejected results are left out. Sensitivity and specificity are too high by "
    "an unknown amount, and so is the AUROC; no figure here is a measurement against the truth."
)
_CLEAR = {Outcome.POSITIVE.value: True, Outcome.NEGATIVE.value: False}


def read(settings: Settings, bundle_digest: str) -> tuple[Labels, Matched, list[Result]]:
    """Return the newest verdict of each study as a label, with the result that it is about.

    What becomes no label is in ``left_out`` by reason. That verdicts were read is audited.

    Parameters
    ----------
    settings
        Of the gateway: they say where its database is.
    bundle_digest
        Results of other bundles are left out.

    Raises
    ------
    ThoracleError
        There is no database.
    """
    with database.existing(settings).begin() as connection:
        rows = verdicts.newest(connection)
        detail = {"verdicts": len(rows), "means": "thoracle evaluate --verdicts"}
        columns: trail.Columns = {"user_id": getpass.getuser(), "detail": detail}
        trail.record(connection, trail.Event.EXPORTED, columns)
    return labelled(rows, bundle_digest)


def labelled(rows: Iterable[Any], bundle_digest: str) -> tuple[Labels, Matched, list[Result]]:
    """Return labels, what is left out, and results, for rows of ``store.verdicts.newest``."""
    matched = Matched()
    results: list[Result] = []
    for number, row in enumerate(rows, 1):
        refusal = _refusal(row, bundle_digest)
        if refusal:
            matched.leave_out(refusal, row.study_instance_uid)
            continue
        agreed = row.opinion == Opinion.AGREE
        label = Label(
            line=number,
            key=row.study_instance_uid,
            positive=_CLEAR[row.outcome] is agreed,
            group=row.device or "",
            patient=f"{row.issuer_of_patient_id or ''}/{row.patient_id}" if row.patient_id else "",
        )
        case = Case(label, ())
        matched.cases.append(case)
        results.append(Result(case, Outcome(row.outcome), row.probability, None, ()))
    labels = Labels("verdicts", True, tuple(one.label for one in matched.cases), (), CAVEAT)
    return labels, matched, results


def _refusal(row: Any, bundle_digest: str) -> str:
    """Return why a verdict is no label; empty when it is one."""
    if row.bundle_digest != bundle_digest:
        return "verdicts on results of another bundle"
    if row.opinion == Opinion.NOT_APPLICABLE:
        return "verdicts `not applicable`"
    if row.outcome not in _CLEAR or row.probability is None:
        return f"verdicts on {row.outcome} results, which say neither positive nor negative"
    return ""
