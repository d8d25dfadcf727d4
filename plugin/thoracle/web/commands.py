"""`thoracle web` and `thoracle person`. Each imports what it needs when it runs, as in ``cli``."""

from pathlib import Path
from typing import Annotated

import typer

from thoracle.settings import Settings, load

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration file; without it, the defaults."),
]


def web_command(config: ConfigOption = None) -> None:
    """Serve the pages: worklist, dashboard, people; beside the gateway, until SIGTERM."""
    from thoracle import log
    from thoracle.web import serve

    settings = Settings() if config is None else load(config)
    log.configure(settings.log_level)
    serve.serve(settings)
