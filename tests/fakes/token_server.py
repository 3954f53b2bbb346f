"""A token server for tests (distribution's "token" and "oauth2 token" specifications).

In a process of its own it signs what a real registry accepts::

    python -m tests.fakes.token_server SETTINGS.json

SETTINGS has ``address`` [host, port], ``users`` {name: password}, ``issuer``, ``key`` and
``certificate`` (of the signatures), and may have ``tls`` [certificate, key] and ``offline``.
"""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes.serving import HttpServer, Serving

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Issue = Callable[[str, str, Sequence[str]], dict[str, Any]]

__all__ = ["Asked", "Signer", "TokenServer"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its method, query or form, Authorization header, and how it was answered."""

    method: str
    words: dict[str, list[str]]
    authorization: str
    status: int


class Signer:
    """Makes the JSON web tokens that a docker-registry with ``certificate`` accepts."""

    def __init__(self, issuer: str, key: str, certificate: str) -> None:
        self._issuer = issuer
        self._key = key
        text = Path(certificate).read_text()
        body = text.split("-----BEGIN CERTIFICATE-----")[1].split("-----END")[0]
        self._chain = ["".join(body.split())]

    def __call__(self, user: str, service: str, scopes: Sequence[str]) -> dict[str, Any]:
        """The answer with a token of five minutes for ``scopes``."""
        now = int(time.time())
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":", 2)
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        claims = {
            "iss": self._issuer, "sub": user, "aud": service, "exp": now + 300, "nbf": now - 60,
            "iat": now, "jti": secrets.token_hex(8), "access": access,
        }  # fmt: skip
        head = {"typ": "JWT", "alg": "RS256", "x5c": self._chain}
        signed = b".".join(_encoded(json.dumps(part).encode()) for part in (head, claims))
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self._key],
            input=signed,
            capture_output=True,
            check=True,
        ).stdout
        return {"token": b".".join((signed, _encoded(signature))).decode(), "expires_in": 300}


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class TokenServer(Serving):
    """Serves in threads of this process; ``issue`` makes the answer for those it knows.

    ``offline`` gives identity tokens to who asks for one; ``post_status`` answers every
    POST, if it is not 0; ``anonymous`` serves those without a name too.
    """

    def __init__(
        self,
        issue: Issue,
        users: dict[str, str],
        address: tuple[str, int] = ("127.0.0.1", 0),
        tls: tuple[str, str] | None = None,
    ) -> None:
        self.issue = issue
        self.users = users
        self.offline = self.anonymous = False
        self.post_status = 0
        self.identity_tokens: dict[str, str] = {}
        self.asked: list[Asked] = []
        self._server = _Server(address, _Handler)
        self._server.tokens = self
        super().__init__(self._server)
        if tls is not None:
            self._server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._server.context.load_cert_chain(*tls)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://{address[0]}:{self._server.server_address[1]}/token"

    def run(self) -> None:
        """Serves until the process ends."""
        self._server.serve_forever()

    def answer(
        self, method: str, words: dict[str, list[str]], authorization: str
    ) -> tuple[int, dict[str, Any]]:
        """Status and body for a request."""
        if method == "POST" and self.post_status:
            return self.post_status, {}
        user = self._form_user(words) if method == "POST" else self._basic_user(authorization)
        if user is None:
            return 401, {"errors": [{"code": "UNAUTHORIZED", "message": "who are you"}]}
        scopes = [scope for text in words.get("scope", ()) for scope in text.split()]
        found = self.issue(user, words.get("service", [""])[0], scopes)
        if self.offline and user and words.get("offline_token") == ["true"]:
            token = secrets.token_hex(16)
            self.identity_tokens[token] = user
            found["refresh_token"] = token
        return 200, found

    def _form_user(self, form: dict[str, list[str]]) -> str | None:
        if form.get("grant_type") != ["refresh_token"] or not form.get("client_id"):
            return None
        return self.identity_tokens.get(form.get("refresh_token", [""])[0])

    def _basic_user(self, authorization: str) -> str | None:
        if not authorization:
            return "" if self.anonymous else None
        scheme, _, text = authorization.partition(" ")
        name, _, password = base64.b64decode(text).decode().partition(":")
        known = self.users.get(name) == password or self.identity_tokens.get(password) == name
        return name if scheme == "Basic" and known else None


class _Server(HttpServer):
    tokens: TokenServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        """A request by query."""
        self._serve(parse_qs(urlsplit(self.path).query))

    def do_POST(self) -> None:
        """A request by form."""
        data = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._serve(parse_qs(data.decode()))

    def _serve(self, words: dict[str, list[str]]) -> None:
        tokens = self.server.tokens
        authorization = self.headers.get("Authorization", "")
        status, answer = tokens.answer(self.command, words, authorization)
        tokens.asked.append(Asked(self.command, words, authorization, status))
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _main(path: str) -> None:
    settings = json.loads(Path(path).read_text())
    signer = Signer(settings["issuer"], settings["key"], settings["certificate"])
    host, port = settings["address"]
    tls = tuple(settings["tls"]) if "tls" in settings else None
    server = TokenServer(signer, settings["users"], (host, port), tls)
    server.offline = bool(settings.get("offline"))
    server.run()


if __name__ == "__main__":
    _main(sys.argv[1])
