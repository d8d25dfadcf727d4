"""The files of docker/, read: instructions of the Dockerfiles, and the services of compose.yaml."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
DOCKERFILES = ("Dockerfile", "Dockerfile.gpu", "orthanc.Dockerfile")
COMPOSE = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
OURS = 10001


def instructions(name: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile, continued lines joined."""
    text = (DOCKER / name).read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    pairs = (line.partition(" ") for line in text.splitlines() if line.strip())
    return [(one, " ".join(rest.split())) for one, _, rest in pairs]


def last(name: str, instruction: str) -> str:
    return [rest for one, rest in instructions(name) if one == instruction][-1]


def copied(name: str) -> list[str]:
    return [
        source
        for one, rest in instructions(name)
        if one == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
