"""The steps that ask an archive for proof. Each returns what came of it as plain values."""

import logging
from collections.abc import Callable
from typing import Any

from dbos import DBOS

from thoracle.deliver import commitment, query, stowrs
from thoracle.deliver import rows as requests
from thoracle.deliver.commitment import Reference, Requested
from thoracle.deliver.commitment_answers import Answer
from thoracle.deliver.peers import peer_of, web_peer_of
from thoracle.deliver.proofs import ASKED, NOT_OFFERED, UNAVAILABLE
from thoracle.errors import ArchiveRefused, ArchiveSilent, ArchiveUnavailable, DeliveryError
from thoracle.settings import Destination
from thoracle.study.line import parts

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 0.5
"""Time in which an archive may answer on the association that asked for its commitment."""


def ask(
    destination: str, transaction_uid: str, on_answer: Callable[[str, Answer], bool]
) -> dict[str, Any]:
    """Ask an archive to commit to what a request is about; return ``outcome`` and ``detail``.

    ``on_answer`` is told of an answer on the same association, as by the listener of one on
    another; being a function, it keeps this from being a step itself.
    """
    line = parts()
    at = line.destinations.get(destination)
    if at is None or at.url is not None or at.proof != "commitment":
        return {"outcome": NOT_OFFERED, "detail": None}
    with line.database.connect() as connection:
        rows = requests.unproven(connection, transaction_uid)
    references = [
        Reference(row.delivered_sop_class_uid, row.delivered_sop_instance_uid) for row in rows
    ]
    ae_title = at.ae_title or ""

    try:
        requested = commitment.request(
            peer_of(at, line.settings),
            transaction_uid,
            references,
            lambda answer: on_answer(ae_title, answer),
            PATIENCE_SECONDS,
        )
    except (ArchiveSilent, ArchiveRefused) as error:
        return {"outcome": NOT_OFFERED, "detail": str(error)}
    except (ArchiveUnavailable, OSError) as error:
        return {"outcome": UNAVAILABLE, "detail": str(error)}
    offered = requested is Requested.ASKED
    return {"outcome": ASKED if offered else NOT_OFFERED, "detail": None}


@DBOS.step(name="find")
def find(destination: str, transaction_uid: str) -> dict[str, Any]:
    """Look in an archive for what a request is about.

    Returns ``found`` and ``unavailable``, and for the trail ``means`` and ``asked``: C-FIND or
    QIDO-RS, and the objects by their series; ``None`` and empty when there was nobody to ask.
    """
    line = parts()
    at = line.destinations.get(destination)
    if at is None:
        return {"found": None, "unavailable": None, "means": None, "asked": {}}
    with line.database.connect() as connection:
        rows = requests.unproven(connection, transaction_uid)
    # One series at a time: its UID is a key of the query (PS3.4 Section C.4.1).
    asked: dict[str, list[str]] = {}
    for row in rows:
        asked.setdefault(row.series_instance_uid, []).append(row.delivered_sop_instance_uid)
    answer = _found(at, rows[0].study_instance_uid, asked) if rows else {"found": []}
    means = "QIDO-RS" if at.url is not None else "C-FIND"
    return {"unavailable": None, **answer, "means": means if rows else None, "asked": asked}


def _found(at: Destination, study: str, asked: dict[str, list[str]]) -> dict[str, Any]:
    """Return ``found``, ``None`` when the archive offers no query, or ``unavailable``."""
    settings = parts().settings
    found: set[str] = set()
    try:
        for series, wanted in sorted(asked.items()):
            if at.url is not None:
                here = stowrs.found(web_peer_of(at, settings), study, series, wanted)
            else:
                here = query.found(peer_of(at, settings), study, series, wanted)
            if here is None:
                return {"found": None}
            found |= here
    except (ArchiveSilent, ArchiveRefused) as error:
        return {"found": None, "refused": str(error)}
    except (DeliveryError, OSError) as error:
        return {"found": None, "unavailable": str(error)}
    return {"found": sorted(found)}
