"""A conversation with a DICOMweb server: credentials, TLS, and what each failure means.

requests and dicomweb-client are kept from doing more than they are asked for: no redirection, no
~/.netrc, no proxy, CA bundle or retry but ours; and no text of their exceptions goes further, since
it may have the url, the headers, or both.
"""

import base64
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from dicomweb_client import DICOMwebClient
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import SSLError

from thoracle.errors import ArchiveRefused, ArchiveUnavailable, DeliveryError, SettingsError
from thoracle.settings import ClientTLS, tls

CREDENTIALS = (401, 403, 407)
"""The operator can mend them, so the object waits."""
TRY_AGAIN = (408, 425, 429)
"""Request Timeout, Too Early, Too Many Requests; and whatever is 500 or more."""
NOT_PROVIDED = (404, 405, 501)
"""Answers of a server without QIDO-RS; 404 also means that there is no such study."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750 Section 2.1."""
PASSWORD = re.compile(r"[^\x00-\x1f\x7f]+")
"""RFC 7617 Section 2: no control characters."""


@dataclass(frozen=True, slots=True)
class WebPeer:
    """Which DICOMweb archive to call, and as whom."""

    url: str
    """The root to which ``/studies`` is added."""
    timeout_seconds: float
    """To connect, and without a byte of the answer."""
    token: str | None = None
    """Where the bearer token is: ``file:PATH`` or ``env:NAME``, read for each call."""
    username: str | None = None
    password: str | None = None
    """Where the password is, as ``token``."""
    tls: ClientTLS | None = None
    """``None``: as ``ClientTLS()``; an https server is always verified."""


@contextmanager
def talking(peer: WebPeer) -> Iterator[tuple[requests.Session, DICOMwebClient]]:
    """Yield a session, and a client that searches in it, for one conversation.

    Raises
    ------
    ArchiveUnavailable
        Not reached, not verified, redirected, one of ``CREDENTIALS`` or ``TRY_AGAIN``, 500 or
        more, an answer that is not DICOM JSON, or a secret or TLS file that cannot be read.
    ArchiveRefused
        Another HTTP status, where it was raised as ``requests.HTTPError`` within.
    """
    with requests.Session() as session:
        session.trust_env = False  # else ~/.netrc, proxies and CA bundles of the environment
        session.max_redirects = 0
        session.auth = _Authorization(_authorization(peer))
        session.mount("https://", Adapter(peer.tls or ClientTLS()))
        url = peer.url.rstrip("/")
        client = DICOMwebClient(url, session=session, timeout=peer.timeout_seconds)
        client.set_http_retry_params(retry=False)  # else five times, with growing waits
        try:
            yield session, client
        except requests.HTTPError as error:
            raise failure(peer, status_of(error)) from None
        except requests.TooManyRedirects:
            raise ArchiveUnavailable(
                f"{address(peer)} redirects to another address: no redirection is followed"
            ) from None
        except requests.exceptions.InvalidJSONError:
            raise ArchiveUnavailable(f"{address(peer)} answered what is not DICOM JSON") from None
        except requests.RequestException as error:
            raise ArchiveUnavailable(f"{address(peer)} not reached: {_cause(error)}") from None


def failure(peer: WebPeer, status: int) -> DeliveryError:
    """Return the error that an HTTP status of 300 or more stands for."""
    where = address(peer)
    if status in CREDENTIALS:
        return ArchiveUnavailable(f"{where} answered {status}: it does not accept our credentials")
    if status in TRY_AGAIN or status >= 500:
        return ArchiveUnavailable(f"{where} answered {status}")
    return ArchiveRefused(f"{where} answered {status}")


def status_of(error: requests.HTTPError) -> int:
    """Return the HTTP status that was raised."""
    return error.response.status_code if error.response is not None else 0


def address(peer: WebPeer) -> str:
    """Return scheme, host and port: never a user name or password that a url may have."""
    parts = urlsplit(peer.url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"


def _cause(error: BaseException) -> str:
    """Return what the network or TLS said, from below the wrappers of requests and urllib3."""
    inner: BaseException | None = error
    while inner is not None:
        error = inner
        around = [error.__cause__, getattr(error, "reason", None), *error.args]
        inner = next((one for one in around if isinstance(one, BaseException)), None)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted: {error.verify_message}"
    if isinstance(error, OSError | SSLError) and not isinstance(error, requests.RequestException):
        return str(error)[:200]
    return type(error).__name__


# ---- Credentials and TLS -----------------------------------------------------------------------


class _Authorization(AuthBase):
    """Sets the header of each request, whatever requests would like to put there."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # dicomweb-client sets Host without the port, and cuts an IPv6 address; http.client sets it
        # right when it is absent.
        request.headers.pop("Host", None)
        request.headers.pop("Authorization", None)
        if self._value is not None:
            request.headers["Authorization"] = self._value
        return request


def _authorization(peer: WebPeer) -> str | None:
    if peer.token is not None:
        return f"Bearer {secret(peer.token, _TOKEN, 'a bearer token (RFC 6750)')}"
    if peer.username is not None and peer.password is not None:
        password = secret(peer.password, PASSWORD, "a password without control characters")
        return "Basic " + base64.b64encode(f"{peer.username}:{password}".encode()).decode()
    return None


def secret(place: str, form: re.Pattern[str], required: str) -> str:
    """Return a secret; the error says where it was looked for and never what was there.

    Raises
    ------
    ArchiveUnavailable
        It cannot be read, or has not the form required.
    """
    kind, _, name = place.partition(":")
    try:
        value = Path(name).read_text("utf-8") if kind == "file" else os.environ.get(name, "")
    except (OSError, UnicodeDecodeError) as error:
        raise ArchiveUnavailable(f"{place} cannot be read: {type(error).__name__}") from None
    value = value.rstrip("\r\n")
    if not form.fullmatch(value):
        found = "something else" if value else "nothing"
        raise ArchiveUnavailable(f"{place}: found {found}, required: {required}")
    return value


class Adapter(HTTPAdapter):
    """Verifies a server as ``ClientTLS`` says: requests would add the authorities of certifi."""

    def __init__(self, tls: ClientTLS) -> None:
        self._tls = tls
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make connections with our context."""
        super().init_poolmanager(
            *args,
            ssl_context=_context(self._tls),
            assert_fingerprint=self._tls.fingerprint,
            **kwargs,
        )

    def cert_verify(self, conn: Any, *_: Any) -> None:
        """Leave the authorities to our context."""
        conn.cert_reqs = "CERT_REQUIRED"


def _context(settings: ClientTLS) -> ssl.SSLContext:
    try:
        return tls.client_context(settings)
    except SettingsError as error:
        raise ArchiveUnavailable(f"TLS files cannot be used: {error}") from error
