"""What /metrics says of alarms: nothing that a rule keeps back moves it, and all else does."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api_tokens import token
from browsing import Site
from history import Study, studies, write
from thoracle.monitoring import alarms
from thoracle.monitoring.alarms import AlarmMonitor
from thoracle.web.app import create_app

DAYS = 7


def new(state: str, device: str, kept_back: bool) -> list[Study]:
    """Return a week of one device, all of whose studies come to the same."""
    probability = 0.95 if state == "positive" else 0.02
    made = studies(120, DAYS - 1, now=datetime.now(UTC), seed=3, first=5000)
    made = [replace(one, device=device, state=state, probability=probability) for one in made]
    if kept_back:
        for one in made:
            listed = {"ai_state": "shadow", "probability": None, "reason_code": None}
            one.rows.update(worklist=listed, analysis={"sending": "shadow"})
    return made


def told(folder: Path, *added: list[Study]) -> tuple[dict[str, float], set[str]]:
    """Return what /metrics says of alarms, and which ones the gateway raises of the same rows."""
    folder.mkdir(exist_ok=True)
    site = Site(folder)
    before = studies(600, 28, now=datetime.now(UTC) - timedelta(days=DAYS))
    for rows in (before, studies(200, DAYS, now=datetime.now(UTC), seed=2, first=2000), *added):
        write(site.database, rows)
    AlarmMonitor(site.database, site.settings).check()
    with site.database.connect() as connection:
        raised = {row.subject for row in alarms.alarm_rows(connection, "alarm")}
    headers = {"Authorization": f"Bearer {token(site.database, 'administrator', 'admin')}"}
    transport = httpx.ASGITransport(create_app(site.settings, site.database))

    async def answer() -> str:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return (await client.get("/metrics", headers=headers)).text

    found = {
        sample.labels["subject"]: sample.value
        for family in text_string_to_metric_families(asyncio.run(answer()))
        for sample in family.samples
        if sample.name == "thoracle_alarm"
    }
    site.database.dispose()
    return found, raised


def test_what_a_rule_keeps_back_moves_no_metric_of_an_alarm(tmp_path: Path) -> None:
    answers = [
        told(tmp_path / state, new(state, "XR-NEW", kept_back=True))
        for state in ("positive", "rejected")
    ]
    figures = [found for found, _ in answers]
    assert figures[0] == figures[1]
    assert figures[0]["scores"] == 0
    raised = [alarm for _, alarm in answers]
    assert "scores" in raised[0], "the gateway itself compares all results"
    assert "device XR-NEW" in raised[1]


@pytest.mark.parametrize(("state", "subject"), [("positive", "scores"), ("rejected", "device X")])
def test_a_shift_of_what_may_be_told_is_in_the_metric_beside_what_is_kept_back(
    tmp_path: Path, state: str, subject: str
) -> None:
    kept = [replace(one, number=one.number + 5000) for one in new("negative", "Y", True)[:1]]
    found, raised = told(tmp_path, new(state, "X", False), kept)
    assert found[subject] == 1
    assert subject in raised
