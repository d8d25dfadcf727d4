"""What is known of a result, and what the routing rules say of a study: frozen, and plain JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from thoracle.records import BundleIdentity, Kind, Outcome, Reading, Reason, study_outcome


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
