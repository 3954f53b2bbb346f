"""Credentials of registries in a config.json of Docker's format.

::

    {
        "auths": {"HOST": {"auth": "base64 of USER:PASSWORD", "identitytoken": "…", …}},
        "credsStore": "NAME of a helper for every registry",
        "credHelpers": {"HOST": "NAME of the helper for this one"}
    }

Everything else in the file belongs to others and stays as it is.  The file is replaced as
a whole, so that a power cut leaves the old or the new one; one that cannot be understood
is never replaced.  Whoever may write it decides which helpers run, so a file that others
than root can write is refused.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import logging
import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.image.hosts import canonical, key_of
from isula_edge.sys import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["AuthFile", "Credentials", "Entries"]

_log = logging.getLogger(__name__)
_MAX_BYTES = 1 << 20
_HELPER = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's name and password, or what stands for them.

    ``registry_token`` is a ready-made Bearer token; ``identity_token`` is exchanged for
    one at the token server (OAuth2's refresh token).
    """

    username: str = ""
    password: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @classmethod
    def of(cls, table: Mapping[str, object]) -> Credentials:
        """The credentials in a map of the wire; what is missing is empty."""
        names = ("username", "password", "registry_token", "identity_token")
        return cls(*(str(table.get(name) or "") for name in names))

    def to_wire(self) -> dict[str, str]:
        """A map that :meth:`of` turns back; without what is empty."""
        found = {
            "username": self.username,
            "password": self.password,
            "registry_token": self.registry_token,
            "identity_token": self.identity_token,
        }
        return {name: value for name, value in found.items() if value}

    def __bool__(self) -> bool:
        """Whether there is anything to show to a registry."""
        return bool(self.username or self.password or self.registry_token or self.identity_token)

    def basic(self) -> str:
        """Value of an Authorization header, '' without a name or anything secret."""
        secret = self.password or self.identity_token
        if not self.username and not secret:
            return ""
        pair = f"{self.username}:{secret}".encode()
        return f"Basic {base64.b64encode(pair).decode('ascii')}"


class Entries:
    """What a config.json says; changes are kept by :meth:`AuthFile.write` alone."""

    def __init__(self, path: str, table: dict[str, Any]) -> None:
        self._path = path
        self.table = table
        for name, kind in (("auths", dict), ("credHelpers", dict), ("credsStore", str)):
            if not isinstance(table.get(name), kind | None):
                raise _damaged(path, f"{name} is no {'object' if kind is dict else 'string'}")

    def helper(self, host: str) -> str:
        """Name of the helper that keeps the credentials of ``host``, '' for this file itself."""
        helpers: dict[str, Any] = self.table.get("credHelpers") or {}
        keys = _keys(helpers, host)
        name = helpers[keys[0]] if keys else self.table.get("credsStore") or ""
        if not isinstance(name, str) or (name and not _HELPER.fullmatch(name)):
            raise errors.InvalidArgument(
                f"{self._path}: {name!r} is no name of a credential helper",
                kind="file",
                ref=self._path,
                hint="NAME stands for the program docker-credential-NAME: a-z, 0-9 and -",
            )
        return name

    def get(self, host: str) -> Credentials | None:
        """The credentials of ``host`` in this file, or None."""
        auths: dict[str, Any] = self.table.get("auths") or {}
        for key in _keys(auths, host):
            found = self._read(key, auths[key])
            if found:
                return found
        return None

    def put(self, host: str, credentials: Credentials) -> bool:
        """Sets the entry of ``host``, empty ones for what a helper keeps; whether it changed."""
        entry: dict[str, str] = {}
        if credentials.username or credentials.password:
            pair = f"{credentials.username}:{credentials.password}".encode()
            entry["auth"] = base64.b64encode(pair).decode("ascii")
        if credentials.identity_token:
            entry["identitytoken"] = credentials.identity_token
        if credentials.registry_token:
            entry["registrytoken"] = credentials.registry_token
        auths: dict[str, Any] = self.table.get("auths") or {}
        keys = _keys(auths, host)
        if keys == [key_of(host)] and auths[keys[0]] == entry:
            return False
        for key in keys:
            del auths[key]
        auths[key_of(host)] = entry
        self.table["auths"] = auths
        return True

    def remove(self, host: str) -> bool:
        """Forgets every entry of ``host``; whether there was one."""
        auths: dict[str, Any] = self.table.get("auths") or {}
        keys = _keys(auths, host)
        for key in keys:
            del auths[key]
        return bool(keys)

    def _read(self, key: str, entry: object) -> Credentials:
        if not isinstance(entry, dict):
            raise _damaged(self._path, f"auths: the entry of {key} is no object")
        values = {
            name: _text(self._path, key, entry.get(name))
            for name in ("auth", "username", "password", "identitytoken", "registrytoken")
        }
        username, password = values["username"], values["password"]
        if values["auth"]:
            try:
                pair = base64.b64decode(values["auth"], validate=True).decode()
            except (binascii.Error, ValueError):
                pair = ""
            if ":" not in pair:
                raise _damaged(self._path, f"auths: auth of {key} is not base64 of USER:PASSWORD")
            username, _, password = pair.partition(":")
            password = password.strip("\0")
        return Credentials(username, password, values["registrytoken"], values["identitytoken"])


class AuthFile:
    """The file at ``path``; links are followed, so that it may be another program's too."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._warned = False

    def read(self) -> Entries:
        """What it says; nothing when it is absent or empty.

        Raises PermissionDenied when others may write it, DataLoss when it is no JSON of
        Docker's format; both name the file.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return Entries(self.path, {})
        try:
            self._check(os.fstat(fd))
            with open(fd, "rb", closefd=False) as file:
                data = file.read(_MAX_BYTES + 1)
        finally:
            os.close(fd)
        if len(data) > _MAX_BYTES:
            raise _damaged(self.path, f"more than {_MAX_BYTES} bytes")
        try:
            table = json.loads(data) if data.strip() else {}
        except (ValueError, RecursionError) as error:
            raise _damaged(self.path, f"no JSON that can be read: {error}") from error
        if not isinstance(table, dict):
            raise _damaged(self.path, "the top level is no object")
        return Entries(self.path, table)

    def write(self, entries: Entries) -> None:
        """Makes ``entries`` the content, durably, for root's eyes alone."""
        target = os.path.realpath(self.path)
        atomic.make_dir(os.path.dirname(target))
        text = json.dumps(entries.table, indent="\t", ensure_ascii=False)
        atomic.write(target, f"{text}\n".encode("utf-8", "surrogatepass"))

    def sweep(self) -> None:
        """Removes what a write that a crash ended has left beside the file: secrets too."""
        folder, name = os.path.split(os.path.realpath(self.path))
        with contextlib.suppress(OSError):
            for item in os.listdir(folder):
                if item.startswith(f"{atomic.TEMP_PREFIX}{name}-"):
                    os.unlink(f"{folder}/{item}")

    def _check(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise _damaged(self.path, "no regular file")
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
            raise errors.PermissionDenied(
                f"{self.path} can be written by others than root",
                kind="file",
                ref=self.path,
                hint=f"check what it says, then: chown root {self.path}; chmod 600 {self.path}",
            )
        if found.st_mode & 0o044 and not self._warned:
            self._warned = True
            _log.warning("%s can be read by others than root: chmod 600 it", self.path)


def _keys(table: Iterable[str], host: str) -> list[str]:
    """Keys of ``table`` that mean ``host``: Docker's own first, then in their order."""
    exact = key_of(host)
    keys = [key for key in table if canonical(key) == host]
    return sorted(keys, key=lambda key: (key != exact, key != host))


def _text(path: str, key: str, value: object) -> str:
    if value is not None and not isinstance(value, str):
        raise _damaged(path, f"auths: the entry of {key} has a value that is no string")
    return value or ""


def _damaged(path: str, what: str) -> errors.DataLoss:
    return errors.DataLoss(
        f"{path}: {what}",
        kind="file",
        ref=path,
        hint="repair it, or move it away and log in again; nothing in it was changed",
    )
