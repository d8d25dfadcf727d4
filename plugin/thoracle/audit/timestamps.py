"""Time stamps of anchors (RFC 3161): a third party certifies when the log had which length.

What is stamped is what the anchor's signature is over too (:attr:`Anchor.content`), by its SHA-256.
The answers are kept in a file like that of the anchors, one JSON object a line, and the log records
the digest of each: one that was taken away is missed.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import requests
from cryptography import x509
from rfc3161_client import (
    HashAlgorithm,
    PKIStatus,
    TimestampRequestBuilder,
    TimeStampResponse,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)
from sqlalchemy import Connection, select

from thoracle.audit.sentences import inert
from thoracle.deliver.dicomweb import WebPeer, address, talking
from thoracle.errors import ThoracleError
from thoracle.settings import Settings
from thoracle.store import anchors, files, trail
from thoracle.store.anchors import Anchor
from thoracle.store.tables import audit_event

STAMPS_FILE = "audit-timestamps.jsonl"
"""Below the data folder."""
SHA256 = "2.16.840.1.101.3.4.2.1"
TIMEOUT_SECONDS = 30.0
LARGEST_ANSWER = 1 << 20
"""Bytes; a token with its certificates has some thousand."""
CLOCK = timedelta(minutes=5)
"""So much earlier than the anchor a certified time may be: clocks differ."""
UNVERIFIED = "found no audit.timestamp_ca_file, required to verify it"
_REQUEST = {"Content-Type": "application/timestamp-query"}
"""RFC 3161 Section 3.4."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """An anchor, and what a time-stamping authority answered to it."""

    anchor: Anchor
    answer: bytes
    """A TimeStampResp in DER."""

    @property
    def decoded(self) -> TimeStampResponse:
        """The answer, which was decoded before it was kept."""
        return decode_timestamp_response(self.answer)

    @property
    def sha256(self) -> str:
        """Of the answer, hexadecimal: what the log has recorded of it."""
        return hashlib.sha256(self.answer).hexdigest()

    @property
    def time(self) -> datetime:
        """The certified time, in UTC."""
        return self.decoded.tst_info.gen_time


# ---- asking --------------------------------------------------------------------------------------


def ask(url: str, anchor: Anchor, roots: Sequence[x509.Certificate]) -> Stamp:
    """Have an anchor time-stamped; return the stamp, which was verified.

    Raises
    ------
    ThoracleError
        The authority is not reached, refuses, or answers what cannot be trusted.
    """
    builder = TimestampRequestBuilder(data=anchor.content, hash_algorithm=HashAlgorithm.SHA256)
    request = builder.build()
    peer = WebPeer(url, TIMEOUT_SECONDS)
    with talking(peer) as (session, _):
        answer = _posted(session, peer, request.as_bytes())
    stamp = Stamp(anchor, answer)
    if fault := next(_faults(stamp, roots, request.nonce), None):
        raise ThoracleError(f"{address(peer)}: {fault}")
    return stamp


def _posted(session: requests.Session, peer: WebPeer, query: bytes) -> bytes:
    with session.post(
        peer.url, data=query, headers=_REQUEST, timeout=peer.timeout_seconds, stream=True
    ) as response:
        if response.status_code != 200:
            raise ThoracleError(
                f"{address(peer)}: found HTTP status {response.status_code}, required: 200 with "
                "a time stamp"
            )
        return b"".join(_limited(response, peer))


def _limited(response: requests.Response, peer: WebPeer) -> Iterator[bytes]:
    size = 0
    for part in response.iter_content(1 << 16):
        size += len(part)
        if size > LARGEST_ANSWER:
            raise ThoracleError(
                f"{address(peer)}: found more than {LARGEST_ANSWER} bytes, required: a time stamp"
            )
        yield part


# ---- verification --------------------------------------------------------------------------------


def authorities(path: Path) -> list[x509.Certificate]:
    """Return the certificates that a time stamp must lead to.

    Raises
    ------
    ThoracleError
        The file has none.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ThoracleError(f"{path}: found no certificate, required: some as PEM") from error


def fault(stamp: Stamp, roots: Sequence[x509.Certificate]) -> str:
    """Return what is wrong with a stamp that is kept; empty: it certifies its anchor."""
    return next(_faults(stamp, roots), "")


def _faults(
    stamp: Stamp, roots: Sequence[x509.Certificate], nonce: int | None = None
) -> Iterator[str]:
    """Yield what is wrong, the cause before what follows from it."""
    try:
        answer = stamp.decoded
        status = answer.status
    except ValueError:
        size = len(stamp.answer)
        yield f"found {size} bytes that are no time-stamp response, required: RFC 3161 in DER"
        return
    if status != PKIStatus.GRANTED:
        said = inert("; ".join(answer.status_string), 200)
        name = next((one.name.lower() for one in PKIStatus if one == status), "unknown")
        yield f"found status {status} ({name}: {said or 'no reason'}), required: 0 (granted)"
        return
    yield from _of_content(answer, stamp.anchor, nonce)
    try:
        builder = VerifierBuilder(roots=list(roots), nonce=nonce)
        builder.build().verify_message(answer, stamp.anchor.content)
    except (VerificationError, ValueError) as error:
        yield (
            f"its signature is not accepted: found {inert(error, 200)}, required: a certificate "
            "for time stamping that leads to one of audit.timestamp_ca_file"
        )
    made = datetime.fromisoformat(stamp.anchor.recorded_at)
    if answer.tst_info.gen_time < made - CLOCK:
        yield (
            f"found the certified time {answer.tst_info.gen_time:%Y-%m-%d %H:%M:%S} UTC, required: "
            f"{made:%Y-%m-%d %H:%M:%S} of the anchor or later: one of the clocks is wrong"
        )


def _of_content(answer: TimeStampResponse, anchor: Anchor, nonce: int | None) -> Iterator[str]:
    imprint, expected = answer.tst_info.message_imprint, hashlib.sha256(anchor.content).digest()
    algorithm = imprint.hash_algorithm.dotted_string
    if algorithm != SHA256:
        yield f"found a message imprint by {algorithm}, required: SHA-256 ({SHA256})"
    elif imprint.message != expected:
        yield f"found message imprint {imprint.message.hex()}, required: {expected.hex()}"
    if nonce is not None and answer.tst_info.nonce != nonce:
        yield f"found nonce {answer.tst_info.nonce}, required: {nonce}"


def authority(stamp: Stamp) -> str:
    """Return who signed a stamp, as its certificate names it; empty when it has none."""
    data = stamp.decoded.signed_data
    signers = {(one.issuer, one.serial_number) for one in data.signer_infos}
    for one in map(x509.load_der_x509_certificate, sorted(data.certificates)):
        if (one.issuer, one.serial_number) in signers:
            return inert(one.subject.rfc4514_string(), 200)
    return ""


# ---- the log -------------------------------------------------------------------------------------


def lost(connection: Connection, kept: Iterable[Stamp]) -> Iterator[str]:
    """Yield a sentence for each time stamp that the log has recorded and that is not kept.

    Events of the first versions have no digest of the stamp: one of the same anchor will do.
    """
    known: set[object] = set()
    for one in kept:
        known |= {one.sha256, (str(one.anchor.id), one.anchor.digest)}
    column = audit_event.c
    statement = select(column.id, column.recorded_at, column.detail)
    verb = trail.Event.AUDIT_TIMESTAMPED.verb
    for row in connection.execute(statement.where(column.event == verb).order_by(column.id)):
        said = row.detail if isinstance(row.detail, dict) else {}
        digest = inert(said.get("sha256", ""), 64)
        anchor = (str(said.get("anchor", "")), str(said.get("digest", "")))
        if (digest or anchor) not in known:
            named = f" with SHA-256 {digest}" if digest else ""
            yield (
                f"row {inert(anchor[0], 20)}: found no time stamp{named}, required: "
                f"the one that row {row.id} of {row.recorded_at[:19]} UTC has recorded"
            )


@dataclass(frozen=True, slots=True)
class Stamped:
    """How far the log is certified."""

    number: int = 0
    """Time stamps that are kept."""
    last: Stamp | None = None
    authority: str = ""
    """Who signed the last one."""
    fault: str = ""
    """Why the last one, or the file of all, certifies nothing."""
    lost: tuple[str, ...] = ()
    """Those that the log has recorded and that are not kept."""


def state(connection: Connection, settings: Settings) -> Stamped:
    """Return the last time stamp, what is wrong with it, and those that are missing."""
    ca_file = settings.audit.timestamp_ca_file
    missing: tuple[str, ...] = ()
    try:
        found = kept(settings.data_folder / STAMPS_FILE)
        missing = tuple(lost(connection, found))
        if not found:
            return Stamped(lost=missing)
        roots = authorities(ca_file) if ca_file else []
        wrong = fault(found[-1], roots) if roots else UNVERIFIED
        return Stamped(len(found), found[-1], authority(found[-1]), wrong, missing)
    except (ThoracleError, ValueError) as error:
        return Stamped(fault=str(error), lost=missing)


# ---- the file ------------------------------------------------------------------------------------


def keep(folder: Path, stamp: Stamp) -> None:
    """Add a stamp to the file of a data folder."""
    path = folder / STAMPS_FILE
    line = {**stamp.anchor.as_json(), "answer": base64.b64encode(stamp.answer).decode()}
    before = path.read_bytes() if path.exists() else b""
    files.write_durably(path, before + f"{json.dumps(line)}\n".encode())


def kept(path: Path) -> list[Stamp]:
    """Return the stamps of a file, oldest first; none when there is no file.

    Raises
    ------
    ThoracleError
        A line is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [_parsed(path, number, line) for number, line in enumerate(lines, 1) if line]


def _parsed(path: Path, number: int, line: str) -> Stamp:
    try:
        answer = base64.b64decode(json.loads(line)["answer"], validate=True)
        return Stamp(anchors.parsed(line), answer)
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise ThoracleError(
            f"{path}, line {number}: found no time stamp, required: an object with id, digest, "
            "recorded_at and answer"
        ) from error
