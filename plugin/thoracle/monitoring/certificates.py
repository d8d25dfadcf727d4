"""Certificates that the settings name: when they end, and an alarm before they do."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from thoracle.errors import SettingsError
from thoracle.monitoring import conditions
from thoracle.monitoring.comparison import Comparison
from thoracle.settings import Section, Settings, tls

RENEW_DAYS = 30
"""Of so few days left, pages say that it is to be renewed."""
ALARM_DAYS = 7
EVERY_SECONDS = 60.0
"""Between two looks at the files."""
_FILES = ("certificate_file", "ca_file", "client_ca_file")


@dataclass(frozen=True, slots=True)
class CertificateFile:
    """A file of certificates that the settings name."""

    setting: str
    subject: str
    not_after: datetime | None
    """Of the certificate that ends first; ``None`` when the file cannot be read."""
    days: int | None
    level: str
    """``good``, ``queued`` (to be renewed), or ``failed``."""
    text: str


def certificates(settings: Settings) -> Iterator[CertificateFile]:
    """Yield the files of certificates that the settings name anywhere, with their ends."""
    now = datetime.now(UTC)
    for setting, path in _files(settings, ""):
        try:
            found = tls.certificates(setting, path)
        except SettingsError as error:
            yield CertificateFile(setting, "", None, None, "failed", str(error))
            continue
        first = min(found, key=lambda one: one.not_after)
        days = (first.not_after - now).days
        level, text = "good", f"{days} days left"
        if now > first.not_after:
            level, text = "failed", "has expired"
        elif now < first.not_before:
            level, text = "failed", "is not valid yet"
        elif days < RENEW_DAYS:
            level, text = "queued", f"{days} days left: renew it"
        yield CertificateFile(setting, first.subject, first.not_after, days, level, text)


def _files(section: Section, where: str) -> Iterator[tuple[str, Path]]:
    for name in type(section).model_fields:
        match getattr(section, name):
            case Path() as path if name in _FILES:
                yield f"{where}{name}", path
            case Section() as table:
                yield from _files(table, f"{where}{name}.")
            case tuple() as tables:
                for number, table in enumerate(tables):
                    if isinstance(table, Section):
                        which = getattr(table, "name", number)
                        yield from _files(table, f"{where}{name} {which} ")


class CertificateAlarms:
    """Alarms for certificates that end soon or have ended, while the gateway runs.

    A file that cannot be read gives none: the pages may have files that only they can read, and
    what needs the file says so itself.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._due = time.monotonic()
        self._found: tuple[Comparison, ...] = ()

    def __call__(self) -> tuple[Comparison, ...]:
        """Return the alarms that stand."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + EVERY_SECONDS
            self._found = tuple(_alarms(self._settings))
        return self._found


def _alarms(settings: Settings) -> Iterator[Comparison]:
    for one in certificates(settings):
        if one.not_after is None or (one.level != "failed" and (one.days or 0) >= ALARM_DAYS):
            continue
        text = one.text if one.level == "failed" else f"ends on {one.not_after:%Y-%m-%d %H:%M} UTC"
        yield conditions.alarm(
            f"certificate {one.setting}",
            f"Certificate of {one.setting}",
            f"The certificate {one.subject} of {one.setting} {text}.",
            "What to do: put a new certificate in its place, and restart what uses it.",
        )
