"""What a decision is and why, in lines for people."""

import json
from collections.abc import Iterator

from thoracle.routing.rules import UPS, RoutingDecision
from thoracle.settings import Settings


def explained(decision: RoutingDecision, settings: Settings) -> Iterator[str]:
    """Yield the lines that say what a decision is, and why."""
    fired = {one.rule: one for one in decision.fired}
    failed = {one.rule: one for one in decision.failed}
    for rule in settings.rule:
        if one := fired.get(rule.name):
            used = ", ".join(f"{name} = {json.dumps(v)}" for name, v in one.values.items())
            said = f"fires: {_line(one.when)}" + (f" [{used}]" if used else "")
        elif problem := failed.get(rule.name):
            said = f"cannot be decided: {problem.problem}: {_line(problem.when)}"
        else:
            said = "waits for the result" if rule.name in decision.waiting else "does not fire"
            said += f": {_line(rule.when)}"
        yield f"rule {rule.name} {said}"
    if decision.shadow:
        yield f"nothing is sent: shadowed by {', '.join(decision.shadowed_by)}"
        return
    if decision.held:
        yield f"held by {', '.join(decision.held_by)}; once released:"
    yield from _sent(decision, settings)


def _line(when: str) -> str:
    return " ".join(when.split())


def _sent(decision: RoutingDecision, settings: Settings) -> Iterator[str]:
    for destination in settings.destination:
        parts = [kind.value for kind in decision.planned.kinds.get(destination.name, ())]
        if destination.name in decision.planned.originals:
            parts.append(f"originals ({len(decision.images)})")
        text = ", ".join(parts) or "nothing"
        if destination.name in decision.sender:
            text += " (no originals: it sent them)"
        yield f"to {destination.name}: {text}"
    for name in decision.planned.notify:
        yield "notifies by a workitem: ups" if name == UPS else f"notifies: {name}"
    if decision.priority:
        yield f"priority: {decision.priority}"
