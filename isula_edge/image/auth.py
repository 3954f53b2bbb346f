"""Authorization at a registry: challenges, Basic, and Bearer tokens with their expiry.

A token's life is counted on the monotonic clock from the moment it was asked for: a
device without a real-time clock may see the wall clock jump by decades during a pull.
``issued_at`` plays no part, as it is a date of the server's.  There is no margin before
the expiry either: the life counts from before the request, and a token that a registry
refuses all the same is replaced once by the answer 401.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urldefrag, urlencode

from isula_edge import errors
from isula_edge.image.credentials import Credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Authorizer", "Challenge", "Credentials", "parse_challenges"]

_MIN_LIFE_S = 60
"""A token lives at least this long (distribution's token specification)."""
_MAX_LIFE_S = 10 * 365 * 86400
_CLIENT_ID = "isula-edge"
_MAX_CHALLENGES = 8
_MAX_SCOPES = 8
_MAX_HEADER = 16 * 1024
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?:\s+|(?=,)|$)")
_PARAMETER = re.compile(rf'[\s,]*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}|[^\s,"]+))')
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a ``WWW-Authenticate`` header; scheme and parameter names lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


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


def _unscoped(challenge: Challenge) -> Challenge:
    kept = {name: value for name, value in challenge.parameters.items() if name != "scope"}
    return Challenge(challenge.scheme, kept)


class Authorizer:
    """Gives the Authorization header for one repository of one registry ('': for none).

    ``fetch`` gets the body of a token server's answer to GET: (url, Authorization header
    or '').  ``post`` does so for a form, and is None where the server knows no POST.
    ``now`` is the monotonic clock.  With ``offline`` the server is asked for an identity
    token too, which :attr:`identity_token` then holds if it gave one.
    """

    def __init__(
        self,
        host: str,
        repository: str,
        credentials: Credentials | None,
        fetch: Callable[[str, str], bytes],
        now: Callable[[], float],
        *,
        post: Callable[[str, bytes], bytes | None] | None = None,
        offline: bool = False,
    ) -> None:
        self._host = host
        self._scope = f"repository:{repository}:pull" if repository else ""
        self._credentials = credentials or Credentials()
        self._fetch = fetch
        self._post = post
        self._now = now
        self._offline = offline
        self.identity_token = self._credentials.identity_token
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
            return credentials.basic()
        if credentials.registry_token:
            return f"Bearer {credentials.registry_token}"
        if not self._token or self._now() >= self._expires:
            self._request_token(self._challenge)
        return f"Bearer {self._token}"

    def challenged(self, headers: Mapping[str, str], used: str, *, probe: bool = False) -> bool:
        """Learns from an answer 401; whether another try makes sense.

        ``used`` is the header the refused request carried: a token that another thread
        has replaced meanwhile is kept.  The scope that an answer to a ``probe`` of the
        registry itself names is none of ours: some (ghcr.io) name a made-up repository.
        """
        offered = parse_challenges(headers.get("WWW-Authenticate", ""))
        if probe:
            offered = [_unscoped(challenge) for challenge in offered]
        with self._lock:
            return self._learn(offered, used)

    def _learn(self, offered: list[Challenge], used: str) -> bool:
        credentials = self._credentials
        tokens = [c for c in offered if c.scheme == "bearer" and c.parameters.get("realm")]
        if tokens:
            self._challenge = tokens[0]
            if used == f"Bearer {self._token}":
                self._token = ""
            return not credentials.registry_token or not used
        basic = [c for c in offered if c.scheme == "basic"]
        if basic and credentials.basic():
            self._challenge = basic[0]
            return used != credentials.basic()
        return False

    def _request_token(self, challenge: Challenge) -> None:
        realm = urldefrag(challenge.parameters["realm"])[0]
        asked = self._now()
        answer = self._exchange(realm, challenge) if self.identity_token else None
        if answer is None:
            answer = self._ask(realm, challenge)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token or _UNPRINTABLE.search(token):
            raise self._failed("the token server sent no token")
        life = answer.get("expires_in")
        if not isinstance(life, int | float) or not life >= _MIN_LIFE_S:
            life = _MIN_LIFE_S
        self._token = token
        # compared before it is made a float: an integer may be too large for one
        self._expires = asked + float(min(life, _MAX_LIFE_S))
        renewed = answer.get("refresh_token")
        if isinstance(renewed, str) and renewed and (self._offline or self.identity_token):
            self.identity_token = renewed

    def _ask(self, realm: str, challenge: Challenge) -> dict[str, Any]:
        """The answer to GET, with name and password if there are any."""
        credentials = self._credentials
        query = [("service", challenge.parameters.get("service", ""))]
        # one parameter for each scope: not one with all of them, as the header has it
        query += [("scope", scope) for scope in self._scopes(challenge)]
        query.append(("account", credentials.username))
        if self._offline:
            query += [("client_id", _CLIENT_ID), ("offline_token", "true")]
        wanted = urlencode([(name, value) for name, value in query if value])
        mark = "&" if "?" in realm else "?"
        url = f"{realm}{mark}{wanted}" if wanted else realm
        return self._parse(self._fetch(url, credentials.basic()))

    def _exchange(self, realm: str, challenge: Challenge) -> dict[str, Any] | None:
        """The answer to POST of the identity token; None where the server knows no POST."""
        if self._post is None:
            return None
        form = {
            "grant_type": "refresh_token",
            "service": challenge.parameters.get("service", ""),
            "client_id": _CLIENT_ID,
            "scope": " ".join(self._scopes(challenge)),
            "refresh_token": self.identity_token,
        }
        body = self._post(
            realm, urlencode({name: value for name, value in form.items() if value}).encode()
        )
        return None if body is None else self._parse(body)

    def _scopes(self, challenge: Challenge) -> list[str]:
        """What the token is wanted for: the repository, and what the challenge names."""
        named = challenge.parameters.get("scope", "").split()[:_MAX_SCOPES]
        return list(dict.fromkeys([*([self._scope] if self._scope else []), *named]))

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
