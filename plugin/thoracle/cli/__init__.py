"""The commands. Each imports what it needs when it runs, so that ``--help`` is quick."""

from thoracle.cli.commands import app, main

__all__ = ["app", "main"]
