"""`thoracle person`: its commands. Each imports what it needs when it runs."""

import getpass
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from thoracle.cli.options import ConfigOption, JsonOption, database_of, print_json, say, settings_of
from thoracle.errors import ThoracleError

app = typer.Typer(help="Manage accounts for the pages.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="Log-in name.")]
RoleOption = Annotated[
    list[str], typer.Option("--role", help="reader, administrator or auditor; can be repeated.")
]
AskOption = Annotated[
    bool, typer.Option("--ask", help="Ask for the password instead of making a one-time one.")
]


@contextmanager
def _transaction(config: Path | None) -> Iterator[Any]:
    with database_of(settings_of(config)).begin() as connection:
        yield connection


@app.command("add")
def add_command(
    name: NameArgument,
    role: RoleOption,
    shown: Annotated[str, typer.Option(help="Display name; default: the log-in name.")] = "",
    ask: AskOption = False,
    config: ConfigOption = None,
) -> None:
    """Add an account, and print a one-time password."""
    from thoracle.accounts import accounts as audited
    from thoracle.web.session import credentials

    name = credentials.folded_name(name)
    values = credentials.account_columns(name, shown, _roles(role), None)
    password, secret = _password(name, ask)
    with _transaction(config) as connection:
        audited.add(connection, _by(), name, {**values, **secret})
    say(f"{name} added: {', '.join(values['roles'])}")
    _print_password(password)


@app.command("list")
def list_command(
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List accounts."""
    from thoracle.accounts import rows as people
    from thoracle.store.tables import now

    with _transaction(config) as connection:
        rows = people.rows(connection)
    stamp = now()
    for row in rows:
        facts = {
            "name": row.name,
            "display_name": row.display_name,
            "roles": row.roles,
            "state": _state(row, stamp),
            "by": "institution" if row.subject else "password",
            "second_factor": row.has_second_factor,
            "sessions": row.sessions,
        }
        if as_json:
            print_json(facts)
        else:
            text = f"{row.name} ({row.display_name}): {', '.join(row.roles)}; {facts['state']}"
            say(f"{text}; second factor" if row.has_second_factor else text)


def _state(row: Any, stamp: str) -> str:
    if row.disabled:
        return "disabled"
    if row.locked_until is not None and row.locked_until > stamp:
        return f"locked until {row.locked_until}"
    return "one-time password" if row.one_time_until is not None else "active"


@app.command("roles")
def roles_command(name: NameArgument, role: RoleOption, config: ConfigOption = None) -> None:
    """Set the roles of an account; its sessions end."""
    from thoracle.web.session.access import Role

    chosen = set(_roles(role))
    values = {"roles": [one.value for one in Role if one in chosen]}
    _change(config, name, values, values)


@app.command("disable")
def disable_command(name: NameArgument, config: ConfigOption = None) -> None:
    """Disable an account; its sessions end and its tokens stop working."""
    _change(config, name, {"disabled": 1}, {"disabled": True})


@app.command("enable")
def enable_command(name: NameArgument, config: ConfigOption = None) -> None:
    """Enable an account, or unlock one after failed log-ins."""
    _change(
        config, name, {"disabled": 0, "failures": 0, "locked_until": None}, {"enabled": True}, False
    )


@app.command("password")
def password_command(
    name: NameArgument, ask: AskOption = False, config: ConfigOption = None
) -> None:
    """Reset a password, by default to a one-time one; the sessions end."""
    from thoracle.web.session import credentials

    password, values = _password(credentials.folded_name(name), ask)
    _change(config, name, values, {"password": "one-time" if password else "set"})
    _print_password(password)


@app.command("reset-second-factor")
def reset_second_factor_command(name: NameArgument, config: ConfigOption = None) -> None:
    """Remove the second factor of an account, e.g. after its phone was lost; the sessions end."""
    from thoracle.accounts import second_factor
    from thoracle.web.session import credentials

    name = credentials.folded_name(name)
    with _transaction(config) as connection:
        second_factor.reset(connection, _by(), name)
    say(f"{name} changed")


def _change(
    config: Path | None,
    name: str,
    values: Mapping[str, Any],
    what: dict[str, Any],
    ends_sessions: bool = True,
) -> None:
    from thoracle.accounts import accounts as audited
    from thoracle.web.session import credentials

    name = credentials.folded_name(name)
    with _transaction(config) as connection:
        audited.change(connection, _by(), name, values, what, ends_sessions=ends_sessions)
    say(f"{name} changed")


def _roles(typed: list[str]) -> list[Any]:
    from thoracle.web.session.access import Role

    known = [role.value for role in Role]
    for one in typed:
        if one not in known:
            raise ThoracleError(f"--role: found {one!r:.40}, required: one of {', '.join(known)}")
    return [Role(one) for one in typed]


def _password(name: str, ask: bool) -> tuple[str, dict[str, Any]]:
    """Return a one-time password to be printed, or an empty text, and the columns of the person."""
    from thoracle.web.session import credentials

    if not ask:
        return credentials.one_time_password()
    typed = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != typed:
        raise ThoracleError("found two different passwords, required: the same twice")
    return "", {**credentials.chosen_password(typed, name), "failures": 0, "locked_until": None}


def _print_password(password: str) -> None:
    if password:
        say(f"one-time password, to be changed at the first log-in within 72 hours: {password}")


def _by() -> Any:
    from thoracle.accounts.accounts import Actor

    return Actor(getpass.getuser()[:64])
