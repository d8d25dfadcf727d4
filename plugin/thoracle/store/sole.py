"""One gateway at a time on a PostgreSQL database, whatever its data folder is.

The lock is the session's, on a connection of its own: when that ends, however it ends, the server
gives the lock to the next who asks. So a gateway that loses the connection has no right to work
any more, even if it could reach the server again: it has to end, and to begin as after a crash.
"""

import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import psycopg
from sqlalchemy import Engine, event

from thoracle.errors import DataFolderInUse
from thoracle.store.database import named
from thoracle.store.postgresql import key, refuse

logger = logging.getLogger(__name__)

WAIT_SECONDS = 5.0
"""Until a server has noticed that the process before is dead."""
LOOK_SECONDS = 2.0
"""An end that nobody told of is noticed so soon, and libpq's ``tcp_user_timeout``."""
GATEWAY = key("gateway")

_HELD_BY = """
SELECT pid, application_name, coalesce(host(client_addr), 'this machine') AS address,
       backend_start::timestamptz(0)::text AS since
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND (classid::bigint << 32 | objid::bigint) = %s
  AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class SoleGateway:
    """The right to be the gateway of a database.

    Parameters
    ----------
    lost
        Called once, from a thread of its own, with the reason, when the right is lost.

    Raises
    ------
    DataFolderInUse
        Another process has it.
    """

    def __init__(self, database: Engine, lost: Callable[[str], None]) -> None:
        self._database = database
        # Kept, because the connection is closed with it.
        self._pooled = cast(Any, database.raw_connection())
        self._connection = self._pooled.driver_connection
        self._pooled.detach()
        self._connection.autocommit = True
        self._closed = threading.Event()
        self._pid = int(self._connection.info.backend_pid)
        self._take()
        event.listen(database, "connect", self._require)
        threading.Thread(target=self._watch, args=(lost,), name="lock", daemon=True).start()

    def _take(self) -> None:
        name = f"thoracle serve on {socket.gethostname()}"[:63]
        self._connection.execute("SELECT set_config('application_name', %s, false)", (name,))
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._one("SELECT pg_try_advisory_lock(%s)", GATEWAY)[0]:
            if time.monotonic() > deadline:
                _, who, address, since = self._one(_HELD_BY, GATEWAY) or (0, "another", "", "")
                self._connection.close()
                raise DataFolderInUse(
                    f"{named(self._database)}: found {who} ({address}) at work since {since}, "
                    "required is no other gateway"
                )
            time.sleep(0.2)

    def _one(self, statement: str, *values: object) -> Any:
        return self._connection.execute(statement, values).fetchone()

    def _require(self, connection: Any, _record: Any) -> None:
        """Refuse a new connection to a server on which the lock is not: another one, or restarted.

        So nothing is written there while the end of the connection with the lock has not been
        noticed yet.
        """
        held = connection.execute(_HELD_BY, (GATEWAY,)).fetchone()
        if held is None or held[0] != self._pid:
            refuse(connection, "the lock of this gateway is not on the server any more")
        connection.commit()

    def _watch(self, lost: Callable[[str], None]) -> None:
        try:
            while not self._closed.is_set():
                # Readable without a question: the server says goodbye, or is gone.
                select.select([self._connection.fileno()], [], [], LOOK_SECONDS)
                self._connection.execute("SELECT 1")
        except (psycopg.Error, OSError, ValueError) as error:
            if not self._closed.is_set():
                lost(" ".join(str(error).split()))

    def close(self) -> None:
        """Give the right back."""
        self._closed.set()
        event.remove(self._database, "connect", self._require)
        self._connection.close()
