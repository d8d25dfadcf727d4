"""Which runtime runs the networks of a bundle: torch, or OpenVINO where it is installed.

Does not import either: ``thoracle check`` asks too, and importing them takes seconds.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from thoracle.errors import SettingsError
from thoracle.settings import Classify

Runtime = Literal["torch", "openvino"]


def chosen(settings: Classify) -> Runtime:
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
                "classify.runtime: found no openvino on this machine, required is "
                "`pip install thoracle[openvino]`, or the runtime torch or auto"
            ) from error
        return "torch"
    return "openvino"


def described(runtime: Runtime) -> str:
    """Return a runtime with its version, as a log says it."""
    return f"{runtime} {version(runtime)}"
