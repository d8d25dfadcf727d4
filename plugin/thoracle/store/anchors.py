"""Anchors: what the end of the chain was at some time, kept in a second file and in the log.

Each is a line of JSON with id, digest and time, signed with the key of store/signing.py. Copy the
file to where nobody who can write to the database can write: the more often, the less can be cut
off unseen.
"""

import base64
import binascii
import json
import logging
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from thoracle.errors import ThoracleError
from thoracle.store import chain, signing
from thoracle.store.tables import now

logger = logging.getLogger(__name__)

ANCHORS_FILE = "audit-anchors.jsonl"
"""Below the data folder."""
_LAST_BYTES = 4096
"""Of a file of anchors: some twenty of them."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """The end of the chain at some time."""

    id: int
    digest: str
    """SHA-256, hexadecimal."""
    recorded_at: str = ""
    """When it was the end, ISO 8601 in UTC."""
    key: str = ""
    """Fingerprint of the key that signed it; empty: it is not signed."""
    signature: str = ""
    """Over :attr:`content`, in base64."""

    @property
    def content(self) -> bytes:
        """What is signed."""
        return f"thoracle audit anchor\n{self.id}\n{self.digest}\n{self.recorded_at}\n".encode()

    def signed(self, signer: signing.Signer) -> "Anchor":
        """Return it with a signature."""
        key = signing.fingerprint(signer.public_key)
        signature = base64.b64encode(signer.sign(self.content)).decode()
        return replace(self, key=key, signature=signature)

    def is_signed_by(self, public_key: bytes) -> bool:
        """Return whether the signature is that of a key."""
        try:
            signature = base64.b64decode(self.signature, validate=True)
        except binascii.Error:
            return False
        return signing.is_signed(public_key, signature, self.content)

    def as_json(self) -> dict[str, Any]:
        """Return it without what is empty."""
        return {name: value for name, value in asdict(self).items() if value != ""}


def drop_anchor(
    database: Engine, path: Path, signer: signing.Signer | None = None
) -> Anchor | None:
    """Add an anchor to a file and to the log; return it, or ``None`` when nothing is new."""
    with database.connect() as connection:
        last_id, digest = chain.head(connection)
    anchor = Anchor(last_id, digest, now())
    before = last_anchor(path)
    if before is not None and before.id >= last_id:
        return None
    if signer is not None:
        anchor = anchor.signed(signer)
    line = json.dumps(anchor.as_json()) + "\n"
    with path.open("a", encoding="utf-8") as file:
        file.write(line if _ends_whole(path) else f"\n{line}")
        file.flush()
        os.fsync(file.fileno())
    logger.info("audit anchor: row %d, digest %s", anchor.id, anchor.digest)
    return anchor


def _ends_whole(path: Path) -> bool:
    """Return whether no crash has cut the last line short."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read() in (b"", b"\n")


def read_anchors(path: Path) -> list[Anchor]:
    """Return the anchors of a file, oldest first; none when there is no file.

    A line that a crash cut short is left out: it has no closing brace.

    Raises
    ------
    ThoracleError
        A line is no anchor.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    anchors = []
    for number, line in enumerate(lines, 1):
        try:
            anchors.append(parsed(line))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) or (line.startswith("{") and not line.endswith("}")):
                continue
            raise ThoracleError(
                f"{path}, line {number}: found no anchor, required: an object with id, digest "
                "and recorded_at"
            ) from error
    return anchors


def last_anchor(path: Path) -> Anchor | None:
    """Return the newest anchor of a file, whatever its length; ``None`` when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LAST_BYTES))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            return parsed(line)
        except (ValueError, KeyError, TypeError):
            continue  # the last one may be cut short by a crash, the first one here by ourselves
    return None


def parsed(line: str | bytes) -> Anchor:
    """Return the anchor in a line of JSON; ValueError, KeyError or TypeError when it has none."""
    values = json.loads(line)
    text = {name: str(values.get(name, "")) for name in ("key", "signature")}
    return Anchor(int(values["id"]), str(values["digest"]), str(values["recorded_at"]), **text)
