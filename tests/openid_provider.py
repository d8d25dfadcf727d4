"""A small OpenID provider on a socket of this machine, which can be told to misbehave.

It logs in whoever asks, without a page of its own, and answers as OpenID Connect Core 1.0 wants:
it checks the client, the address to return to, PKCE, and that a code is used once.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

CLIENT_ID = "thoracle"
CLIENT_SECRET = "a secret: with/every+kind of=character"


class OpenIDProvider:
    """A provider; a context manager that is reachable inside the block."""

    def __init__(self) -> None:
        self._own_key = RSAKey.generate_key(2048, {"kid": "first", "use": "sig"})
        self.behave()
        self.callbacks: list[str] = []
        """The addresses to return to that are registered."""
        self.read_keys = 0
        self._codes: dict[str, dict[str, str]] = {}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider._get(self)

            def do_POST(self) -> None:
                provider._post(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}/realm"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def behave(self, **person: Any) -> None:
        """Do as the standard wants, for a person with these claims."""
        self.key: Any = self._own_key
        self.published: list[Any] = [self.key]
        """The keys that it says it has."""
        self.algorithm = "RS256"
        self.person: dict[str, Any] = {"sub": "u-1", "roles": ["reader"], **person}
        """Claims about who logs in."""
        self.claims: dict[str, Any] = {}
        """Claims that are not as they should be; ``None`` leaves one out."""
        self.document: dict[str, Any] = {}
        """Of the configuration, what is not as it should be."""
        self.methods = ["client_secret_basic", "client_secret_post"]

    def rotate(self) -> None:
        """Sign with a new key from now on, of another kind, and publish it alone."""
        self.key = ECKey.generate_key("P-256", {"kid": secrets.token_hex(4), "use": "sig"})
        self.published = [self.key]
        self.algorithm = "ES256"

    def sign_with_the_secret(self) -> None:
        """Sign with what every client knows."""
        self.key = OctKey.import_key(CLIENT_SECRET, {"kid": "first"})
        self.algorithm = "HS256"

    def _get(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        base = self.issuer
        if parts.path == "/realm/.well-known/openid-configuration":
            document = {
                "issuer": base,
                "authorization_endpoint": f"{base}/authorize",
                "token_endpoint": f"{base}/token",
                "jwks_uri": f"{base}/keys",
                "token_endpoint_auth_methods_supported": self.methods,
            }
            _answer(request, 200, {**document, **self.document})
        elif parts.path == "/realm/keys":
            self.read_keys += 1
            keys = [key.as_dict(private=False) for key in self.published]
            _answer(request, 200, {"keys": keys})
        elif parts.path == "/realm/authorize":
            self._authorize(request, {key: one[0] for key, one in parse_qs(parts.query).items()})
        else:
            _answer(request, 404, {})

    def _authorize(self, request: BaseHTTPRequestHandler, asked: dict[str, str]) -> None:
        right = (
            asked["client_id"] == CLIENT_ID
            and asked["redirect_uri"] in self.callbacks
            and asked["response_type"] == "code"
            and "openid" in asked["scope"].split()
            and asked["code_challenge_method"] == "S256"
        )
        if not right:
            _answer(request, 400, {"error": "invalid_request"})
            return
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        back = urlencode({"code": code, "state": asked["state"], "iss": self.issuer})
        request.send_response(302)
        request.send_header("Location", f"{asked['redirect_uri']}?{back}")
        request.end_headers()

    def _post(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"])).decode()
        form = {key: one[0] for key, one in parse_qs(body).items()}
        asked = self._codes.pop(form.get("code", ""), None)
        challenge = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if not self._is_client(request, form):
            _answer(request, 401, {"error": "invalid_client"})
        elif (
            asked is None
            or form["redirect_uri"] != asked["redirect_uri"]
            or base64.urlsafe_b64encode(challenge).decode().rstrip("=") != asked["code_challenge"]
        ):
            _answer(request, 400, {"error": "invalid_grant"})
        else:
            token = {"access_token": "an-access-token", "token_type": "Bearer"}
            _answer(request, 200, {**token, "id_token": self._id_token(asked)})

    def _is_client(self, request: BaseHTTPRequestHandler, form: dict[str, str]) -> bool:
        if "client_secret_basic" in self.methods:
            both = f"{CLIENT_ID}:{CLIENT_SECRET}".encode()
            return request.headers["Authorization"] == f"Basic {base64.b64encode(both).decode()}"
        return (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)

    def _id_token(self, asked: dict[str, str]) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 60,
            "nonce": asked["nonce"],
            **self.person,
            **self.claims,
        }
        claims = {key: value for key, value in claims.items() if value is not None}
        if self.algorithm == "none":
            return f"{_part({'alg': 'none', 'kid': 'first'})}.{_part(claims)}."
        header = {"alg": self.algorithm, "kid": self.key.kid}
        return jwt.encode(header, claims, self.key, algorithms=[self.algorithm])


def _part(values: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def _answer(request: BaseHTTPRequestHandler, status: int, values: dict[str, Any]) -> None:
    body = json.dumps(values).encode()
    request.send_response(status)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
