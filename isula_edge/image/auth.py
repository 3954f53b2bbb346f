"""Authorization at a registry: challenges, Basic, and Bearer tokens with their expiry.

A token's life is counted on the monotonic clock from the moment it was asked for: a
device without a real-time clock may see the wall clock jump by decades during a pull.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Authorizer", "Challenge", "Credentials", "parse_challenges"]

_MIN_LIFE_S = 60
"""A token lives at least this long (distribution's token specification)."""
_MAX_CHALLENGES = 8
_MAX_HEADER = 16 * 1024
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"\s*,?\s*({_TOKEN})(?:\s+|$)")
_PARAMETER = re.compile(rf'\s*,?\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}|[^\s,"]+))')


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a ``WWW-Authenticate`` header; scheme and parameter names lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's name and password, or a ready-made ``registry_token``."""

    username: str = ""
    password: str = ""
    registry_token: str = ""

    def basic(self) -> str:
        """Value of an Authorization header."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode('ascii')}"


def parse_challenges(header: str) -> list[Challenge]:
    """The challenges in ``header`` (RFC 9110, 11.6.1), at most eight; garbage is skipped."""
    found: list[Challenge] = []
    text = header[:_MAX_HEADER]
    at = 0
    while len(found) < _MAX_CHALLENGES:
        scheme = _SCHEME.match(text, at)
        if scheme is None:
            break
        at = scheme.end()
        parameters: dict[str, str] = {}
        while (parameter := _PARAMETER.match(text, at)) is not None:
            name, quoted, plain = parameter.groups()
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            parameters.setdefault(name.lower(), value)
            at = parameter.end()
        found.append(Challenge(scheme[1].lower(), parameters))
    return found


class Authorizer:
    """Gives the Authorization header for one repository of one registry.

    ``fetch`` gets the body of a token server's answer: (url, Authorization header or '').
    ``now`` is the monotonic clock.
    """

    def __init__(
        self,
        host: str,
        repository: str,
        credentials: Credentials | None,
        fetch: Callable[[str, str], bytes],
        now: Callable[[], float],
    ) -> None:
        self._host = host
        self._scope = f"repository:{repository}:pull"
        self._credentials = credentials
        self._fetch = fetch
        self._now = now
        self._challenge: Challenge | None = None
        self._token = ""
        self._expires = 0.0
        self._lock = threading.Lock()

    def header(self) -> str:
        """Value of the Authorization header for the next request, '' for none.

        A token that has expired is replaced first, once for all threads that wait.
        """
        with self._lock:
            return self._header()

    def _header(self) -> str:
        credentials = self._credentials
        if self._challenge is None:
            return ""
        if self._challenge.scheme == "basic":
            return credentials.basic() if credentials is not None else ""
        if credentials is not None and credentials.registry_token:
            return f"Bearer {credentials.registry_token}"
        if not self._token or self._now() >= self._expires:
            self._request_token(self._challenge)
        return f"Bearer {self._token}"

    def challenged(self, headers: Mapping[str, str], used: str) -> bool:
        """Learns from an answer 401; whether another try makes sense.

        ``used`` is the header the refused request carried: a token that another thread
        has replaced meanwhile is kept.
        """
        with self._lock:
            return self._learn(parse_challenges(headers.get("WWW-Authenticate", "")), used)

    def _learn(self, offered: list[Challenge], used: str) -> bool:
        tokens = [c for c in offered if c.scheme == "bearer" and c.parameters.get("realm")]
        if tokens:
            self._challenge = tokens[0]
            if used == f"Bearer {self._token}":
                self._token = ""
            return self._credentials is None or not self._credentials.registry_token or not used
        basic = [c for c in offered if c.scheme == "basic"]
        if basic and self._credentials is not None:
            self._challenge = basic[0]
            return used != self._credentials.basic()
        return False

    def _request_token(self, challenge: Challenge) -> None:
        realm = challenge.parameters["realm"]
        query = {"service": challenge.parameters.get("service", "")}
        query["scope"] = challenge.parameters.get("scope") or self._scope
        credentials = self._credentials
        basic = ""
        if credentials is not None and credentials.username:
            query["account"] = credentials.username
            basic = credentials.basic()
        wanted = urlencode({key: value for key, value in query.items() if value})
        asked = self._now()
        body = self._fetch(f"{realm}{'&' if '?' in realm else '?'}{wanted}", basic)
        answer = self._parse(body)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token or re.search(r"[^\x21-\x7e]", token):
            raise self._failed("the token server sent no token")
        life = answer.get("expires_in")
        if not isinstance(life, int | float) or not life >= _MIN_LIFE_S:
            life = _MIN_LIFE_S
        self._token = token
        self._expires = asked + min(float(life), 10 * 365 * 86400.0)

    def _parse(self, body: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise self._failed("the token server's answer is no JSON object")
        return answer

    def _failed(self, why: str) -> errors.PermissionDenied:
        return errors.PermissionDenied(
            f"authentication failed at {self._host}: {why}", kind="registry", ref=self._host
        )
