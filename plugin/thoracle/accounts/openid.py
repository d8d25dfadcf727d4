"""OpenID Connect: what a provider is asked, and what is believed of what it says.

Authorization Code Flow with PKCE (RFC 7636), state and nonce (OpenID Connect Core 1.0, 3.1). An ID
token counts when its signature, issuer, audience, times and nonce are right (3.1.3.7).
"""

import importlib.util
import logging
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests

from thoracle.deliver import dicomweb
from thoracle.errors import DeliveryError, SettingsError, ThoracleError
from thoracle.settings import OIDC, ClientTLS

logger = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Signatures that are believed: asymmetric ones; with ``HS256`` we could sign for ourselves."""
SCOPE = "openid profile email"
TIMEOUT_SECONDS = 10
KEPT_SECONDS = 3600
"""How long the provider's configuration and keys are believed without a look."""
AGAIN_SECONDS = 60
"""Keys that are not known are looked for at most so often."""
LEEWAY_SECONDS = 60
"""By which its clock and ours may differ."""


class OpenIDError(ThoracleError):
    """The provider is not reached, or said what is not believed; the text holds no token."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A log-in that the provider is to answer."""

    url: str
    """Where the browser goes."""
    state: str
    nonce: str
    verifier: str
    redirect_uri: str


def require_libraries() -> None:
    """Return when the extra ``oidc`` is installed.

    Raises
    ------
    SettingsError
        It is not.
    """
    for name in ("authlib", "joserfc"):
        if importlib.util.find_spec(name) is None:
            raise SettingsError(
                f"web.oidc: found no {name}, required: `pip install thoracle[oidc]`"
            )


class Provider:
    """A provider, and what is kept of it in memory: its configuration and its keys."""

    def __init__(self, settings: OIDC) -> None:
        self._settings = settings
        self._turn = threading.Lock()
        self._document: Mapping[str, Any] = {}
        self._keys: Mapping[str, Any] = {}
        self._read_at = float("-inf")

    def begin(self, redirect_uri: str) -> Begun:
        """Return a log-in that was begun.

        Raises
        ------
        OpenIDError
            The provider is not reached, or its configuration is not usable.
        """
        document, _ = self.read()
        nonce, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        with self._session(redirect_uri) as session:
            url, state = session.create_authorization_url(
                document["authorization_endpoint"],
                state=secrets.token_urlsafe(32),
                code_verifier=verifier,
                nonce=nonce,
            )
        return Begun(str(url), str(state), nonce, verifier, redirect_uri)

    def end(self, begun: Begun, code: str) -> dict[str, Any]:
        """Return the claims of the ID token that the provider gives for a code.

        Raises
        ------
        OpenIDError
            It gives none, or one that is not believed.
        """
        from authlib.common.errors import AuthlibBaseError  # type: ignore[import-untyped]

        document, _ = self.read()
        try:
            with self._session(begun.redirect_uri) as session:
                token = session.fetch_token(
                    document["token_endpoint"],
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=begun.verifier,
                    timeout=TIMEOUT_SECONDS,
                    allow_redirects=False,
                )
        except AuthlibBaseError as error:
            raise OpenIDError(f"the provider gave no token: {error.error!r:.60}") from None
        except requests.RequestException as error:
            raise OpenIDError(f"the provider gave no token: {type(error).__name__}") from None
        if not isinstance(token.get("id_token"), str):
            raise OpenIDError("found no ID token in the provider's answer, required: one")
        return self._believed(token, begun.nonce)

    def _believed(self, token: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
        from joserfc.errors import InvalidKeyIdError, JoseError

        document, keys = self.read()
        options: Any = {"iss": {"essential": True, "value": document["issuer"]}}
        options["aud"] = {"essential": True, "value": self._settings.client_id}
        about = {
            "nonce": nonce,
            "client_id": self._settings.client_id,
            "access_token": token.get("access_token"),
        }
        try:
            try:
                decoded = _decoded(token["id_token"], keys)
            except InvalidKeyIdError:  # it may have a new key
                decoded = _decoded(token["id_token"], self.read(AGAIN_SECONDS)[1])
            claims = CodeIDToken(decoded.claims, decoded.header, options, about)
            claims.validate(leeway=LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise OpenIDError(f"its ID token is not believed: {error!s:.100}") from None
        if not isinstance(claims["sub"], str) or not claims["sub"]:
            raise OpenIDError("its ID token is not believed: sub is no text")
        return dict(claims)

    def read(
        self, kept_seconds: float = KEPT_SECONDS
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return the provider's configuration and its keys, from memory while they are fresh.

        Raises
        ------
        OpenIDError
            It is not reached, or its configuration is not usable.
        """
        with self._turn:
            if time.monotonic() - self._read_at > kept_seconds:
                issuer = self._settings.issuer
                where = issuer.rstrip("/") + "/.well-known/openid-configuration"
                document = self._get(where)
                self._require(document)
                self._keys = self._get(document["jwks_uri"])
                self._document = document
                self._read_at = time.monotonic()
            return self._document, self._keys

    def _require(self, document: Mapping[str, Any]) -> None:
        """Return when a configuration is that of the provider, and all in it is as safe as it is.

        Its issuer must be the one asked, exactly (OpenID Connect Discovery 1.0, 4.3).
        """
        if document.get("issuer") != self._settings.issuer:
            raise OpenIDError(
                f"{self._settings.issuer}: found issuer {document.get('issuer')!r:.200}, required: "
                "the same in the settings"
            )
        scheme = self._settings.issuer.partition(":")[0]
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not str(document.get(name, "")).startswith(("https://", f"{scheme}://")):
                raise OpenIDError(f"{self._settings.issuer}: found no {name} of https")

    def _get(self, url: str) -> Mapping[str, Any]:
        try:
            with requests.Session() as session:
                self._prepare(session)
                answer = session.get(url, timeout=TIMEOUT_SECONDS, allow_redirects=False)
            if answer.status_code != 200:
                raise OpenIDError(f"{url} answered {answer.status_code}, required: 200")
            found = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise OpenIDError(f"{url} not read: {type(error).__name__}") from None
        if not isinstance(found, dict):
            raise OpenIDError(f"{url}: found no JSON object, required: one")
        return found

    def _prepare(self, session: requests.Session) -> None:
        session.trust_env = False  # else ~/.netrc, proxies and CA bundles of the environment
        session.max_redirects = 0
        session.mount("https://", dicomweb.Adapter(ClientTLS(ca_file=self._settings.ca_file)))

    def _session(self, redirect_uri: str) -> Any:
        from authlib.integrations.requests_client import (  # type: ignore[import-untyped]
            OAuth2Session,
        )

        offered = self._document.get("token_endpoint_auth_methods_supported")
        basic = not isinstance(offered, list) or "client_secret_basic" in offered
        try:
            session = OAuth2Session(
                self._settings.client_id,
                dicomweb.secret(self._settings.client_secret, dicomweb.PASSWORD, "a client secret"),
                token_endpoint_auth_method="client_secret_basic" if basic else "client_secret_post",
                scope=SCOPE,
                redirect_uri=redirect_uri,
                code_challenge_method="S256",
            )
        except DeliveryError as error:
            raise OpenIDError(f"web.oidc.client_secret: {error}") from None
        self._prepare(session)
        return session


def _decoded(id_token: str, keys: Mapping[str, Any]) -> Any:
    from joserfc import jwt
    from joserfc.jwk import KeySet
    from joserfc.jws import JWSRegistry

    registry = JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)
    # Keys for encryption, and of kinds that we do not use, must not spoil the set.
    signing = [
        key
        for key in keys["keys"]
        if key.get("use", "sig") == "sig" and key["kty"] in ("RSA", "EC")
    ]
    return jwt.decode(id_token, KeySet.import_key_set({"keys": signing}), registry=registry)


def roles_of(claims: Mapping[str, Any], settings: OIDC) -> list[str]:
    """Return the roles that claims give, in our words.

    The claim is a list of texts or one text, with spaces between several. A name with dots leads
    into objects when no claim has just that name: ``realm_access.roles``.
    """
    found: Any = claims.get(settings.roles_claim)
    if found is None:
        found = claims
        for part in settings.roles_claim.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    if isinstance(found, str):
        found = [found, *found.split()]
    named = set(found) if isinstance(found, list) and all(isinstance(x, str) for x in found) else ()
    ours = {
        "reader": settings.reader,
        "administrator": settings.administrator,
        "auditor": settings.auditor,
    }
    return [role for role, theirs in ours.items() if theirs in named]
