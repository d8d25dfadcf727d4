"""Which bundle is used: its folder, digest, name and decision rule.

A bundle is code: its configurations are evaluated. So nothing in it is evaluated before the
digest of the whole was compared; here it is only hashed and read as plain JSON.
"""

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from thoracle.errors import BundleError
from thoracle.records import BundleIdentity, Decision
from thoracle.settings import Classify

SHIPPED_DIGEST = "f6312660345f9165545b27da7b24588d69d42a3688d3057b4532243f9b4498af"
"""Digest of the bundle that comes with this version, hexadecimal."""

_HASHED_FOLDERS = ("configs", "models")


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
        raise BundleError(f"{folder}: found no configs/ and models/, required is a MONAI bundle")
    return total.hexdigest()


def identify(settings: Classify) -> BundleIdentity:
    """Return name, version, digest and decision rule of the bundle that the settings name.

    Raises
    ------
    BundleError
        The digest is not the one required, or a file is missing or malformed.
    """
    folder = bundle_folder(settings)
    required = settings.digest or SHIPPED_DIGEST
    found = digest(folder)
    if found != required:
        raise BundleError(f"{folder}: found digest {found}, required is {required}")
    try:
        metadata = _read(folder / "configs" / "metadata.json")
        decision = _read(folder / "models" / "decision.json")
        band = decision["indeterminate"]
        return BundleIdentity(
            name=str(metadata["name"]),
            version=str(metadata["version"]),
            digest=found,
            decision=_decision(decision["threshold"], band["lower"], band["upper"]),
            calibration=_calibration(decision),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{folder}: {type(error).__name__}: {error}") from error


def _counts(path: Path) -> bool:
    """Return whether a file belongs to the digest."""
    return path.is_file() and "__pycache__" not in path.parts


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _calibration(decision: dict[str, Any]) -> str:
    """Return how logits become probabilities; a bundle of another maker may have no offset."""
    offset, temperature = float(decision.get("offset", 0)), float(decision["temperature"])
    return f"offset({offset:+.2f}) temperature({temperature:.2f})"


def _decision(threshold: float, lower: float, upper: float) -> Decision:
    """Return the rule; ``ValueError`` unless 0 <= lower <= threshold <= upper <= 1."""
    if not 0 <= lower <= threshold <= upper <= 1:
        raise ValueError(
            f"found lower {lower}, threshold {threshold}, upper {upper}, "
            "required is ascending order in 0 to 1"
        )
    return Decision(float(threshold), float(lower), float(upper))
