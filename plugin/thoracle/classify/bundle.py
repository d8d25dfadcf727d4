"""Which bundle is used: its folder, digest, name, finding and decision rule.

A bundle is code: its configurations are evaluated. So nothing in it is evaluated before the
digest of the whole was compared; here it is only hashed and read as plain JSON.
"""

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from thoracle.classify import finding
from thoracle.errors import BundleError, SettingsError
from thoracle.records import BundleIdentity, Decision
from thoracle.settings import Classify

# ---- bundle --------------------------------------------------------------------------------------

SHIPPED_DIGEST = "bf1864c3511c28a69c0f22eeb2d7af33820cf6fc7ad48b6d2b7a2122d7f9cc20"
"""Digest of the bundle that comes with this version, hexadecimal."""

LONGEST_NAME, LONGEST_VERSION = 64, 16
"""Characters: the name is a LO (PS3.5 Section 6.2), the version a Code Value too."""

_HASHED_FOLDERS = ("configs", "models")


@dataclass(frozen=True, slots=True)
class UndecidedBand:
    """Where the outcome is indeterminate, 0 to 1."""

    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class DecisionRule:
    """What models/decision.json says: how logits become a probability, and this an outcome."""

    threshold: float
    indeterminate: UndecidedBand
    temperature: float
    offset: float = 0.0
    """A bundle of another maker may have none."""


_RULE: TypeAdapter[DecisionRule] = TypeAdapter(DecisionRule)


def bundle_folder(settings: Classify) -> Path:
    """Return the folder of the bundle that the settings name."""
    # files() of a package in a folder is a Path; packages in zip archives are not supported.
    return settings.bundle or Path(str(files("thoracle.monai_bundle")))


def digest(folder: Path) -> str:
    """Return the SHA-256 over all that decides a result: configs/ and models/.

    Parameters
    ----------
    folder
        The bundle.

    Returns
    -------
    str
        64 hexadecimal digits over the sorted relative paths, lengths and contents.

    Raises
    ------
    BundleError
        A file cannot be read, or there are none.
    """
    try:
        found = [path for name in _HASHED_FOLDERS for path in (folder / name).rglob("*")]
        paths = {path.relative_to(folder).as_posix(): path for path in found if _counts(path)}
        total = hashlib.sha256()
        for name, path in sorted(paths.items()):
            content = path.read_bytes()
            # With lengths, no two different sets of files give the same bytes.
            total.update(f"{len(name.encode())}:{name}{len(content)}:".encode())
            total.update(content)
    except OSError as error:
        raise BundleError(f"{folder}: {error}") from error
    if not paths:
        raise BundleError(f"{folder}: found no configs/ and models/, required: a MONAI bundle")
    return total.hexdigest()


def identify(settings: Classify) -> BundleIdentity:
    """Return name, version, digest, finding and decision rule of the bundle of the settings.

    Raises
    ------
    BundleError
        The digest is not the one required, a file is missing or malformed, or the metadata do not
        say what the bundle finds.
    """
    folder = bundle_folder(settings)
    required = settings.digest or SHIPPED_DIGEST
    found = digest(folder)
    if found != required:
        raise BundleError(f"{folder}: found digest {found}, required: {required}")
    metadata_file = folder / "configs" / "metadata.json"
    metadata, rule = _metadata(metadata_file), _rule(folder / "models" / "decision.json")
    try:
        return BundleIdentity(
            name=_text(metadata, "name", LONGEST_NAME),
            version=_text(metadata, "version", LONGEST_VERSION),
            digest=found,
            decision=Decision(rule.threshold, rule.indeterminate.lower, rule.indeterminate.upper),
            calibration=f"offset({rule.offset:+.2f}) temperature({rule.temperature:.2f})",
            finding=finding.read(metadata),
        )
    except BundleError as error:
        raise BundleError(f"{metadata_file}:\n{error}") from error


def _counts(path: Path) -> bool:
    """Return whether a file belongs to the digest."""
    return path.is_file() and "__pycache__" not in path.parts


def _metadata(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: {type(error).__name__}: {error}") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path}: found {content!r:.40}, required: an object")
    return content


def _text(metadata: dict[str, Any], entry: str, longest: int) -> str:
    """Return an entry that DICOM is to carry as one value."""
    value = metadata.get(entry)
    if (
        not isinstance(value, str)
        or not 1 <= len(value) <= longest
        or not value.isprintable()
        or "\\" in value
    ):
        raise BundleError(
            f"{entry}: found {value!r:.100}, required: text of 1 to {longest} characters on one "
            "line, without a backslash"
        )
    return value


def _rule(path: Path) -> DecisionRule:
    """Return the rule in a file; it may say more than that, e.g. what it was fitted on."""
    try:
        rule = _RULE.validate_json(path.read_bytes())
    except ValidationError as error:
        faults = "\n".join(finding.validation_faults(error))
        raise BundleError(f"{path}:\n{faults}") from error
    except OSError as error:
        raise BundleError(f"{path}: {type(error).__name__}: {error}") from error
    lower, threshold, upper = rule.indeterminate.lower, rule.threshold, rule.indeterminate.upper
    if not 0 <= lower <= threshold <= upper <= 1:
        raise BundleError(
            f"{path}: found lower {lower}, threshold {threshold}, upper {upper}, "
            "required: ascending order in 0 to 1"
        )
    return rule


# ---- runtime -------------------------------------------------------------------------------------
# Which runtime runs the networks of a bundle: torch, or OpenVINO where it is installed.
#
# Does not import either: ``thoracle check`` asks too, and importing them takes seconds.

Runtime = Literal["torch", "openvino"]


def runtime_of(settings: Classify) -> Runtime:
    """Return the runtime that the settings mean on this machine.

    Raises
    ------
    SettingsError
        They name one that is not installed.
    """
    if settings.runtime == "torch":
        return "torch"
    try:
        version("openvino")
    except PackageNotFoundError as error:
        if settings.runtime == "openvino":
            raise SettingsError(
                "classify.runtime: found no openvino on this machine, required: "
                "`pip install thoracle[openvino]`, or the runtime torch or auto"
            ) from error
        return "torch"
    return "openvino"


def described_runtime(runtime: Runtime) -> str:
    """Return a runtime with its version, as a log says it."""
    return f"{runtime} {version(runtime)}"
