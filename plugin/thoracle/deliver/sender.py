"""Archives: objects are sent by C-STORE, or by STOW-RS to a destination with a url."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pydicom import dcmread

from thoracle.deliver import storescu, stowrs
from thoracle.deliver.peers import peer_of, web_peer_of
from thoracle.deliver.storescu import Outgoing, Receipt
from thoracle.deliver.workflows import ArchiveProver
from thoracle.outbox.rows import DICOM
from thoracle.outbox.senders import OutboxItem, SendAnswer, Sender, failure
from thoracle.records import Kind
from thoracle.report import sr
from thoracle.report.result_set import encoded
from thoracle.settings import Destination, Settings
from thoracle.study.line import parts, write_result


def send(destination: Destination, items: Sequence[OutboxItem]) -> Iterator[SendAnswer]:
    """Send objects; yield what the archive answered to each."""
    settings = parts().settings
    paths = [one.path for one in items if one.path is not None]
    if destination.url is not None:
        answers = stowrs.store_all(web_peer_of(destination, settings), paths)
    else:
        objects = [
            Outgoing(path, None if item.object is Kind.ORIGINAL else _comprehensive(path))
            for item, path in zip(items, paths, strict=True)
        ]
        answers = storescu.deliver(peer_of(destination, settings), objects)
    for one in answers:
        yield _answer(destination, one)


def _comprehensive(stored: Path) -> Callable[[], Path]:
    def made() -> Path:
        return parts().path(
            write_result(encoded(Kind.SR, sr.as_comprehensive_sr(dcmread(stored)))).path
        )

    return made


def _answer(destination: Destination, found: Receipt | Exception) -> SendAnswer:
    if isinstance(found, Exception):
        return failure(found, destination.name)
    proven = destination.proof == "status"
    return SendAnswer(
        state="delivered" if proven else "sent",
        status=found.status,
        proof="status" if proven else None,
        delivered_sop_class_uid=found.sop_class_uid,
        delivered_sop_instance_uid=found.sop_instance_uid,
    )


def where(destination: Destination) -> str:
    """Return how and where an archive is called."""
    if destination.url is not None:
        return f"STOW-RS {destination.url}"
    return f"C-STORE {destination.ae_title}@{destination.host}:{destination.port}"


def reach(destination: Destination, settings: Settings, seconds: float | None = None) -> str:
    """Return how an archive answers a C-ECHO, or a search."""
    patience = min(seconds or settings.deliver.timeout_seconds, settings.deliver.timeout_seconds)
    if destination.url is not None:
        web = replace(web_peer_of(destination, settings), timeout_seconds=patience)
        if stowrs.reachable(web):
            return "answers a search by QIDO-RS"
        return (
            "answers, and offers no QIDO-RS at this url: is it the root? Proof will be the status"
        )
    storescu.echo(replace(peer_of(destination, settings), timeout_seconds=patience))
    return "answers C-ECHO"


SENDER = Sender(
    kind=DICOM,
    table="destination",
    peers=lambda settings: settings.destination,
    where=where,
    reach=reach,
    send=send,
    prover=ArchiveProver(),
)
