"""The software bill of materials (CycloneDX 1.6) of a wheel: what an installation has.

Pip says what the line of docs/installation.md would install, at the versions of constraints.txt,
with all extras, and which SHA-256 the chosen archives have. Nothing is installed.
"""

import json
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License, LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from thoracle.classify.bundle import SHIPPED_DIGEST

ROOT = Path(__file__).parent.parent
EXTRAS = ("evaluate", "oidc", "openvino", "parquet", "s3")
STATIC = ROOT / "plugin" / "thoracle" / "web" / "static" / "README.md"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
"""Of the line in docs/installation.md; an index that cannot be reached is none."""

Metadata = dict[str, Any]


def document(wheel: Path, moment: int) -> str:
    """Return the SBOM of a wheel as JSON, dated at a moment (seconds since 1970).

    Raises
    ------
    SystemExit
        It could not be made, or the schema of CycloneDX refuses it.
    """
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_OID, digest_of(wheel)))
    bom.metadata.timestamp = datetime.fromtimestamp(moment, UTC)
    tool = "cyclonedx-python-lib"
    bom.metadata.tools.components.add(Component(name=tool, version=version(tool)))
    found = resolved(wheel)
    components = {name: component(metadata, digest) for name, (metadata, digest) in found.items()}
    own = components["thoracle"]
    own.type = ComponentType.APPLICATION
    shipped = [model(), *scripts()]
    bom.metadata.component = own
    bom.components.update(one for one in components.values() if one is not own)
    bom.components.update(shipped)
    below = dependencies({name: metadata for name, (metadata, _) in found.items()})
    for name, one in components.items():
        bom.register_dependency(one, [components[other] for other in sorted(below[name])])
    bom.register_dependency(own, shipped)
    text = JsonV1Dot6(bom).output_as_string(indent=1)
    if fault := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"found an SBOM that its schema refuses: {fault}")
    return f"{text}\n"


def digest_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    return sha256(path.read_bytes()).hexdigest()


def resolved(wheel: Path) -> dict[str, tuple[Metadata, str]]:
    """Return metadata and SHA-256 of each distribution that pip would install, by its name.

    Raises
    ------
    SystemExit
        Pip cannot say it, e.g. without a network.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--retries", "0"]
        command += ["--ignore-installed", "--report", str(report), "--extra-index-url", TORCH_INDEX]
        command += ["--constraint", str(ROOT / "constraints.txt"), f"{wheel}[{','.join(EXTRAS)}]"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode:
            sys.exit(f"found no way to resolve what {wheel.name} needs:\n{found.stderr}")
        rows = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {
        canonicalize_name(row["metadata"]["name"]): (
            row["metadata"],
            row["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for row in rows
    }


def component(metadata: Metadata, digest: str) -> Component:
    """Return a distribution as a component."""
    name, number = metadata["name"], metadata["version"]
    purl = PackageURL("pypi", None, canonicalize_name(name), number)
    return Component(
        name=name,
        version=number,
        type=ComponentType.LIBRARY,
        bom_ref=purl.to_string(),
        purl=purl,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        licenses=[declared(licence(metadata))],
    )


def declared(words: str) -> License:
    """Return a licence that somebody stated of their own work."""
    return LicenseFactory().make_from_string(
        words, license_acknowledgement=LicenseAcknowledgement.DECLARED
    )


def licence(metadata: Metadata) -> str:
    """Return what a distribution's metadata say of its licence: expression, classifier or word."""
    classifiers = [
        one.rpartition(" :: ")[2]
        for one in metadata.get("classifier", [])
        if one.startswith("License :: ") and one != "License :: OSI Approved"
    ]
    word = str(metadata.get("license") or "").strip().partition("\n")[0]
    return metadata.get("license_expression") or "; ".join(classifiers) or word or "not stated"


def dependencies(found: dict[str, Metadata]) -> dict[str, set[str]]:
    """Return what each distribution needs of those that were found."""
    needs = {
        name: [Requirement(one) for one in metadata.get("requires_dist", [])]
        for name, metadata in found.items()
    }
    extras = {name: {""} for name in found}
    extras["thoracle"] |= set(EXTRAS)
    for one in (one for requirements in needs.values() for one in requirements):
        extras.get(canonicalize_name(one.name), set()).update(one.extras)

    def counts(one: Requirement, name: str) -> bool:
        marker = one.marker
        return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras[name])

    return {
        name: {
            canonicalize_name(one.name)
            for one in requirements
            if canonicalize_name(one.name) in found and counts(one, name)
        }
        for name, requirements in needs.items()
    }


def model() -> Component:
    """Return the bundle that comes with the wheel."""
    path = ROOT / "monai_bundle" / "configs" / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    return Component(
        name=metadata["name"],
        version=metadata["version"],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="bundle",
        properties=[Property(name="thoracle:bundle-digest", value=SHIPPED_DIGEST)],
    )


def scripts() -> Iterator[Component]:
    """Yield the scripts of others that the pages serve."""
    row = re.compile(r"\| `(.+?)` \| npm package `(.+?)`, .*? \| (.+?) \| (.+?) \| `(.+?)` \|")
    for file, name, number, words, digest in row.findall(STATIC.read_text(encoding="utf-8")):
        purl = PackageURL("npm", None, name, number)
        yield Component(
            name=name,
            version=number,
            type=ComponentType.LIBRARY,
            bom_ref=purl.to_string(),
            purl=purl,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
            licenses=[declared(words)],
            properties=[Property(name="thoracle:file", value=f"thoracle/web/static/{file}")],
        )
