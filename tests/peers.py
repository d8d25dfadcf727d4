"""Programs of others that the tests ask; where one is missing the test says how to get it."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def require(program: str, debian_package: str) -> str:
    """Return the path of a program; without it the test is skipped.

    With ``THORACLE_REQUIRE_PEERS=1`` in the environment the test fails instead, so that a release
    is never made on skipped checks.
    """
    path = shutil.which(program)
    if path is None:
        give_up(f"{program} is missing: apt-get install {debian_package}")
    return path


def require_file(path: Path, debian_package: str) -> Path:
    """Return the path of a file that a Debian package brings; without it as :func:`require`."""
    if not path.exists():
        give_up(f"{path.name} is missing: apt-get install {debian_package}")
    return path


def give_up(reason: str) -> NoReturn:
    """Skip the test, or fail it where no peer may be missing."""
    if os.environ.get("THORACLE_REQUIRE_PEERS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
