"""What we accept, propose and answer on a network: tables for docs/dicom-conformance.md.

What is proposed, and what a status leads to, is what was seen on associations with an archive in
this process.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    UnifiedProcedureStepEvent,
    UnifiedProcedureStepPull,
    Verification,
)

import iods
from pacs import Pacs, free_port
from thoracle import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from thoracle.deliver import commitment, dicomweb, query, storescu
from thoracle.deliver.association import Peer
from thoracle.deliver.commitment import Reference
from thoracle.deliver.dicomweb import WebPeer
from thoracle.deliver.storescu import Outgoing, Receipt
from thoracle.errors import ArchiveUnavailable, DeliveryError
from thoracle.receive import negotiation
from thoracle.receive.storescp import STATUSES
from thoracle.report import header
from thoracle.settings import Receive, Settings
from thoracle.ups import scp as upsscp
from thoracle.ups.scu import EventReport, Worklist, retrieve, send_reports
from thoracle.ups.states import STATUSES as STATUSES_OF_WORKITEMS

ANSWERS = (
    *(0x0000, 0x0110, 0x0111, 0x0118, 0x0122, 0x0124, 0x0211, 0x0213),
    *(0xA700, 0xA900, 0xB000, 0xB006, 0xB007, 0xC000, 0xFE00),
)
"""Statuses of archives whose effect is looked at."""
REFERENCE = Reference(Comprehensive3DSRStorage, "2.25.1.1")


def delivered(peer: Peer, path: Path) -> Receipt:
    """Return an archive's receipt for one object."""
    (answer,) = storescu.deliver(peer, [Outgoing(path, lambda: path)])
    if isinstance(answer, Exception):
        raise answer
    return answer


def table(*columns: str) -> list[str]:
    """Return the head of a table."""
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def made() -> dict[str, Dataset]:
    """Return an object of each kind, built of one image."""
    return iods.varied()[""]


# ---- Services and contexts ---------------------------------------------------------------------


def overview() -> Iterator[str]:
    """Yield the table of SOP Classes and roles."""
    yield from table("SOP Class", "UID", "SCU", "SCP")
    rows: list[tuple[UID, str, str]] = [(UID(Verification), "yes", "yes")]
    rows += [(uid, "option", "yes") for uid in negotiation.IMAGE_STORAGE]
    created = {UID(ds.SOPClassUID) for ds in made().values()} | {ComprehensiveSRStorage}
    for uid in sorted(created, key=lambda uid: uid.name):
        accepted = "option" if uid == SecondaryCaptureImageStorage else "no"
        rows.append((uid, "yes", accepted))
    rows.append((UID(StorageCommitmentPushModel), "yes", "no"))
    rows.append((UID(StudyRootQueryRetrieveInformationModelFind), "yes", "no"))
    rows.append((UID(StudyRootQueryRetrieveInformationModelMove), "option", "no"))
    rows.append((UID(UnifiedProcedureStepPull), "option", "option"))
    rows += [(UID(one), "no", "option") for one in upsscp.SOP_CLASSES[1:]]
    rows.append((UID(UnifiedProcedureStepEvent), "no", "option"))
    for uid, scu, scp in rows:
        yield f"| {uid.name} | {uid} | {scu} | {scp} |"


def accepted() -> Iterator[str]:
    """Yield the contexts that the listener accepts, as its application entity is set up."""
    ae = negotiation.application_entity(Receive(secondary_capture=True))
    workitems = upsscp.Workitems(Settings(), lambda: nullcontext(), lambda _: None)
    workitems.support(ae)
    yield from table("abstract syntax", "UID", "transfer syntaxes", "our role")
    for one in ae.supported_contexts:
        uid = UID(one.abstract_syntax or "")
        many = len(one.transfer_syntax) == len(negotiation.TRANSFER_SYNTAXES)
        which = "table below" if many else ", ".join(UID(s).name for s in one.transfer_syntax)
        role = "SCU (role selection)" if one.scu_role else "SCP"
        option = ", with `receive.secondary_capture`" if uid == SecondaryCaptureImageStorage else ""
        option = ", with `ups.offer`" if uid in upsscp.SOP_CLASSES else option
        yield f"| {uid.name}{option} | {uid} | {which} | {role} |"
    yield ""
    yield from table("transfer syntax", "UID")
    for syntax in negotiation.TRANSFER_SYNTAXES:
        yield f"| {syntax.name} | {syntax} |"


@cache
def requested() -> dict[str, Any]:
    """Return what we ask for on the wire: the A-ASSOCIATE-RQ of each service, by its name."""
    seen: list[Any] = []
    ae = AE(ae_title="ARCHIVE")
    ae.add_supported_context(Verification)
    port = free_port()
    server: Any = ae.start_server(
        ("127.0.0.1", port),
        block=False,
        evt_handlers=[(evt.EVT_REQUESTED, lambda event: seen.append(event.assoc.requestor))],
    )
    peer = Peer("ARCHIVE", "127.0.0.1", port, "THORACLE", 10)
    asked: dict[str, Callable[[], object]] = {"Verification": lambda: storescu.echo(peer)}
    with TemporaryDirectory(prefix="thoracle-docs-") as name:
        for kind, ds in made().items():
            path = Path(name) / f"{kind}.dcm"
            path.write_bytes(header.encode(ds))
            asked[f"Storage of {kind}"] = partial(delivered, peer, path)
        asked["Storage Commitment"] = lambda: commitment.request(
            peer, "2.25.1", [REFERENCE], lambda _: True, 0
        )
        asked["Retrieve of images"] = lambda: retrieve(
            peer, "THORACLE", "2.25.3", "2.25.2", ["2.25.1"]
        )
        asked["Workitems of others"] = lambda: Worklist(peer).__enter__()
        event = EventReport("2.25.1", 1, Dataset())
        asked["Event reports on workitems"] = lambda: list(send_reports(peer, [event]))
        asked["Query"] = lambda: query.found(peer, "2.25.3", "2.25.2", ["2.25.1"])
        found = {}
        try:
            for service, ask in asked.items():
                with suppress(DeliveryError):  # this archive takes Verification alone
                    ask()
                found[service] = seen[-1]
        finally:
            server.shutdown()
    return found


def proposed() -> Iterator[str]:
    """Yield the contexts that are proposed, service by service."""
    yield from table("service", "abstract syntax", "UID", "transfer syntaxes")
    for service, requestor in requested().items():
        for one in requestor.requested_contexts:
            uid = UID(one.abstract_syntax)
            syntaxes = ", ".join(UID(syntax).name for syntax in one.transfer_syntax)
            yield f"| {service} | {uid.name} | {uid} | {syntaxes} |"


def identification() -> Iterator[str]:
    """Yield how we identify ourselves on associations and in files."""
    one = requested()["Verification"]
    extended = {
        "Asynchronous Operations Window": one.asynchronous_operations,
        "SCP/SCU Role Selection": one.role_selection,
        "SOP Class Extended Negotiation": one.sop_class_extended,
        "User Identity Negotiation": one.user_identity,
    }
    yield from table("what", "on associations that we request", "in the files that we write")
    ours = (IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME)
    asked = (one.implementation_class_uid, one.implementation_version_name)
    for title, asks, writes in zip(("Class UID", "Version Name"), asked, ours, strict=True):
        yield f"| Implementation {title} | {asks} | {writes} |"
    yield f"| Maximum Length Received, bytes | {one.maximum_length} | |"
    for title, offered in extended.items():
        yield f"| {title} | {'offered' if offered and offered != (1, 1) else 'not offered'} | |"


# ---- Statuses ----------------------------------------------------------------------------------


def c_store_answers() -> Iterator[str]:
    """Yield the statuses with which the listener answers a C-STORE."""
    yield from table("status", "name", "when", "clause")
    for one in STATUSES:
        yield f"| 0x{one.code:04X} | {one.name} | {one.when} | {one.clause} |"


def reaction(ask: Callable[[], object]) -> str:
    """Return what comes of a request."""
    try:
        answer = ask()
    except ArchiveUnavailable:
        return "tried again"
    except DeliveryError:
        return "refused"
    return "not offered" if answer in (None, commitment.Requested.NOT_OFFERED) else "taken"


def reactions() -> Iterator[str]:
    """Yield what each status of an archive led to, in an exchange with one that answers so."""
    yield from table("status", "C-STORE", "N-ACTION of Storage Commitment", "C-FIND")
    with (
        TemporaryDirectory(prefix="thoracle-docs-") as name,
        Pacs("ARCHIVE", commitment=True, query=True) as pacs,
    ):
        path = Path(name) / "sr.dcm"
        path.write_bytes(header.encode(made()["sr"]))
        pacs.report_after = None
        peer = Peer("ARCHIVE", "127.0.0.1", pacs.port, "THORACLE", 10)
        for status in ANSWERS:
            pacs.status = pacs.commitment_status = pacs.find_status = status
            cells = [
                reaction(lambda: delivered(peer, path)),
                reaction(
                    lambda: commitment.request(peer, "2.25.1", [REFERENCE], lambda _: True, 0)
                ),
                reaction(lambda: query.found(peer, "2.25.3", "2.25.2", ["2.25.1"])),
            ]
            yield f"| 0x{status:04X} | {' | '.join(cells)} |"


def event_reports() -> Iterator[str]:
    """Yield the statuses with which an N-EVENT-REPORT is answered."""
    yield from table("status", "when")
    for status, when in (
        (commitment.SUCCESS, "The report is recorded durably."),
        (
            commitment.PROCESSING_FAILURE,
            "It could not be recorded; the archive may report again.",
        ),
        (commitment.NO_SUCH_EVENT_TYPE, "The Event Type ID is neither 1 nor 2."),
        (
            commitment.INVALID_ARGUMENT_VALUE,
            "The transaction is not one that we asked of this archive, or the Event Information "
            "cannot be used.",
        ),
        (
            commitment.NO_SUCH_SOP_CLASS,
            "Another SOP Class than Storage Commitment Push Model.",
        ),
    ):
        yield f"| 0x{status:04X} | {when} |"


def workitem_answers() -> Iterator[str]:
    """Yield the statuses with which requests about workitems are answered."""
    yield from table("status", "when", "clause")
    for one in sorted(STATUSES_OF_WORKITEMS, key=lambda one: one.code):
        yield f"| 0x{one.code:04X} | {one.when} | {one.clause} |"


def http_reactions() -> Iterator[str]:
    """Yield what HTTP statuses of a DICOMweb archive lead to."""
    yield from table("HTTP status", "reaction")
    peer = WebPeer("https://archive", 10)
    for status in (400, 401, 403, 404, 408, 413, 415, 425, 429, 500, 501, 503):
        error = dicomweb.failure(peer, status)
        again = isinstance(error, ArchiveUnavailable)
        yield f"| {status} | {'tried again' if again else 'refused'} |"
