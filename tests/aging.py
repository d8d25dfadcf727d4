"""Time that has passed, for a gateway's studies: their rows are set back by days."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import processes
from gateway import Gateway

OF_STUDY = {
    "study": ("changed_at", "first_received_at"),
    "instance": ("received_at",),
    "analysis": ("finished_at",),
}
OF_RESULT = ("outbox",)


def back(moment: str | None, days: float) -> str | None:
    """Return a stored moment so many days earlier."""
    if moment is None:
        return None
    earlier = datetime.fromisoformat(moment) - timedelta(days=days)
    return earlier.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def age(data_folder: Path, study: str, days: float) -> None:
    """Let everything about a study have happened so many days earlier."""
    with (
        closing(sqlite3.connect(data_folder / "thoracle.sqlite", timeout=30)) as database,
        database,
    ):
        database.create_function("back", 2, back)
        for table, columns in OF_STUDY.items():
            for column in columns:
                database.execute(
                    f"UPDATE {table} SET {column} = back({column}, ?) WHERE study_instance_uid = ?",
                    (days, study),
                )
        for table in OF_RESULT:
            database.execute(
                f"UPDATE {table} SET changed_at = back(changed_at, ?) WHERE sop_instance_uid IN "
                "(SELECT sop_instance_uid FROM result WHERE study_instance_uid = ?)",
                (days, study),
            )


def asked(gateway: Gateway, *arguments: str) -> str:
    """Return what a command of a group prints that shares the gateway's configuration."""
    return processes.run(*arguments, "--config", str(gateway.config), check=True).stdout
