"""Months of work as rows of a database: what the dashboard, the watch and the bench look at.

Nobody's data: numbers from a generator with a seed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import Engine, insert

from thoracle.store import tables
from thoracle.store.tables import timestamp

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
THRESHOLD = 0.5
DIGEST = "d" * 64
DEVICES = ("XR-ROOM-1", "XR-ROOM-2", "MOBILE-A")
Values = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """What a study is made of; a test changes it before it is written."""

    number: int
    received: datetime
    device: str | None
    probability: float
    features: dict[str, float]
    state: str = ""
    digest: str = DIGEST
    verdict: str | None = None
    minutes_to_result: float = 0.5
    rows: dict[str, Values] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        """The state, else what the probability says."""
        if self.state:
            return self.state
        if self.probability >= THRESHOLD + 0.05:
            return "positive"
        return "negative" if self.probability < THRESHOLD - 0.05 else "indeterminate"


Change = Callable[[Study], Study]


def studies(
    number: int, days: float, now: datetime = NOW, seed: int = 1, first: int = 0
) -> list[Study]:
    """Return so many studies, evenly over the days up to ``now``, of one kind throughout."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.beta(1.2, 5, number), 4)
    made = []
    for index in range(number):
        made.append(
            Study(
                number=first + index,
                received=now - timedelta(days=days * (number - index) / number),
                device=DEVICES[int(rng.integers(len(DEVICES)))],
                probability=float(scores[index]),
                features={
                    "mean": round(float(rng.normal(0.45, 0.04)), 5),
                    "contrast": round(float(rng.normal(0.22, 0.02)), 5),
                    "black": round(float(max(0, rng.normal(0.01, 0.02))), 5),
                    "sharpness": round(float(rng.normal(12, 2)), 5),
                    "lungs": round(float(rng.normal(0.3, 0.04)), 5),
                },
                minutes_to_result=float(rng.lognormal(-0.5, 0.6)),
            )
        )
    return made


def write(database: Engine, made: list[Study]) -> None:
    """Insert the rows of studies, as the gateway would have."""
    rows: dict[str, list[Values]] = {}
    for one in made:
        for name, values in _rows(one).items():
            rows.setdefault(name, []).append({**values, **one.rows.get(name, {})})
    with database.begin() as connection:
        for name in ("study", "worklist", "analysis", "reading", "result", "outbox", "verdict"):
            if name in rows:
                connection.execute(insert(tables.metadata.tables[name]), rows[name])


def _rows(one: Study) -> dict[str, Values]:
    uid = f"2.25.{10**12 + one.number}"
    received = timestamp(one.received)
    ended = one.received + timedelta(minutes=one.minutes_to_result)
    proven = timestamp(ended + timedelta(seconds=20))
    failed, rejected = one.outcome == "failed", one.outcome == "rejected"
    probability = None if failed or rejected else one.probability
    key = {"study_instance_uid": uid, "generation": 1, "bundle_digest": one.digest}
    read = {**key, "finding": "SCT:840539006"}
    report = f"{uid}.1"
    answer: dict[str, Values] = {
        "study": {
            "study_instance_uid": uid,
            "patient_id": f"P{one.number}",
            "accession_number": f"A{one.number}",
            "generation": 1,
            "first_received_at": received,
            "changed_at": received,
        },
        "worklist": {
            "study_instance_uid": uid,
            "patient_name": f"Generated^{one.number}",
            "patient_id": f"P{one.number}",
            "accession_number": f"A{one.number}",
            "modality": "CR",
            "device": one.device,
            "search": f"generated {one.number}",
            "received_at": received,
            "ai_state": one.outcome,
            "probability": probability,
            "threshold": THRESHOLD,
            "reason_code": "NOT-FRONTAL" if rejected else None,
            "urgency": 1,
            "head_start_minutes": 0,
            "sort_key": received,
            "reviewed_at": timestamp(ended + timedelta(minutes=42)) if one.verdict else None,
            "verdict": one.verdict,
            "changed_at": proven,
        },
        "analysis": {
            **read,
            "state": "failed" if failed else "done",
            "priority": 100,
            "content_datetime": received,
            "outcome": None if failed else one.outcome,
            "probability": probability,
            "finished_at": timestamp(ended),
        },
    }
    if failed:
        return answer
    answer["reading"] = {
        **read,
        "sop_instance_uid": f"{uid}.9",
        "outcome": one.outcome,
        "reason_code": "NOT-FRONTAL" if rejected else None,
        "reason_scheme": "99THORACLE" if rejected else None,
        "detail": "found 'LL'" if rejected else None,
        "probability": probability,
        "threshold": THRESHOLD,
        "seconds": {"select": 0.01, "pixels": 0.1, "classify": 0.3},
        "features": one.features,
    }
    answer["result"] = {
        **key,
        "sop_instance_uid": report,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.34",
        "series_instance_uid": f"{uid}.2",
        "kind": "sr",
        "path": f"results/{one.number}.dcm",
        "sha256": "0" * 64,
        "created_at": timestamp(ended),
    }
    answer["outbox"] = {
        "kind": "dicom",
        "peer": "pacs",
        "item": report,
        "sop_instance_uid": report,
        "state": "delivered",
        "priority": 100,
        "attempts": 1,
        "proof": "commitment",
        "detail": None,
        "created_at": timestamp(ended),
        "changed_at": proven,
    }
    if one.verdict:
        answer["verdict"] = {
            "recorded_at": timestamp(ended + timedelta(minutes=42)),
            **key,
            "sop_instance_uid": report,
            "opinion": one.verdict,
            "comment": "",
            "person": "reader",
            "outcome": one.outcome,
            "probability": probability,
            "device": one.device,
        }
    return answer
