"""The configuration file as a program changes it: comments kept, checked before it is written.

Nothing is written over what somebody changed meanwhile, and a copy of the former file is kept.
"""

import copy
import fcntl
import hashlib
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import ValidationError
from tomlkit.items import InlineTable, Item, Key, Table

from thoracle.errors import SettingsError
from thoracle.settings import Settings, anchored, faults, users
from thoracle.settings.digests import flat


class FileChanged(SettingsError):
    """The file is not what it was when it was read."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one setting."""

    path: tuple[str | int, ...]
    """E.g. ``("destination", 0, "port")``; empty: no single one."""
    text: str
    """Setting, value found, value required."""


@dataclass(frozen=True, slots=True)
class ConfigurationFile:
    """A configuration as it was read."""

    path: Path
    text: str
    digest: str
    """SHA-256 of its bytes, hexadecimal."""
    values: dict[str, Any]
    """The tree of plain values, as it stands in the file."""

    def faults(self) -> list[Fault]:
        """Return what is wrong with it, as the settings say."""
        try:
            Settings.model_validate(self.values)
        except ValidationError as error:
            return [
                Fault(one["loc"], faults.sentence(one, self.values, Settings))
                for one in error.errors()
            ]
        return []

    def settings(self) -> Settings:
        """Return the settings in it, with absolute paths; it must have no faults."""
        return anchored(Settings.model_validate(self.values), self.path.parent)


def read(path: Path) -> ConfigurationFile:
    """Return a configuration file.

    Raises
    ------
    SettingsError
        It cannot be read, or is no TOML.
    """
    path = path.resolve()
    try:
        return _parsed(path, path.read_bytes().decode("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error


def _parsed(path: Path, text: str) -> ConfigurationFile:
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return ConfigurationFile(path, text, digest, tomllib.loads(text))


def why_read_only(path: Path) -> str:
    """Return why this process may not write the file, and what to do; empty: it may.

    The folder has to be writable too: a file is replaced as a whole.
    """
    path = path.resolve()
    for what in (path, path.parent):
        if not os.access(what, os.W_OK, effective_ids=True):
            return (
                f"{what} cannot be written by user {users.me()}. To allow it, let this user "
                f"own {path.parent} and the file, and under systemd add ReadWritePaths={path.parent} "
                "to thoracle-web.service (`systemctl edit thoracle-web`), then restart it."
            )
    return ""


# ---- change --------------------------------------------------------------------------------------

Change = dict[str, Any]
"""Settings of one table by name; ``None``: not in the file; a ``Change``: of the table inside."""


def with_entry(
    file: ConfigurationFile, table: str, number: int | None, change: Change
) -> ConfigurationFile:
    """Return the file with an entry of a list of tables changed, or added without ``number``.

    Raises
    ------
    SettingsError
        The file is written in a way in which that cannot be done with comments kept.
    """

    def changed(tree: Any, plain: bool) -> None:
        if number is not None:
            _set(tree[table][number], change, plain)
            return
        if table not in tree:
            tree[table] = [] if plain else tomlkit.aot()
        inline = not plain and not isinstance(tree[table], tomlkit.items.AoT)
        entry: Any = {} if plain else (tomlkit.inline_table() if inline else tomlkit.table())
        _set(entry, change, plain)
        tree[table].append(entry)

    return _changed(file, changed)


def without_entry(file: ConfigurationFile, table: str, number: int) -> ConfigurationFile:
    """Return the file without an entry of a list of tables; raises as :func:`with_entry`."""

    def changed(tree: Any, plain: bool) -> None:
        rest = [] if plain else _rest(tree[table][number])
        del tree[table][number]
        if number > 0 and rest:  # comments behind it are about what comes next
            _last(tree[table][number - 1]).value.body.extend(rest)
        if not tree[table]:
            del tree[table]

    return _changed(file, changed)


def with_table(file: ConfigurationFile, table: str, change: Change) -> ConfigurationFile:
    """Return the file with settings of a table changed; raises as :func:`with_entry`."""

    def changed(tree: Any, plain: bool) -> None:
        _set(tree, {table: change}, plain)

    return _changed(file, changed)


def _changed(file: ConfigurationFile, change: Callable[[Any, bool], None]) -> ConfigurationFile:
    """Return the file with a change that is made twice: to its text, and to its plain values."""
    wanted = copy.deepcopy(file.values)
    change(wanted, True)
    try:
        document = tomlkit.parse(file.text)
        change(document, False)
        found = _parsed(file.path, tomlkit.dumps(document))
    except (tomlkit.exceptions.TOMLKitError, AttributeError, TypeError, ValueError) as error:
        raise _beyond(file) from error
    if found.values != wanted:
        raise _beyond(file)
    return found


def _beyond(file: ConfigurationFile) -> SettingsError:
    return SettingsError(
        f"{file.path}: found a way of writing that cannot be changed here with its comments kept, "
        "required: a change by hand"
    )


def _set(tree: Any, change: Change, plain: bool) -> None:
    rest = _rest(tree) if isinstance(tree, Table) else []
    for name, value in change.items():
        if value is None:
            if name in tree:
                del tree[name]
        elif isinstance(value, dict):
            if name not in tree:
                inline = isinstance(tree, InlineTable)
                tree[name] = (
                    {} if plain else (tomlkit.inline_table() if inline else tomlkit.table())
                )
            _set(tree[name], value, plain)
        elif name not in tree or _plain(tree[name]) != value:
            tree[name] = value if plain else _item(value)
    if rest:
        tree.value.body.extend(rest)


def _plain(item: Any) -> Any:
    return item.unwrap() if hasattr(item, "unwrap") else item


def _item(value: Any) -> Item:
    if isinstance(value, str) and "\n" in value:
        return tomlkit.string(value, multiline=True)
    found: Item = tomlkit.item(value)
    return found


def _rest(table: Table) -> list[tuple[Key | None, Item]]:
    """Take the comments behind the last setting of a table from it: they are about what follows."""
    body = _last(table).value.body
    rest: list[tuple[Key | None, Item]] = []
    while body and body[-1][0] is None:
        rest.insert(0, body.pop())
    return rest


def _last(table: Table) -> Table:
    """Return the table that ends a table: itself, or the last one inside."""
    tables = [item for _, item in table.value.body if isinstance(item, Table)]
    return _last(tables[-1]) if tables else table


# ---- difference ----------------------------------------------------------------------------------

HIDDEN = "not shown"


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each setting that differs with ``setting``, ``before`` and ``after``.

    ``None`` stands for one that is not there. The place of a secret is not shown.
    """
    old, new = dict(flat(before, "")), dict(flat(after, ""))
    return [
        {"setting": name, "before": _shown(name, old), "after": _shown(name, new)}
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _shown(name: str, values: Mapping[str, Any]) -> Any:
    if name not in values:
        return None
    secret = name.rpartition(".")[2] in (*faults.SECRETS, "username")
    return HIDDEN if secret else values[name]


# ---- write ---------------------------------------------------------------------------------------


def write(former: ConfigurationFile, file: ConfigurationFile) -> Path:
    """Replace a file as a whole, with its permissions; return the copy of the former one.

    Raises
    ------
    FileChanged
        Somebody changed it since it was read; nothing is written.
    SettingsError
        It cannot be written.
    """
    path = former.path
    try:
        with path.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            if found != former.digest:
                raise FileChanged(
                    f"{path}: found digest {found[:12]}, required: {former.digest[:12]}: somebody "
                    "changed the file meanwhile. Nothing was written"
                )
            kept = path.with_name(f"{path.name}.{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
            _write(kept, former.text, path)
            part = path.with_name(f"{path.name}.part")
            part.unlink(missing_ok=True)
            _write(part, file.text, path)
            part.replace(path)
            _synchronise(path.parent)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written: {error.strerror or error}") from error
    return kept


def _write(path: Path, text: str, like: Path) -> None:
    """Write a new file durably, with owner and permissions of another one."""
    status = like.stat()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        mine = path.stat()
        if (mine.st_uid, mine.st_gid) != (status.st_uid, status.st_gid):
            os.fchown(file.fileno(), status.st_uid, status.st_gid)
        os.fchmod(file.fileno(), status.st_mode & 0o7777)
        file.write(text.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def _synchronise(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
