"""Credential helpers: programs ``docker-credential-NAME`` that keep secrets for the engine.

One run is one action (``get``, ``store``, ``erase``); its input and its answer are on the
standard streams, so that no secret is ever on a command line.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.image.credentials import Credentials

if TYPE_CHECKING:
    from isula_edge.sys.process import Reaper

__all__ = ["Helper"]

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT_S = 30
_KILLED = 128 + 9
_ABSENT = "credentials not found"
_IDENTITY = "<token>"
"""As a user's name: the secret is an identity token."""


class Helper:
    """The helper ``name``; keys are those of config.json."""

    def __init__(self, name: str, reaper: Reaper) -> None:
        self.program = f"docker-credential-{name}"
        self._reaper = reaper

    async def get(self, key: str) -> Credentials | None:
        """The credentials under ``key``, None when the helper has none."""
        answer = await self._run("get", key)
        if answer is None:
            return None
        try:
            found = json.loads(answer)
            username, secret = found.get("Username") or "", found.get("Secret") or ""
        except (ValueError, AttributeError, RecursionError):
            username = secret = None
        if not isinstance(username, str) or not isinstance(secret, str):
            raise self._failed(errors.Internal, "sent an answer that is no credentials")
        if username == _IDENTITY:
            return Credentials(identity_token=secret) if secret else None
        return Credentials(username, secret) or None

    async def store(self, key: str, credentials: Credentials) -> None:
        """Gives credentials to the helper to keep."""
        token = credentials.identity_token
        pair = (_IDENTITY, token) if token else (credentials.username, credentials.password)
        entry = {"ServerURL": key, "Username": pair[0], "Secret": pair[1]}
        await self._run("store", json.dumps(entry), pair[1])

    async def erase(self, key: str) -> bool:
        """Makes the helper forget what is under ``key``; False when it knew nothing."""
        return await self._run("erase", key) is not None

    async def _run(self, action: str, data: str, secret: str = "") -> bytes | None:
        """What the helper answers; None for its "credentials not found".

        ``secret`` is the part of ``data`` that nobody may see.
        """
        path = shutil.which(self.program, path=_PATH)
        if path is None:
            raise self._failed(
                errors.FailedPrecondition,
                "is not installed",
                f"install it in one of {_PATH}, or take it out of config.json",
            )
        # helpers find their own settings by HOME, which the daemon may not have
        command = [
            *("/usr/bin/timeout", "-s", "KILL", str(_TIMEOUT_S)),
            *("/usr/bin/env", "HOME=/root", path, action),
        ]
        try:
            code, out, err = await self._reaper.run(
                command, data=data.encode(), timeout_s=_TIMEOUT_S + 5
            )
        except TimeoutError:
            code, out, err = _KILLED, b"", b""
        if code == 0:
            return out
        # helpers say on standard output what is wrong
        if _ABSENT in _line(out):
            return None
        words = _words(out, secret)
        if not words and _words(err, secret):
            words = _line(err.strip().partition(b"\n")[0])
        if _ABSENT in words:
            return None
        if code == _KILLED and not words:
            raise self._failed(errors.DeadlineExceeded, f"did not end within {_TIMEOUT_S} s")
        raise self._failed(errors.Unavailable, f"failed with status {code}: {words}")

    def _failed(
        self, kind: type[errors.EngineError], what: str, hint: str = ""
    ) -> errors.EngineError:
        return kind(
            f"credential helper {self.program} {what}", kind="helper", ref=self.program, hint=hint
        )


def _words(data: bytes, secret: str) -> str:
    """As :func:`_line`; '' where a secret may be in it."""
    text = data.decode(errors="replace")
    if text.lstrip().startswith("{") or "Secret" in text:
        return ""
    if secret and (secret in text or json.dumps(secret)[1:-1] in text):
        return ""
    return _line(data)


def _line(data: bytes) -> str:
    """The beginning of what a program printed, fit for one line."""
    text = data[:400].decode(errors="replace").strip()
    return "".join(char if char.isprintable() else " " for char in text)[:200]
