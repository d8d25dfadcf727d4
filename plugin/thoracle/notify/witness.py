"""The witness: a second host that keeps the anchors of the audit.

Who can write to the database and to the data folder can write both anew; what the witness has they
cannot. It gets the line that is in the file of anchors, so what it keeps is such a file.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import requests
from sqlalchemy import Connection, Engine, delete, func, select

from thoracle.deliver.dicomweb import WebPeer, address, talking
from thoracle.outbox import rows
from thoracle.outbox.senders import OutboxItem, SendAnswer, Sender
from thoracle.settings import Settings, Witness
from thoracle.store import anchors
from thoracle.store.database import begin_writing
from thoracle.store.tables import outbox

KIND = "witness"


def offer(database: Engine, settings: Settings) -> None:
    """Have the newest anchor sent, unless one still waits: the newest of then follows that one.

    So an outage of days leaves one row, and each attempt at it one event.
    """
    anchor = anchors.last_anchor(settings.data_folder / anchors.ANCHORS_FILE)
    witness = settings.audit.witness
    if witness is None or anchor is None:
        return
    mine = (outbox.c.kind == KIND) & (outbox.c.peer == witness.name)
    with database.begin() as connection:
        begin_writing(connection)
        open_ = select(outbox.c.id).where(mine, outbox.c.state == "waiting")
        if connection.execute(open_).first() is not None:
            return
        item = f"{anchor.id}-{anchor.digest}"[:64]
        rows.add(connection, KIND, witness.name, item, content=anchor.as_json())
        last = select(func.max(outbox.c.id)).where(mine, outbox.c.state == "delivered")
        older = outbox.c.id < last.scalar_subquery()
        connection.execute(delete(outbox).where(mine, outbox.c.state == "delivered", older))


@dataclass(frozen=True, slots=True)
class Witnessed:
    """How far the witness is."""

    where: str
    last_id: int | None
    """Row of the last anchor that it took; ``None``: it has none of us."""
    last_at: str
    """When it took it, ISO 8601 in UTC; empty: never."""
    waiting: tuple[int, ...]
    """Rows of the anchors that are tried until it takes them; dead letters are not among them."""
    detail: str
    """Why it did not take the newest of them; empty: it was not tried yet."""


def state(connection: Connection, settings: Settings) -> Witnessed | None:
    """Return how far the witness is; ``None``: there is none in the settings."""
    witness = settings.audit.witness
    if witness is None:
        return None
    mine = (outbox.c.kind == KIND) & (outbox.c.peer == witness.name)
    found = connection.execute(select(outbox).where(mine).order_by(outbox.c.id)).all()
    taken = [row for row in found if row.state == "delivered"]
    left = [row for row in found if row.state == "waiting"]
    return Witnessed(
        where=where(witness),
        last_id=int(taken[-1].content["id"]) if taken else None,
        last_at=taken[-1].changed_at if taken else "",
        waiting=tuple(int(row.content["id"]) for row in left),
        detail=(left[-1].detail or "") if left else "",
    )


# ---- sending -------------------------------------------------------------------------------------


def send(witness: Witness, items: Sequence[OutboxItem]) -> Iterator[SendAnswer]:
    """Post anchors on one connection; yield what was answered to each."""
    peer = _peer(witness)
    with talking(peer) as (session, _):
        for item in items:
            yield _posted(session, peer, item)


def _posted(session: requests.Session, peer: WebPeer, item: OutboxItem) -> SendAnswer:
    body = json.dumps(item.content).encode()
    headers = {"Content-Type": "application/json"}
    response = session.post(
        peer.url, data=body, headers=headers, timeout=peer.timeout_seconds, stream=True
    )
    with response:  # what it says beside the status is not read
        status = response.status_code
    if 200 <= status < 300:
        return SendAnswer("delivered", status=str(status), proof="acknowledgement")
    # An anchor has nothing of its own to be refused for, so whatever it is, somebody mends it there
    # or in the settings.
    return SendAnswer("waiting", f"{address(peer)} answered {status}, required: 200 to 299")


def _peer(witness: Witness) -> WebPeer:
    return WebPeer(witness.url, witness.timeout_seconds, token=witness.token, tls=witness.tls)


def where(witness: Witness) -> str:
    """Return where the witness is: a path may hold a secret, so not the whole url."""
    return f"audit witness {address(_peer(witness))}"


def reach(witness: Witness, _settings: Settings, seconds: float | None = None) -> str:
    """Return whether the witness answers, and how; nothing is posted."""
    patience = min(seconds or witness.timeout_seconds, witness.timeout_seconds)
    with talking(_peer(witness)) as (session, _):
        status = session.options(witness.url, timeout=patience).status_code
    return f"answers OPTIONS with {status}; nothing was posted"


SENDER = Sender(
    kind=KIND,
    table="audit",
    peers=lambda settings: () if settings.audit.witness is None else (settings.audit.witness,),
    where=where,
    reach=reach,
    send=send,
    audited=False,  # an event of each would be a row behind the anchor, to be anchored and sent
)
