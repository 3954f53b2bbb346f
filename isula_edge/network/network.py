"""The network of containers, made by CNI plugins."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.network import request as requests
from isula_edge.network import result as results
from isula_edge.network.cache import Cache, Entry
from isula_edge.network.chain import Chain
from isula_edge.network.config import check_name
from isula_edge.network.folder import ConfFolder
from isula_edge.network.plugin import Plugins
from isula_edge.network.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from isula_edge.network.config import NetworkConf
    from isula_edge.network.request import Attach, Choice
    from isula_edge.sys.inotify import Watcher
    from isula_edge.sys.process import Reaper

__all__ = ["Interface", "Network", "NetworkResult"]

log = logging.getLogger(__name__)

_UNINITIALIZED = "cni config uninitialized"
# DELs at once after a reboot: each is a few processes
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface of a container: its network, and the addresses with prefix lengths."""

    name: str
    network: str
    mac: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NetworkResult:
    """What plugins have made for a container.

    ``ips`` are the addresses of the primary network, the first being the container's;
    ``interfaces`` are all of its interfaces in the order in which they were made; ``raw``
    has the results by interface; ``routes`` and ``dns`` are the primary network's.
    """

    ips: list[str]
    interfaces: list[Interface]
    raw: dict[str, dict[str, Any]] = field(repr=False)
    routes: list[dict[str, Any]] = field(default_factory=list)
    dns: dict[str, Any] = field(default_factory=dict)


class Network:
    """Attaches containers to the networks that ``conf_dir`` defines.

    ``owner`` names the engine in the result cache, so that :meth:`collect` leaves the
    attachments of other engines alone.  Belongs to the event loop that runs when it is made.
    """

    def __init__(
        self,
        conf_dir: str,
        bin_dirs: Sequence[str],
        cache_dir: str,
        reaper: Reaper,
        watcher: Watcher | None = None,
        *,
        timeout_s: float = 90.0,
        owner: str = "isula-edge",
    ) -> None:
        self._folder = ConfFolder(conf_dir, watcher)
        self._chain = Chain(Plugins(bin_dirs, reaper, timeout_s))
        self._cache = Cache(cache_dir)
        self._turns = Turns()
        self._owner = owner
        self._pod_cidrs: tuple[str, ...] = ()
        # attached by this process: collect() may have been given older ids
        self._attached: set[str] = set()
        self._undoing: set[asyncio.Task[None]] = set()

    def networks(self, *, native: bool = False) -> list[NetworkConf]:
        """Networks in the order of their files; those of ``isula network`` only if ``native``."""
        return [network for network in self._folder.networks() if native or not network.native]

    def set_pod_cidr(self, cidrs: Sequence[str]) -> None:
        """Sets the addresses of pods, a range for each IP version; the first ones stay.

        Raises InvalidArgument.
        """
        wanted = tuple(part.strip() for text in cidrs for part in text.split(",") if part.strip())
        for cidr in wanted:
            results.check_cidr(cidr)
        if self._pod_cidrs and wanted not in ((), self._pod_cidrs):
            log.warning("pod CIDR %s is ignored: it is %s", wanted, self._pod_cidrs)
        self._pod_cidrs = self._pod_cidrs or wanted

    async def status(self) -> str:
        """Why pods cannot be given a network now; '' when they can."""
        networks = self.networks()
        if not networks:
            return _UNINITIALIZED
        try:
            await self._chain.status(networks[0])
        except errors.EngineError as error:
            return f"network {networks[0].name}: {error}"
        return ""

    async def attach(self, request: Attach) -> NetworkResult:
        """Makes all interfaces of a container; undoes what it did when one cannot be made.

        Raises InvalidArgument, FailedPrecondition (no network, a missing plugin),
        AlreadyExists, Unavailable (a plugin failed), DeadlineExceeded, Internal.
        """
        check_name(request.id, "container id")
        if not request.netns:
            raise errors.InvalidArgument("a network namespace is needed", ref=request.id)
        async with self._turns.of(request.id):
            entries, primary = await self._plan(request)
            for entry in entries:
                if self._cache.holds(entry):
                    raise errors.AlreadyExists(
                        f"{request.id} is attached to network {entry.network} already",
                        kind="network",
                        ref=entry.network,
                        hint="detach it first",
                    )
            self._attached.add(request.id)
            begun: list[Entry] = []
            try:
                for entry in entries:
                    begun.append(entry)
                    # without its result: what a crash leaves can be undone
                    self._cache.save(entry, durable=False)
                    entry.result = await self._add(entry)
                    self._cache.save(entry, durable=True)
            except BaseException:
                await self._undo(begun)
                self._attached.discard(request.id)
                raise
        return _answer(entries, primary)

    async def detach(self, request: Attach) -> None:
        """Takes all interfaces of a container away, the last first; gone already is fine.

        Uses the configuration that each was made with.  All are tried, then the first
        error is raised: another call tries again what failed.
        """
        check_name(request.id, "container id")
        async with self._turns.of(request.id):
            self._attached.discard(request.id)
            entries = self._cache.of(request.id)
            if not entries:
                entries = await self._guess(request)
            for entry in entries:
                entry.netns = request.netns
            await self._delete(entries)

    async def check(self, request: Attach) -> None:
        """Raises EngineError when a container's interfaces are not as they were made.

        FailedPrecondition: it has none.
        """
        async with self._turns.of(request.id):
            entries = self._cache.of(request.id)
            if not entries:
                raise errors.FailedPrecondition(
                    f"{request.id} is attached to no network", kind="container", ref=request.id
                )
            for entry in entries:
                self._restore(entry)
                if entry.document and entry.result is not None:
                    await self._chain.check(entry)

    async def collect(self, valid_ids: Collection[str]) -> list[errors.EngineError]:
        """Undoes attachments of this engine whose containers are not among ``valid_ids``.

        For after a crash or a reboot.  Plugins of CNI 1.1 are told what is still valid.
        Returns the failures, which are logged; the attachments concerned stay for a retry.
        """
        stale: dict[str, list[Entry]] = {}
        self._cache.sweep()
        for entry in self._cache.everything():
            if entry.owner == self._owner and entry.container_id not in valid_ids:
                stale.setdefault(entry.container_id, []).append(entry)
        slots = asyncio.Semaphore(_AT_ONCE)

        async def collect_one(container_id: str, entries: list[Entry]) -> None:
            async with slots, self._turns.of(container_id):
                if container_id not in self._attached:
                    await self._delete(sorted(entries, key=lambda entry: entry.order))

        answers = await asyncio.gather(
            *(collect_one(*item) for item in stale.items()), return_exceptions=True
        )
        async with self._turns.alone():
            valid = self._cache.everything()
            for network in self.networks(native=True):
                mine = [entry for entry in valid if entry.network == network.name]
                await self._collect_network(network, mine)
        return _failures(answers)

    def close(self) -> None:
        """Ends the watches; nothing else is held."""
        self._folder.close()

    async def _plan(self, request: Attach) -> tuple[list[Entry], int]:
        """The attachments that ``request`` asks for, and which of them is the primary one."""
        choices = list(request.networks) or self._pod_choices(request)
        known = {network.name: network for network in self.networks(native=True)}
        entries = []
        for order, choice in enumerate(choices):
            network = known.get(choice.network)
            if network is None:
                raise errors.NotFound(
                    f"no such network: {choice.network}", kind="network", ref=choice.network
                )
            requests.check_interface(choice.interface)
            self._chain.ready(network)
            entries.append(await self._entry(request, choice, network, order))
        primary = [choice.primary for choice in choices]
        return entries, primary.index(True) if True in primary else 0

    def _pod_choices(self, request: Attach) -> list[Choice]:
        names = [network.name for network in self.networks()]
        if not names:
            raise errors.FailedPrecondition(
                _UNINITIALIZED,
                kind="network",
                hint=f"put a CNI configuration into {self._folder.path}",
            )
        return requests.pod_choices(request, names[0], names)

    async def _entry(
        self, request: Attach, choice: Choice, network: NetworkConf, order: int
    ) -> Entry:
        declared = network.capabilities()
        return Entry(
            network.name,
            request.id,
            choice.interface,
            request.netns,
            network.pinned(await self._chain.version(network)),
            requests.cni_args(request, choice, declared),
            requests.capability_values(request, choice, self._pod_cidrs),
            order=order,
            owner=self._owner,
        )

    async def _guess(self, request: Attach) -> list[Entry]:
        """Attachments that ``request`` would have now, for a DEL without cache."""
        try:
            return (await self._plan(request))[0]
        except errors.EngineError as error:
            log.info("nothing is known of the network of %s: %s", request.id, error)
            return []

    async def _add(self, entry: Entry) -> dict[str, Any]:
        try:
            return await self._chain.add(entry)
        except errors.EngineError as error:
            error.message = f"network {entry.network} on {entry.ifname}: {error.message}"
            error.args = (error.message,)
            raise

    def _restore(self, entry: Entry) -> None:
        """Gives an attachment without configuration the one that its network has now."""
        if not entry.document:
            for network in self.networks(native=True):
                if network.name == entry.network:
                    entry.document = network.pinned(network.versions[-1])

    async def _delete(self, entries: Sequence[Entry]) -> None:
        """DEL of all ``entries``, the last first; raises the first error after all."""
        first: errors.EngineError | None = None
        for entry in reversed(entries):
            self._restore(entry)
            try:
                if entry.document:
                    await self._chain.delete(entry)
                else:
                    log.warning("network %s is gone: %s is forgotten", entry.network, entry.file)
                self._cache.remove(entry)
            except errors.EngineError as error:
                log.warning("network %s of %s: %s", entry.network, entry.container_id, error)
                first = first or error
        if first is not None:
            raise first

    async def _undo(self, entries: Sequence[Entry]) -> None:
        """DEL after a failure, to its end even if the caller is cancelled meanwhile."""

        async def undo() -> None:
            try:
                await self._delete(entries)
            except errors.EngineError as error:
                log.warning("the network could not be undone: %s", error)

        task = asyncio.create_task(undo())
        self._undoing.add(task)
        task.add_done_callback(self._undoing.discard)
        await asyncio.shield(task)

    async def _collect_network(self, network: NetworkConf, valid: Sequence[Entry]) -> None:
        try:
            await self._chain.collect(network, valid)
        except errors.EngineError as error:
            log.warning("collecting garbage of network %s: %s", network.name, error)


def _answer(entries: Sequence[Entry], primary: int) -> NetworkResult:
    interfaces = []
    raw = {}
    for entry in entries:
        done = entry.result or {}
        raw[entry.ifname] = done
        macs = [
            item.get("mac") or ""
            for item in done.get("interfaces") or []
            if item.get("name") == entry.ifname and item.get("sandbox")
        ]
        found = tuple(results.addresses(done))
        interfaces.append(
            Interface(entry.ifname, entry.network, macs[0] if macs else "", found)
        )
    main = raw[entries[primary].ifname]
    return NetworkResult(
        ips=[address.partition("/")[0] for address in interfaces[primary].addresses],
        interfaces=interfaces,
        raw=raw,
        routes=list(main.get("routes") or []),
        dns=dict(main.get("dns") or {}),
    )


def _failures(answers: Sequence[BaseException | None]) -> list[errors.EngineError]:
    """The engine's errors among ``answers``; anything else is raised."""
    failures = []
    for answer in answers:
        if isinstance(answer, errors.EngineError):
            failures.append(answer)
        elif answer is not None:
            raise answer
    return failures
