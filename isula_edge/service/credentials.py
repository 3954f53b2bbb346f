"""Logging in and out of registries, and which credentials a pull may use where."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.image import hosts
from isula_edge.image.credentials import AuthFile, Credentials
from isula_edge.service.credential_helpers import Helper
from isula_edge.service.worker import ignored, run_worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isula_edge.image.credentials import Entries
    from isula_edge.service.config import EngineConfig
    from isula_edge.service.events import Events
    from isula_edge.sys.process import Reaper

__all__ = ["Logins", "explained"]

_log = logging.getLogger(__name__)


class Logins:
    """The credentials that the engine keeps, in config.json or with its helpers."""

    def __init__(self, config: EngineConfig, reaper: Reaper, events: Events) -> None:
        self._config = config
        self._file = AuthFile(config.auth_file)
        self._file.sweep()
        self._reaper = reaper
        self._events = events
        self._changes = asyncio.Lock()

    def reconfigure(self, config: EngineConfig) -> None:
        """Takes over mirrors and insecure registries (SIGHUP)."""
        self._config = config

    async def login(self, server: str, username: str, password: str) -> dict[str, Any]:
        """Keeps credentials that the registry accepts: ``{"server": its name}``.

        What it refuses is not stored, and what was stored before stays.
        """
        host = hosts.checked(server)
        credentials = _usable(username, password)
        # a file that could not be changed is found before anybody is asked
        await asyncio.to_thread(self._file.read)
        token = await self._verify(host, credentials)
        if token:
            credentials = Credentials(username, identity_token=token)
        await asyncio.shield(self._store(host, credentials))
        self._events.image("login", host)
        return {"server": host}

    async def logout(self, server: str) -> dict[str, Any]:
        """Forgets a registry's credentials: ``{"server", "removed"}``; none are no error."""
        host = hosts.checked(server)
        removed = await asyncio.shield(self._erase(host))
        self._events.image("logout", host)
        return {"server": host, "removed": removed}

    async def for_pull(
        self, request: Mapping[str, Any], auth: Mapping[str, str]
    ) -> tuple[dict[str, dict[str, str]], str]:
        """A worker's ``auths`` for a pull, and why some could not be had ('' if they could).

        ``auth`` are the caller's own.  They go to the registry of the image's name, or to
        ``server_address`` if they have one, and to no mirror on another host; a mirror
        gets what is stored for it.
        """
        ref = str(request["ref"])
        own = hosts.canonical(auth.get("server_address") or "") or hosts.home(ref)
        given = Credentials.of(auth)
        mirrors = request.get("mirrors") or ()
        places = hosts.of_pull(ref, mirrors, request.get("host_mirrors") or {})
        found: dict[str, dict[str, str]] = {}
        trouble = ""
        if given and own not in places:
            trouble = f"the credentials given are for {own}, which is not among the places asked"
        for host in places:
            if given and host == own:
                found[host] = given.to_wire()
                continue
            try:
                stored = await self._stored(host)
            except (errors.EngineError, OSError) as error:
                # public images need none
                trouble = f"Failed to load auths for host {host}: {error}"
                _log.warning("%s", trouble)
                continue
            if stored is not None:
                found[host] = stored.to_wire()
        return found, trouble

    async def _stored(self, host: str) -> Credentials | None:
        entries = await asyncio.to_thread(self._file.read)
        name = entries.helper(host)
        if name:
            return await Helper(name, self._reaper).get(hosts.key_of(host))
        return entries.get(host)

    async def _verify(self, host: str, credentials: Credentials) -> str:
        config = self._config

        request = {
            "op": "login",
            "server": host,
            "auth": credentials.to_wire(),
            "mirrors": list(config.registry_mirrors),
            "insecure": list(config.insecure_registries),
            "insecure_skip_verify": config.insecure_skip_verify,
            "certs_dir": config.certs_dir,
        }
        answer = await run_worker(self._reaper, request, ignored)
        return str(answer.get("identity_token") or "")

    async def _store(self, host: str, credentials: Credentials) -> None:
        async with self._changes:
            entries = await asyncio.to_thread(self._file.read)
            name = entries.helper(host)
            if name:
                await Helper(name, self._reaper).store(hosts.key_of(host), credentials)
                credentials = Credentials()
            await self._write(entries, changed=entries.put(host, credentials))

    async def _erase(self, host: str) -> bool:
        async with self._changes:
            entries = await asyncio.to_thread(self._file.read)
            name = entries.helper(host)
            removed = entries.remove(host)
            await self._write(entries, changed=removed)
            if name:
                removed |= await Helper(name, self._reaper).erase(hosts.key_of(host))
        return removed

    async def _write(self, entries: Entries, *, changed: bool) -> None:
        if changed:
            await asyncio.to_thread(self._file.write, entries)


def explained(error: errors.PermissionDenied, trouble: str) -> errors.PermissionDenied:
    """``error`` of a pull, with the ``trouble`` of :meth:`Logins.for_pull` as its reason."""
    return errors.PermissionDenied(error.message, kind=error.kind, ref=error.ref, hint=trouble)


def _usable(username: str, password: str) -> Credentials:
    """Credentials that a header can carry, or InvalidArgument."""
    for what, text in (("username", username), ("password", password)):
        if not text:
            raise errors.InvalidArgument(f"the {what} is empty", kind="param", ref=what)
        if any(ord(char) < 32 or ord(char) == 127 for char in text):
            raise errors.InvalidArgument(
                f"the {what} has control characters", kind="param", ref=what
            )
    if ":" in username:
        raise errors.InvalidArgument(
            "the username has a colon, which ends it for a registry", kind="param", ref="username"
        )
    return Credentials(username, password)
