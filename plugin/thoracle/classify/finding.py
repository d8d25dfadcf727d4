"""What a bundle finds: the entry ``finding`` of its metadata, read and checked.

An entry that is missing, unknown or unfit is named, with what was found and what is required:
no word of a report is guessed.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter, ValidationError

from thoracle.errors import BundleError
from thoracle.records import BundleIdentity, Finding, Outcome, SaliencyKind

SECTION = "finding"
CHANNELS = "network_data_format.outputs.pred.channel_def"
"""The one place in which the classes have their names."""
MODALITIES = ("CR", "DX", "DR", "RG", "OT")
"""Modalities of radiographs. DR and RG are retired or misused, OT is digitised film."""
VIEWS = ("AP", "PA")
"""View Positions that headers are judged for (image/anatomy.py)."""
BODY_PART = "CHEST"
"""The one Body Part Examined that headers are judged for."""

_FINDING: TypeAdapter[Finding] = TypeAdapter(Finding)
_IDENTITY: TypeAdapter[BundleIdentity] = TypeAdapter(BundleIdentity)


def read(metadata: Mapping[str, Any]) -> Finding:
    """Return what the metadata of a bundle say that it finds.

    Parameters
    ----------
    metadata
        Content of ``configs/metadata.json``.

    Raises
    ------
    BundleError
        With one line for each entry that is missing, unknown or unfit; it begins with its name.
    """
    section = metadata.get(SECTION)
    if not isinstance(section, dict):
        raise BundleError(f"{SECTION}: {_found(section)}, required: {_required()}")
    faults: list[str] = []
    channel = classes = 0
    try:
        channel, classes = _channel(metadata, section.get("channel"))
    except BundleError as error:
        faults.append(str(error))
    try:
        # As JSON: there, and not in Python, a list is a tuple and a text an enumerated value.
        found = _FINDING.validate_json(json.dumps({**section, "channel": channel}), strict=True)
    except ValidationError as error:
        faults += validation_faults(error, SECTION)
    else:
        faults += _faults(section, found, classes)
    if faults:
        raise BundleError("\n".join(faults))
    return found


def to_json(identity: BundleIdentity) -> dict[str, Any]:
    """Return a bundle's identity as plain values that survive a round trip through JSON."""
    return asdict(identity)


def from_json(values: Mapping[str, Any]) -> BundleIdentity:
    """Return the identity that :func:`to_json` described; ``ValueError`` if it is none."""
    return _IDENTITY.validate_json(json.dumps(values))


def finding_from_json(values: Mapping[str, Any]) -> Finding:
    """Return the finding of an identity in JSON; ``ValueError`` if it is none."""
    return _FINDING.validate_json(json.dumps(values))


def _required() -> str:
    return "an object with channel, code, name, short_name, outcomes, population and saliency"


def _channel(metadata: Mapping[str, Any], name: object) -> tuple[int, int]:
    """Return the place of the class with this name, and how many channels ``pred`` has."""
    pred: Any = metadata
    for part in CHANNELS.split(".")[:-1]:
        pred = pred.get(part) if isinstance(pred, dict) else None
    names = pred.get("channel_def") if isinstance(pred, dict) else None
    if not isinstance(names, dict) or list(names) != [str(place) for place in range(len(names))]:
        raise BundleError(f'{CHANNELS}: {_found(names)}, required: names of "0", "1" and so on')
    number = pred.get("num_channels")
    if number != len(names):
        raise BundleError(
            f"network_data_format.outputs.pred.num_channels: {_found(number)}, "
            f"required: {len(names)}, as many as channel_def has"
        )
    places = [place for place, found in enumerate(names.values()) if found == name]
    if len(places) != 1:
        raise BundleError(
            f"{SECTION}.channel: {_found(name)}, required: one name in {CHANNELS}: "
            f"{', '.join(map(str, names.values()))}"
        )
    return places[0], len(names)


def validation_faults(error: ValidationError, above: str = "") -> Iterator[str]:
    """Yield one line for each entry that pydantic found missing or unfit, beginning with its name.

    ``above`` is the name of the entry in which all of them stand.
    """
    for one in error.errors():
        name = ".".join(filter(None, (above, *map(str, one["loc"]))))
        if one["type"] == "missing":
            yield f"{name}: found none, required: a value"
        else:
            yield f"{name}: {_found(one['input'])}, required: {one['msg']}"


def _faults(section: Mapping[str, Any], found: Finding, classes: int) -> Iterator[str]:
    """Yield what the types of the entries alone do not show; 0 classes: they are not known."""
    yield from _unknown(section, asdict(found))
    for name, text in _texts(section, SECTION):
        if not text.isprintable() or "\\" in text or text != text.strip():
            yield f"{name}: found {text!r}, required: text on one line without a backslash"
    codes = {outcome: found.outcomes.of(outcome).code for outcome in Outcome}
    said = [codes[one] for one in (Outcome.POSITIVE, Outcome.NEGATIVE, Outcome.INDETERMINATE)]
    if len({(code.scheme, code.value) for code in said}) != len(said):
        yield f"{SECTION}.outcomes: found one code for two outcomes, required: one for each"
    if codes[Outcome.REJECTED] in (codes[Outcome.POSITIVE], codes[Outcome.NEGATIVE]):
        yield (
            f"{SECTION}.outcomes.rejected.code: found that of another outcome, "
            "required: one that says neither present nor absent"
        )
    meant = found.population
    yield from _outside("modalities", meant.modalities, MODALITIES)
    yield from _outside("views", meant.views, VIEWS)
    yield from _outside("body_part", [meant.body_part], (BODY_PART,))
    if found.saliency is SaliencyKind.CLASS_ACTIVATION:
        yield f"{SECTION}.saliency: found {found.saliency}, required: opacities or none"
    maps = found.saliency is SaliencyKind.OPACITIES
    if maps and classes and (classes, found.channel) != (2, 1):
        yield (
            f"{SECTION}.saliency: found {found.saliency} with channel {found.channel} of "
            f"{classes}, required: channel 1 of 2, or the saliency none"
        )


def _unknown(given: Any, known: Any, name: str = SECTION) -> Iterator[str]:
    """Yield entries that mean nothing, such as one with a slip in its name."""
    if not isinstance(given, dict):
        return
    for key, value in given.items():
        if key not in known:
            yield f"{name}.{key}: found an unknown entry, required: one of {', '.join(known)}"
        else:
            yield from _unknown(value, known[key], f"{name}.{key}")


def _texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _texts(one, f"{name}.{key}")


def _outside(name: str, found: Iterable[str], known: tuple[str, ...]) -> Iterator[str]:
    """Yield a part of the population that this version cannot tell from a header."""
    if others := [one for one in found if one not in known]:
        yield (
            f"{SECTION}.population.{name}: found {', '.join(others)}, required: "
            f"{'one or more of ' if len(known) > 1 else ''}{', '.join(known)}"
        )


def _found(value: object) -> str:
    return "found none" if value is None else f"found {value!r:.100}"
