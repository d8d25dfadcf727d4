"""A purge that is killed by a signal at a place of its code, in a process of its own."""

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from thoracle.report import context
from thoracle.retention import purge, removal, rules, study_rows
from thoracle.retention import rows as stored
from thoracle.settings import Retention, Settings
from thoracle.store import database, engine
from thoracle.store.object_files import Objects
from thoracle.study import headers

MODULES: dict[str, Any] = {
    "purge": purge,
    "stored": stored,
    "rules": rules,
    "engine": engine,
    "context": context,
    "headers": headers,
    "Objects": Objects,
    "removal": removal,
    "study_rows": study_rows,
}
"""Where the function is that meets the signal, by the name that a test uses."""


def run(folder: Path, module: str, name: str, number: int, when: str, **days: int) -> None:
    """Purge a data folder, eight years from now, until a function is called for the nth time.

    Parameters
    ----------
    folder
        The data folder.
    module, name
        Of the function; one of ``MODULES``.
    number
        Of the call, from 1.
    when
        ``before`` or ``behind`` it.
    days
        Of ``[retention]``, where they are not the usual ones.
    """
    home = MODULES[module]
    setattr(home, name, _fatal(getattr(home, name), number, when))
    purge.EVENTS = 20
    moment = datetime.now(UTC) + timedelta(days=3000)
    opened = database.open_database(database.sqlite_url(folder))
    settings = Settings(data_folder=folder, retention=Retention(**days))
    purge.Purge(opened, settings, moment=moment).run()


def _fatal(real: Callable[..., Any], number: int, when: str) -> Callable[..., Any]:
    calls = 0

    def fatal(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = real(*arguments, **named)
        if calls == number and when == "behind":
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return fatal
