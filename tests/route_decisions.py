"""Settings with routing rules, and what they decide about headers."""

import json
from typing import Any

from pydicom import Dataset

from sources import dx
from thoracle import settings
from thoracle.records import Kind, Outcome
from thoracle.routing import rules as routing_rules
from thoracle.routing.rules import RoutingDecision, StudyResult
from thoracle.settings import Settings

EVERYTHING = tuple(Kind(kind) for kind in ("sr", "sc", "pr", "ko"))
POSITIVE = StudyResult(Outcome.POSITIVE, 0.93, None, "covid_cxr", "0.1.0")


def configured(*rules: dict[str, Any], **more: Any) -> Settings:
    """Return settings with a PACS, a second archive and these rules."""
    return settings.parse(
        {
            "destination": [
                {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 11112},
                {"name": "second", "ae_title": "SECOND", "host": "127.0.0.1", "port": 11113},
            ],
            "rule": [{"name": f"rule{number}", **rule} for number, rule in enumerate(rules)],
            **more,
        }
    )


def decide(
    chosen: Settings,
    *headers: Dataset,
    sender: str = "PACS",
    result: StudyResult | None = POSITIVE,
) -> RoutingDecision:
    receivers = [one.name for one in chosen.hl7]
    decision = routing_rules.decide(
        chosen.rule, chosen.destination, headers or (dx(),), sender, result, receivers
    )
    stored = json.loads(json.dumps(decision.to_json()))
    assert RoutingDecision.from_json(stored) == decision
    return decision


def fires(when: str, *headers: Dataset, **more: Any) -> bool:
    decision = decide(configured({"when": when, "priority": "stat"}), *headers, **more)
    assert not decision.failed, decision.failed
    return decision.priority == "stat"
