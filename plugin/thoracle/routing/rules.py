"""Which results and images go to which destinations: rules over the headers and the result.

A destination or receiver that no rule names gets what it always gets; one that a rule names gets
only what the rules that fire send there. All rules are asked, in any order: what they send unites,
and holding back wins over sending.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset

from thoracle.errors import NotAnalysable, SettingsError
from thoracle.image import header as headers_of_files
from thoracle.image import selection
from thoracle.records import BundleIdentity, Kind, Outcome, Reading, Reason, study_outcome
from thoracle.routing import doubts, expression
from thoracle.routing.expression import Condition, PartialHeader, Undecided
from thoracle.settings import Destination, Rule, Settings

# ---- decision ------------------------------------------------------------------------------------
# What is known of a result, and what the routing rules say of a study: frozen, and plain JSON.


@dataclass(frozen=True, slots=True)
class StudyResult:
    """What conditions may know of a result."""

    outcome: Outcome
    probability: float | None
    """Calibrated, 0 to 1; ``None`` when the study was rejected."""
    reason: Reason | None
    """Why it was rejected."""
    bundle_name: str
    bundle_version: str

    @classmethod
    def of(cls, readings: Sequence[Reading], bundle: BundleIdentity) -> "StudyResult":
        """Return the result of a study: its outcome, and the facts of the image that gave it."""
        outcome = study_outcome(readings)
        telling = [reading for reading in readings if reading.outcome is outcome]
        found = [one.probability for one in telling if one.probability is not None]
        return cls(
            outcome,
            max(found, default=None),
            next((one.reason for one in telling), None),
            bundle.name,
            bundle.version,
        )

    def values(self) -> dict[str, Any]:
        """Return the variables of conditions; a probability that there is not is left out."""
        known = {} if self.probability is None else {"result.probability": self.probability}
        return {
            **known,
            "result.outcome": self.outcome.value,
            "result.reason": self.reason.code.value if self.reason else "",
            "result.bundle.name": self.bundle_name,
            "result.bundle.version": self.bundle_version,
        }


@dataclass(frozen=True, slots=True)
class Fired:
    """A rule whose condition holds, and why."""

    rule: str
    when: str
    values: dict[str, Any]
    """What the condition used, of the first image for which it holds. It may tell who the patient
    is: for the trail and for ``thoracle route explain``, never for a log."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A rule whose condition could not be decided, so that it did not fire."""

    rule: str
    when: str
    problem: str
    """What was found and what is required. No patient data."""


@dataclass(frozen=True, slots=True)
class Sends:
    """What goes where."""

    kinds: dict[str, tuple[Kind, ...]]
    """Of each destination, which of the objects made it gets; one that gets none is left out."""
    originals: tuple[str, ...]
    """Destinations that get the received images too."""
    notify: tuple[str, ...]
    """Receivers of HL7 messages that are told."""


NOTHING = Sends({}, (), ())


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """What the rules say about a study."""

    fired: tuple[Fired, ...]
    failed: tuple[Failed, ...]
    waiting: tuple[str, ...]
    """Rules about the result, which is not there yet."""
    planned: Sends
    """What goes where once nothing holds it back."""
    images: tuple[str, ...]
    """SOP Instance UIDs of the received images that may be sent: those that are not ours."""
    sender: tuple[str, ...]
    """Destinations that get no originals because they sent them."""
    priority: str | None
    """The most urgent that a rule set; ``None`` when none did."""
    held_by: tuple[str, ...]
    """Rules that hold the study: nothing is sent until somebody releases it. Among them are those
    that hold or shadow and could not be decided, because nothing sent can be taken back."""
    shadowed_by: tuple[str, ...]
    """Rules that shadow the study: it is analysed and audited, and nothing is ever sent."""

    @property
    def held(self) -> bool:
        """Whether somebody has to release it."""
        return bool(self.held_by)

    @property
    def shadow(self) -> bool:
        """Whether nothing of it is ever sent."""
        return bool(self.shadowed_by)

    @property
    def sends(self) -> Sends:
        """What goes where now."""
        return NOTHING if self.held or self.shadow else self.planned

    def to_json(self) -> dict[str, Any]:
        """Return plain values that survive a round trip through JSON."""
        return {
            "fired": [{"rule": f.rule, "when": f.when, "values": f.values} for f in self.fired],
            "failed": [{"rule": f.rule, "when": f.when, "problem": f.problem} for f in self.failed],
            "waiting": list(self.waiting),
            "kinds": {
                name: [kind.value for kind in kinds] for name, kinds in self.planned.kinds.items()
            },
            "originals": list(self.planned.originals),
            "notify": list(self.planned.notify),
            "images": list(self.images),
            "sender": list(self.sender),
            "priority": self.priority,
            "held_by": list(self.held_by),
            "shadowed_by": list(self.shadowed_by),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "RoutingDecision":
        """Return the decision that :meth:`to_json` described."""
        kinds = {name: tuple(map(Kind, found)) for name, found in values["kinds"].items()}
        return cls(
            tuple(Fired(**one) for one in values["fired"]),
            tuple(Failed(**one) for one in values["failed"]),
            tuple(values["waiting"]),
            Sends(kinds, tuple(values["originals"]), tuple(values["notify"])),
            tuple(values["images"]),
            tuple(values["sender"]),
            values["priority"],
            tuple(values["held_by"]),
            tuple(values["shadowed_by"]),
        )


PRIORITIES = ("stat", "routine", "backlog")
"""Most urgent first."""
UPS = "ups"
"""Name in ``notify`` that stands for a workitem of ours (docs/ups.md)."""
LONGEST_SHOWN = 64
"""Characters of a value in the reason why a rule fired; the longest LO (PS3.5 Table 6.2-1)."""


def decide(
    rules: Sequence[Rule],
    destinations: Sequence[Destination],
    headers: Sequence[Dataset],
    sender: str,
    result: StudyResult | None = None,
    receivers: Sequence[str] = (),
) -> RoutingDecision:
    """Return what goes where; nothing is read but what is given.

    Parameters
    ----------
    rules, destinations
        As the settings have them.
    headers
        Of the received images of the study, in a fixed order. Pixel data are not needed.
    sender
        AE title that sent the study. A destination with this AE title gets no originals.
    result
        What was concluded; ``None`` before the analysis, when rules about it wait.
    receivers
        Who can be told of a result, as :func:`receivers` returns them.

    Returns
    -------
    Decision
        It never raises for what a header says or a rule wants: that is in ``failed``.
    """
    makers = [(ds, _is_ours(ds)) for ds in headers]
    received = [ds for ds, ours in makers if ours is not True]
    common = {expression.SENDER: expression.text_of(sender), **(result.values() if result else {})}
    answers = [(rule, _ask(rule, received, common, result is None)) for rule in rules]
    failed = [(rule, one) for rule, one in answers if isinstance(one, Failed)]
    firing = [rule for rule, one in answers if isinstance(one, Fired)]
    images = tuple(str(ds.SOPInstanceUID) for ds, ours in makers if ours is False)
    originals = _originals(firing, destinations) if images else ()
    back = {one.name for one in destinations if one.ae_title and one.ae_title == sender.strip(" ")}
    priorities = {rule.priority for rule in firing}
    doubtful = [rule.name for rule, _ in failed if rule.hold or rule.shadow]
    return RoutingDecision(
        fired=tuple(one for _, one in answers if isinstance(one, Fired)),
        failed=tuple(one for _, one in failed),
        waiting=tuple(rule.name for rule, one in answers if one == "waits"),
        planned=Sends(
            _kinds(rules, firing, destinations),
            tuple(name for name in originals if name not in back),
            _notified(rules, firing, receivers),
        ),
        images=images,
        sender=tuple(name for name in originals if name in back),
        priority=next((one for one in PRIORITIES if one in priorities), None),
        held_by=(*(rule.name for rule in firing if rule.hold), *doubtful),
        shadowed_by=tuple(rule.name for rule in firing if rule.shadow),
    )


def header(path: Path) -> Dataset:
    """Return the header of an image file, as :func:`decide` takes it; whatever is wrong with it."""
    try:
        found = headers_of_files.read(path)
    except NotAnalysable:
        return PartialHeader(Dataset(), None)
    faults = frozenset(one.keyword for one in found.faults if not one.within)
    return PartialHeader(found.ds, faults) if faults else found.ds


def _ask(
    rule: Rule, received: Sequence[Dataset], common: Mapping[str, Any], before: bool
) -> Fired | Failed | str:
    """Return why a rule fires or why that cannot be decided, ``waits`` or ``rests``.

    It fires when its condition holds for one of the images at least.
    """
    try:
        condition = expression.condition(rule.when)
    except SettingsError as error:
        return Failed(rule.name, rule.when, str(error))
    if condition.uses_result and before:
        return "waits"
    try:
        values = condition.first(received, common)
    except Undecided as error:
        return Failed(rule.name, rule.when, str(error))
    if values is None:
        return "rests"
    return Fired(rule.name, rule.when, _shown(condition, values))


def _shown(condition: Condition, values: Mapping[str, Any]) -> dict[str, Any]:
    named = [name for name in values if name in condition.names]
    return {name: _cut(values[name]) for name in sorted(named)}


def _cut(value: Any) -> Any:
    match value:
        case str():
            return value if len(value) <= LONGEST_SHOWN else value[: LONGEST_SHOWN - 1] + "…"
        case list():
            return [_cut(one) for one in value[:LONGEST_SHOWN]]
        case _:
            return value


def _is_ours(ds: Dataset) -> bool | None:
    """Return whether Thoracle, or a program of its kind, made it; ``None`` if it cannot be read.

    What cannot be read counts as an image for conditions, and is not sent on: it might be ours.
    """
    try:
        selection.check_not_ours(ds)
        return False if ds.get("SOPInstanceUID") else None
    except NotAnalysable:
        return True
    except Exception:  # noqa: BLE001 - pydicom raises all kinds for bytes from outside
        return None


def _kinds(
    rules: Sequence[Rule], firing: Sequence[Rule], destinations: Sequence[Destination]
) -> dict[str, tuple[Kind, ...]]:
    ruled = {name for rule in rules for name in rule.send}
    found = {}
    for one in destinations:
        sent = {kind for rule in firing if one.name in rule.send for kind in rule.kinds}
        kinds = tuple(Kind(kind) for kind in one.kinds if one.name not in ruled or kind in sent)
        if kinds:
            found[one.name] = kinds
    return found


def _notified(
    rules: Sequence[Rule], firing: Sequence[Rule], receivers: Sequence[str]
) -> tuple[str, ...]:
    ruled = {name for rule in rules for name in rule.notify}
    told = {name for rule in firing for name in rule.notify}
    return tuple(name for name in receivers if name in told or name not in ruled)


def _originals(firing: Sequence[Rule], destinations: Sequence[Destination]) -> tuple[str, ...]:
    named = {name for rule in firing if rule.originals for name in rule.send}
    return tuple(one.name for one in destinations if one.name in named)


def receivers(settings: Settings) -> list[str]:
    """Return who can be told of a result: receivers of messages, and ``ups``."""
    return [one.name for one in settings.receivers] + ([UPS] if settings.ups.offer else [])


# ---- check -----------------------------------------------------------------------------------


def faults(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield for each fault of the rules the name of the rule, and what is found and required."""
    rules = settings.rule
    names = [rule.name for rule in rules]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield name, f"found {names.count(name)} rules of this name, required: different names"
    conditions: dict[str, Condition] = {}
    for rule in rules:
        try:
            conditions[rule.name] = expression.condition(rule.when)
        except SettingsError as error:
            yield rule.name, f"when: {error}"
    for rule in rules:
        yield from ((rule.name, text) for text in _faults_of(rule, settings))
        if rule.name in conditions and conditions[rule.name].constant() is False:
            yield rule.name, "when is always false, required: a condition that can hold"
    constant = {name: one.constant() for name, one in conditions.items()}
    shadows = [rule.name for rule in rules if rule.shadow and constant.get(rule.name)]
    for rule in rules:
        if (rule.send or rule.notify) and shadows and not rule.shadow:
            yield rule.name, f"never sends, for rule {shadows[0]} shadows every study"


def warnings(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield for each comparison of the rules that can never be true the rule, and what it is."""
    for rule in settings.rule:
        try:
            condition = expression.condition(rule.when)
        except SettingsError:
            continue  # a fault
        yield from ((rule.name, f"when: {text}") for text in doubts.never_true(condition))


def _faults_of(rule: Rule, settings: Settings) -> Iterator[str]:
    yield from _unknown(rule, settings)
    if not rule.send and (rule.originals or "kinds" in rule.model_fields_set):
        yield "found kinds or originals without send, required: the name of a destination"
    if rule.shadow and (rule.send or rule.notify):
        yield "found send or notify beside shadow, required: one of them: it sends nothing"
    if not (rule.send or rule.notify or rule.priority or rule.hold or rule.shadow):
        yield "found no action, required: one of send, notify, priority, hold and shadow"


def _unknown(rule: Rule, settings: Settings) -> Iterator[str]:
    destinations = {one.name: one for one in settings.destination}
    told = receivers(settings)
    for name in rule.send:
        if name not in destinations:
            known = ", ".join(destinations) or "none"
            yield f"send: found {name}, required: the name of a destination: {known}"
        elif not rule.originals and not set(rule.kinds) & set(destinations[name].kinds):
            yield f"send: found no kind that {name} gets, required: one of its kinds"
    for name in rule.notify:
        if name == UPS and UPS not in told:
            yield "notify: found ups while ups.offer is false, required: true"
        elif name not in told:
            known = ", ".join(told) or "none"
            yield f"notify: found {name}, required: the name of a receiver: {known}"
