"""The key that anchors of the audit are signed with: Ed25519 (RFC 8032), in a file of its own.

Whoever signs is behind :class:`Signer`, so that a key in a PKCS#11 token needs no other change.
"""

import base64
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import Connection, select

from thoracle.errors import ThoracleError
from thoracle.settings import users
from thoracle.store import files, trail
from thoracle.store.tables import audit_event

KEY_FILE = "audit-key.pem"
"""Below the data folder: the private key, PKCS #8."""
PUBLIC_KEY_FILE = "audit-public-key.pem"
"""What an export calls the public key."""
KEY_BYTES = 32
"""Of a public key (RFC 8032 Section 5.1.5)."""
FINGERPRINT = 16
"""Hexadecimal digits that tell keys apart."""


class Signer(Protocol):
    """Signs; where the private key is, is its own affair."""

    @property
    def public_key(self) -> bytes:
        """32 bytes (RFC 8032 Section 5.1.5)."""

    def sign(self, content: bytes) -> bytes:
        """Return the signature, 64 bytes."""


@dataclass(frozen=True, slots=True)
class FileSigner:
    """Signs with a private key that was read from a file."""

    key: Ed25519PrivateKey

    @property
    def public_key(self) -> bytes:
        """32 bytes (RFC 8032 Section 5.1.5)."""
        return self.key.public_key().public_bytes_raw()

    def sign(self, content: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return self.key.sign(content)


def existing(folder: Path) -> FileSigner | None:
    """Return who signs with the key of a data folder, if there is one.

    Raises
    ------
    ThoracleError
        Others may read the file, it is another user's, or it has no Ed25519 key.
    """
    path = folder / KEY_FILE
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if os.geteuid() not in (0, status.st_uid):
        raise ThoracleError(
            f"{path}: found owner {users.name_of(status.st_uid)}, required: {users.me()}, who runs "
            "this; the key is for its owner alone"
        )
    mode, content = status.st_mode & 0o777, path.read_bytes()
    if mode & 0o077:
        raise ThoracleError(f"{path}: found mode {mode:04o}, required: 0600: chmod 600")
    try:
        key = serialization.load_pem_private_key(content, None)
    except (ValueError, TypeError) as error:
        raise ThoracleError(f"{path}: found no private key, required: one as PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ThoracleError(f"{path}: found {type(key).__name__}, required: an Ed25519 key")
    return FileSigner(key)


def existing_or_new(folder: Path) -> FileSigner:
    """Return who signs with the key of a data folder; make one when there is none."""
    found = existing(folder)
    if found is not None:
        return found
    signer = FileSigner(Ed25519PrivateKey.generate())
    content = signer.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = folder / KEY_FILE
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    files.sync_folder(folder)
    return signer


# ---- public keys ---------------------------------------------------------------------------------


def fingerprint(public_key: bytes) -> str:
    """Return what a public key is called: the beginning of its SHA-256."""
    return hashlib.sha256(public_key).hexdigest()[:FINGERPRINT]


def as_pem(public_key: bytes) -> str:
    """Return a public key as others read it (RFC 8410)."""
    encoded = Ed25519PublicKey.from_public_bytes(public_key).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded.decode()


def from_pem(path: Path) -> dict[str, bytes]:
    """Return the public key of a file, by its fingerprint.

    Raises
    ------
    ThoracleError
        It has none.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ThoracleError(f"{path}: found no public key, required: one as PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ThoracleError(f"{path}: found {type(key).__name__}, required: an Ed25519 key")
    raw = key.public_bytes_raw()
    return {fingerprint(raw): raw}


def is_signed(public_key: bytes, signature: bytes, content: bytes) -> bool:
    """Return whether a signature is that of the key's owner over a content."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True


# ---- keys in the trail ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """The keys that the trail says are ours."""

    keys: Mapping[str, bytes]
    """By fingerprint."""
    since: int | None
    """Row of the first of them: anchors from there on are signed. ``None``: there is none."""


def known(connection: Connection) -> KnownKeys:
    """Return the keys that the trail has."""
    column = audit_event.c
    rows = connection.execute(
        select(column.id, column.detail)
        .where(column.event == trail.Event.AUDIT_KEY_CREATED.verb)
        .order_by(column.recorded_at, column.id)
    ).all()
    found = [(row.id, public) for row in rows if (public := _public_key(row.detail))]
    keys = {fingerprint(public): public for _, public in found}
    return KnownKeys(keys, min((row_id for row_id, _ in found), default=None))


def _public_key(detail: Any) -> bytes:
    """Return the key that an event has; empty when it is none: whoever wrote it, we go on."""
    try:
        found = base64.b64decode(detail["public_key"], validate=True)
    except (TypeError, KeyError, ValueError):
        return b""
    return found if len(found) == KEY_BYTES else b""


def announce(connection: Connection, signer: Signer) -> None:
    """Have the trail say which key signs, unless it does: it is new, or its row was purged."""
    key = fingerprint(signer.public_key)
    if key not in known(connection).keys:
        public = base64.b64encode(signer.public_key).decode()
        detail = {"key": key, "public_key": public, "algorithm": "Ed25519"}
        trail.record(connection, trail.Event.AUDIT_KEY_CREATED, {"detail": detail})
