"""The process of the pages: uvicorn, with the settings' address and certificate."""

import os
import resource
import socket
import ssl
import sys
from pathlib import Path
from typing import IO

import uvicorn
from fastapi import FastAPI
from sqlalchemy import Engine

from thoracle.errors import ThoracleError
from thoracle.settings import Settings, Web, tls
from thoracle.store import copies, rights, running
from thoracle.store.database import existing
from thoracle.web.app import create_app
from thoracle.web.connections import BoundedProtocol
from thoracle.web.pages import pictures
from thoracle.web.session import login

KEEP_ALIVE_SECONDS = 15
BACKLOG = 512
"""Connections that the system keeps until we take them."""
DRAIN_SECONDS = 5
"""Streams of events never end by themselves."""


def serve(settings: Settings, config: Path | None = None) -> None:
    """Serve the pages of settings, and of the file that they came from, until SIGTERM.

    Raises
    ------
    ThoracleError
        There is no database, or it has another schema: the gateway makes both. Or the port is
        in use, or this user may not do its part in the data folder.
    """
    rights.require_open(settings)
    if settings.data_folder_group:
        os.umask(rights.PAGES_UMASK)
    database = existing(settings)
    _allow_open_files()
    app = create_app(settings, database, config)
    server = uvicorn.Server(_config(app, settings.web))
    with _listener(settings.web) as listener, _locked(settings):
        _announce_first_run(settings.web, database)
        pictures.key(database)
        copies.start(database, settings)
        server.run(sockets=[listener])
    database.dispose()


def _allow_open_files() -> None:
    """Take as many open files as this process may have.

    A connection that has begun no TLS is not counted among the connections yet, and the usual
    1024 are soon used up.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _locked(settings: Settings) -> IO[str]:
    """Return the lock that tells `thoracle check` whose port it finds in use."""
    web = settings.web
    try:
        lock = running.hold(settings.pages_folder, running.lock_of_pages(settings))
    except BlockingIOError as error:  # on another address of this machine
        raise ThoracleError(
            f"web.port: found other pages of {settings.data_folder} on port {web.port}, required: "
            "one process of pages a port"
        ) from error
    running.announce(lock, os.getpid(), f"{web.host}:{web.port}")
    return lock


def _listener(web: Web) -> socket.socket:
    family = socket.AF_INET6 if ":" in web.host else socket.AF_INET
    try:
        return socket.create_server((web.host, web.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ThoracleError(
            f"web.port: found {web.host}:{web.port}: {error.strerror or error}, required: a free "
            "port of this machine"
        ) from error


def _context(web: Web) -> ssl.SSLContext | None:
    if web.certificate_file is None or web.key_file is None:
        return None
    return tls.pages_context(web.certificate_file, web.key_file)


def _config(app: FastAPI, web: Web) -> uvicorn.Config:
    context = _context(web)
    return uvicorn.Config(
        app,
        ssl_context_factory=None if context is None else lambda *_: context,
        http=BoundedProtocol,
        ws="none",
        proxy_headers=bool(web.proxy_addresses),
        forwarded_allow_ips=list(web.proxy_addresses),
        server_header=False,
        access_log=False,  # it writes queries, and with them patients; ours is in guard.py
        log_config=None,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        h11_max_incomplete_event_size=32 * 1024,
    )


def _announce_first_run(web: Web, database: Engine) -> None:
    with database.begin() as connection:
        token = login.new_first_run(connection)
    if token is None:
        return
    scheme = "http" if web.certificate_file is None else "https"
    sys.stdout.write(
        "No accounts yet. Create the first administrator at "
        f"{scheme}://{web.host}:{web.port}/first-run\nwith this token: {token}\n"
    )
    sys.stdout.flush()
