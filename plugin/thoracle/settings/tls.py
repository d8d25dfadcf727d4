"""TLS of DICOM connections, in and out: contexts, the handshake, and what certificates say.

The profile is PS3.15 Section B.12, BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile:
TLS 1.3 where both sides have it, else TLS 1.2 with the cipher suites that RFC 9325 Section 4.2
recommends, and nothing older. A peer that keeps to B.13 (Modified BCP 195) or to the earlier
Non-Downgrading BCP 195 profile has suites in common with it.
"""

import hashlib
import socket
import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from thoracle.errors import SettingsError, ThoracleError
from thoracle.settings import ClientTLS, ReceiveTLS
from thoracle.settings.section import require_private

CIPHER_SUITES = "ECDHE+AESGCM"
"""Of TLS 1.2, in OpenSSL's words: forward secrecy and authenticated encryption, four suites. Those
of TLS 1.3 have both anyway."""

_SPEAKS_NO_TLS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "HTTPS_PROXY_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "UNKNOWN_PROTOCOL",
    "UNEXPECTED_MESSAGE",
)
_NOTHING_IN_COMMON = (
    "NO_PROTOCOLS_AVAILABLE",
    "NO_SHARED_CIPHER",
    "TLSV1_ALERT_INSUFFICIENT_SECURITY",
    "TLSV1_ALERT_PROTOCOL_VERSION",
    "UNSUPPORTED_PROTOCOL",
    "VERSION_TOO_LOW",
    "WRONG_SSL_VERSION",
)
_REFUSES_OURS = {
    "SSLV3_ALERT_BAD_CERTIFICATE": "bad certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "certificate unknown",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "not for this purpose",
    "TLSV1_ALERT_ACCESS_DENIED": "access denied",
    "TLSV1_ALERT_UNKNOWN_CA": "not of an authority that it trusts",
}
_EXPIRED, _NOT_YET_VALID, _OTHER_HOST, _OTHER_ADDRESS = 10, 9, 62, 64
"""``X509_V_ERR_`` codes of OpenSSL's ``x509_vfy.h``."""


class HandshakeFailed(ThoracleError):
    """The peer speaks no TLS, or none that the settings take; the text says what it does."""


class HandshakeEnded(HandshakeFailed):
    """The peer closed the connection within the handshake, as health probes do."""


ENDED = (ssl.SSLEOFError, ConnectionError)


# ---- Contexts ----------------------------------------------------------------------------------


def server_context(settings: ReceiveTLS) -> ssl.SSLContext:
    """Return what the listener wraps connections with; callers have to show a certificate.

    Raises
    ------
    SettingsError
        A file is missing, holds no PEM or a locked key, the key is of another certificate, or its
        permissions are too wide.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, settings.minimum_version)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # no session is resumed: each connection verifies its certificate
    context.options |= ssl.OP_NO_TICKET
    _load_own(context, "receive.tls", settings.certificate_file, settings.key_file)
    _load_authorities(context, "receive.tls.client_ca_file", settings.client_ca_file)
    return context


def pages_context(certificate_file: Path, key_file: Path) -> ssl.SSLContext:
    """Return what connections of browsers are wrapped with; they show no certificate.

    Raises
    ------
    SettingsError
        As :func:`server_context`.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, "1.2")
    _load_own(context, "web", certificate_file, key_file)
    return context


def client_context(settings: ClientTLS, table: str = "destination.tls") -> ssl.SSLContext:
    """Return what connections to a destination are wrapped with; ``table`` is its settings' name.

    Its certificate is verified; its host name too, unless ``fingerprint`` is set: that is then for
    the caller to compare, with :func:`fingerprint`.

    Raises
    ------
    SettingsError
        As :func:`server_context`.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, settings.minimum_version)
    context.check_hostname = settings.fingerprint is None
    if settings.certificate_file is not None and settings.key_file is not None:
        _load_own(context, table, settings.certificate_file, settings.key_file)
    if settings.ca_file is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _load_authorities(context, f"{table}.ca_file", settings.ca_file)
    return context


def _context(protocol: int, minimum_version: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = (
        ssl.TLSVersion.TLSv1_3 if minimum_version == "1.3" else ssl.TLSVersion.TLSv1_2
    )
    context.set_ciphers(CIPHER_SUITES)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # A node's own certificate may stand where authorities do: many sites have none.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _load_own(context: ssl.SSLContext, table: str, certificate_file: Path, key_file: Path) -> None:
    setting = f"{table}.key_file"

    def locked() -> str:
        raise SettingsError(
            f"{setting}: found a key with a passphrase in {key_file}, required: one without: "
            "nobody types it when the service starts"
        )

    _read(f"{table}.certificate_file", certificate_file, "CERTIFICATE")
    _read(setting, key_file, "PRIVATE KEY")
    require_private(setting, key_file)
    try:
        context.load_cert_chain(certificate_file, key_file, password=locked)
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            found = f"the key of another certificate in {key_file}"
        else:
            found = f"{error.reason or error} in {certificate_file} or {key_file}"
        raise SettingsError(
            f"{setting}: found {found}, required: the key of the first certificate in "
            f"{certificate_file}"
        ) from error


def _load_authorities(context: ssl.SSLContext, setting: str, path: Path) -> None:
    _read(setting, path, "CERTIFICATE")
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise SettingsError(
            f"{setting}: found {error.reason or error} in {path}, required: certificates in PEM"
        ) from error


def _read(setting: str, path: Path, label: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{setting}: found {path}: {error.strerror}, required: a readable file"
        ) from error
    if b"-----BEGIN " not in content or f"{label}-----".encode() not in content:
        raise SettingsError(f"{setting}: found no {label} in {path}, required: PEM")
    return content


# ---- Connections -------------------------------------------------------------------------------


def accept(connection: socket.socket, context: ssl.SSLContext, seconds: float) -> ssl.SSLSocket:
    """Return a connection that a caller opened, after the handshake.

    ``connection`` itself can be used no more, whatever comes of it: nothing goes out in plain.

    Raises
    ------
    HandshakeFailed
        Also when the whole handshake takes longer than ``seconds``.
    HandshakeEnded
        The caller closed the connection.
    """
    try:
        secured = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    except OSError as error:
        raise HandshakeEnded(failure(error)) from error
    secured.settimeout(seconds)
    try:
        secured.do_handshake()
    except OSError as error:
        secured.close()
        kind = HandshakeEnded if isinstance(error, ENDED) else HandshakeFailed
        raise kind(failure(error)) from error
    return secured


def fingerprint(connection: ssl.SSLSocket) -> str:
    """Return the SHA-256 of the peer's certificate in DER, hexadecimal; empty when it has none."""
    certificate = connection.getpeercert(binary_form=True)
    return hashlib.sha256(certificate).hexdigest() if certificate else ""


def failure(error: OSError) -> str:
    """Return what the peer does, for an error of its connection; free of what it sent."""
    match error:
        case ssl.SSLCertVerificationError():
            return _unverified(error)
        case ssl.SSLEOFError() | ConnectionError():
            return "ended the connection within the TLS handshake"
        case TimeoutError():
            return "does not go on with the TLS handshake"
        case ssl.SSLError():
            return _broken(error.reason or "")
        case _:
            return error.strerror or type(error).__name__


def _unverified(error: ssl.SSLCertVerificationError) -> str:
    match error.verify_code:
        case code if code == _EXPIRED:
            return "its certificate has expired"
        case code if code == _NOT_YET_VALID:
            return "its certificate is not valid yet"
        case code if code in (_OTHER_HOST, _OTHER_ADDRESS):
            return f"its certificate is another host's: {error.verify_message.rstrip('.')}"
    return f"its certificate is not trusted: {error.verify_message}"


def _broken(reason: str) -> str:
    if reason in _SPEAKS_NO_TLS:
        return "does not speak TLS"
    if reason in _NOTHING_IN_COMMON:
        return "has no TLS version and cipher suite in common with us"
    if reason in _REFUSES_OURS:
        return f"refuses our certificate: {_REFUSES_OURS[reason]}"
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "shows no certificate"
    if reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED":
        return "requires a certificate of ours"
    if reason == "SSLV3_ALERT_HANDSHAKE_FAILURE":  # TLS 1.2 has no alert of its own for the second
        return "has no TLS cipher suite in common with us, or requires a certificate of ours"
    return f"fails in TLS: {reason or 'no reason given'}"


# ---- Certificates ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says of itself."""

    subject: str
    """Distinguished name as RFC 4514 writes it."""
    fingerprint: str
    """SHA-256 of its DER, hexadecimal."""
    not_before: datetime
    not_after: datetime
    """In UTC, aware of it."""


def certificates(setting: str, path: Path) -> list[Certificate]:
    """Return the certificates in a PEM file, in its order.

    Parameters
    ----------
    setting
        Which setting names the file, for the error.
    path
        The file.

    Raises
    ------
    SettingsError
        The file cannot be read or holds no certificate.
    """
    # Here, because it takes 75 ms and most commands do not need it.
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    content = _read(setting, path, "CERTIFICATE")
    try:
        found = x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise SettingsError(
            f"{setting}: found a damaged certificate in {path}, required: PEM"
        ) from error
    return [
        Certificate(
            one.subject.rfc4514_string(),
            one.fingerprint(SHA256()).hex(),
            one.not_valid_before_utc,
            one.not_valid_after_utc,
        )
        for one in found
    ]
