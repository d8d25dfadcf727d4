"""Where objects are: files below the data folder, or in a bucket with copies there.

Who reads an object asks for a local file; who keeps one returns only when it is durable. Nothing
else opens or deletes such a file.
"""

import functools
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from thoracle.errors import ObjectsAway
from thoracle.settings import Settings
from thoracle.store.object_files import Objects

logger = logging.getLogger(__name__)

AWAY_SECONDS = 5.0
"""Between two attempts of work that waits for the objects."""
PATIENCE_SECONDS = 60.0
"""Between two lines in the log about that."""


def of(settings: Settings) -> Objects:
    """Return where the objects of a configuration are.

    Raises
    ------
    SettingsError
        They are in a bucket that cannot be used as the settings say.
    """
    if not settings.objects.bucket:
        return _below(settings.data_folder)
    # Here alone: its library is optional.
    from thoracle.store import bucket

    return bucket.of(settings.data_folder, settings.objects)


@functools.lru_cache
def _below(folder: Path) -> Objects:
    """Return always the same one: what is known of its objects may be remembered by it."""
    return Objects(folder)


P = ParamSpec("P")
T = TypeVar("T")


def patient(step: Callable[P, T]) -> Callable[P, T]:
    """Have a step of a workflow wait, begun anew, while objects cannot be reached or copied.

    Raised from a step, the error would be the recorded end of a study's analysis.
    """

    @functools.wraps(step)
    def waiting(*args: P.args, **kwargs: P.kwargs) -> T:
        told = float("-inf")
        while True:
            try:
                return step(*args, **kwargs)
            except ObjectsAway as error:
                if time.monotonic() - told >= PATIENCE_SECONDS:
                    logger.warning("work waits for its objects: %s", error)
                    told = time.monotonic()
                time.sleep(AWAY_SECONDS)

    return waiting
