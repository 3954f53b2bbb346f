"""What containers and pods use now, and how fast.

Nothing is measured unless somebody asks.  Samples for rates and the sizes of writable
layers are kept in memory and forgotten when nobody has asked for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from isula_edge.cgroup.pods import group_dir
from isula_edge.cgroup.stats import GroupStats, read_stats, total
from isula_edge.sys import descriptors, netdev
from isula_edge.sys.usage import TreeUsage, tree_usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from isula_edge.container.record import Container
    from isula_edge.pod.record import Pod
    from isula_edge.runtime.base import Guest
    from isula_edge.service.engine import Engine
    from isula_edge.sys.descriptors import Descriptors
    from isula_edge.sys.netdev import Interface

__all__ = ["ContainerUsage", "LayerUsage", "PodUsage", "Stats"]

_FORGET_NS = 900 * 10**9
_WINDOW_NS = 10**8
"""A rate over less time would be noise: the one before is given again."""
_LAYER_AGE_NS = 10 * 10**9
_FIRST_LAYER_S = 1.0
_GUEST_S = 5.0
"""A runtime that hangs must not hold up what others use."""
_Guests = dict[str, GroupStats | None]


@dataclass(frozen=True, slots=True)
class LayerUsage:
    """A writable layer: when it was measured (ns since 1970 UTC), its file system, its size."""

    taken_ns: int
    mountpoint: str
    size: TreeUsage


@dataclass(frozen=True, slots=True)
class ContainerUsage:
    """What a container uses; zeros for one that does not run.

    ``nano_cores`` is the rate since the sample before, None at the first; ``layer`` is None
    until it has been measured, and without a writable layer.  ``open`` and ``max_files``
    (the soft limit of init) are there when details were asked for.
    """

    id: str
    group: GroupStats
    nano_cores: int | None = None
    layer: LayerUsage | None = None
    open: Descriptors | None = None
    max_files: int | None = None


@dataclass(frozen=True, slots=True)
class PodUsage:
    """What a pod uses: its own cgroup, or the sum of its containers where it has none.

    ``network`` is None in the host's network namespace and when the pod's is gone.
    """

    id: str
    group: GroupStats
    nano_cores: int | None
    network: tuple[Interface, ...] | None
    containers: tuple[ContainerUsage, ...]


@dataclass(frozen=True, slots=True)
class _Sample:
    cpu_ns: int
    at_ns: int
    rate: int | None


class _Rates:
    """CPU time per time since the sample before, by id."""

    def __init__(self) -> None:
        self._last: dict[str, _Sample] = {}

    def add(self, key: str, cpu_ns: int, at_ns: int) -> int | None:
        """The rate in billionths of a CPU; ``at_ns`` is monotonic."""
        last = self._last.get(key)
        rate = None
        if last is not None:
            if at_ns - last.at_ns < _WINDOW_NS:
                return last.rate
            # less than before: it has been started again
            if cpu_ns >= last.cpu_ns:
                rate = (cpu_ns - last.cpu_ns) * 10**9 // (at_ns - last.at_ns)
        self._last[key] = _Sample(cpu_ns, at_ns, rate)
        return rate

    def forget(self, before_ns: int) -> None:
        """Drops what nobody has asked for since ``before_ns``."""
        for key in [key for key, last in self._last.items() if last.at_ns < before_ns]:
            del self._last[key]


class _Layers:
    """Sizes of writable layers, measured again in the background when asked for and old."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, tuple[int, LayerUsage]] = {}
        self._queue: dict[str, str] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    async def of(self, containers: Sequence[Container]) -> dict[str, LayerUsage]:
        """What is known of ``containers``; waits a moment for those never measured."""
        now = time.monotonic_ns()
        self._forget(now - _FORGET_NS)
        missing = False
        for container in containers:
            known = self._known.get(container.id)
            if known is None or now - known[0] > _LAYER_AGE_NS:
                data = self._engine.life.rootfs_data(container)
                if path := data.get("UpperDir") or data.get("MergedDir"):
                    self._queue[container.id] = path
                    missing = missing or known is None
        if self._queue and self._idle.is_set():
            self._idle.clear()
            self._engine.background(self._measure())
        if missing:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), _FIRST_LAYER_S)
        return {
            container.id: self._known[container.id][1]
            for container in containers
            if container.id in self._known
        }

    async def _measure(self) -> None:
        # one after the other: disks of small machines have other things to do
        try:
            while self._queue:
                # those that were never measured first
                key = min(self._queue, key=lambda item: item in self._known)
                size = await asyncio.to_thread(tree_usage, self._queue.pop(key))
                mountpoint = self._engine.layers.driver.home
                usage = LayerUsage(time.time_ns(), mountpoint, size)
                self._known[key] = time.monotonic_ns(), usage
        finally:
            self._idle.set()

    def _forget(self, before_ns: int) -> None:
        for key in [key for key, (at_ns, _) in self._known.items() if at_ns < before_ns]:
            del self._known[key]


class Stats:
    """Statistics of one engine's containers and pods; nothing blocks the event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rates = _Rates()
        self._layers = _Layers(engine)
        # one reading at a time: threads share the samples
        self._lock = asyncio.Lock()

    async def container(self, container: Container, *, detailed: bool = False) -> ContainerUsage:
        """What one container uses now."""
        return (await self.containers([container], detailed=detailed))[0]

    async def containers(
        self, containers: Sequence[Container], *, detailed: bool = False
    ) -> list[ContainerUsage]:
        """What each of ``containers`` uses now, in their order."""
        layers = await self._layers.of(containers)
        guests = await self._guests(containers)
        async with self._lock:
            return await asyncio.to_thread(self._containers, containers, layers, guests, detailed)

    async def pod(
        self, pod: Pod, containers: Sequence[Container], *, detailed: bool = False
    ) -> PodUsage:
        """What ``pod`` with its running ``containers`` uses now."""
        return (await self.pods([(pod, containers)], detailed=detailed))[0]

    async def pods(
        self, pods: Sequence[tuple[Pod, Sequence[Container]]], *, detailed: bool = False
    ) -> list[PodUsage]:
        """What each pod with its running containers uses now, in their order."""
        every = [item for _, listed in pods for item in listed]
        layers = await self._layers.of(every)
        guests = await self._guests(every)
        async with self._lock:
            return await asyncio.to_thread(self._pods, pods, layers, guests, detailed)

    async def _ask(self, guest: Guest, container: Container) -> GroupStats | None:
        async with asyncio.timeout(_GUEST_S):
            return await guest.stats(self._engine.bundles.load(container))

    async def _guests(self, containers: Sequence[Container]) -> _Guests:
        """What those use that only their runtime can count: None where it does not tell."""
        asked = {
            item.id: self._ask(guest, item)
            for item in containers
            if item.running
            and (guest := self._engine.life.machine(item.runtime)) is not None
        }
        told = await asyncio.gather(*asked.values(), return_exceptions=True)
        return {
            key: answer if isinstance(answer, GroupStats) else None
            for key, answer in zip(asked, told, strict=True)
        }

    # in a thread

    def _containers(
        self,
        containers: Iterable[Container],
        layers: dict[str, LayerUsage],
        guests: _Guests,
        detailed: bool,
    ) -> list[ContainerUsage]:
        self._rates.forget(time.monotonic_ns() - _FORGET_NS)
        return [self._one(item, layers.get(item.id), guests, detailed) for item in containers]

    def _one(
        self, container: Container, layer: LayerUsage | None, guests: _Guests, detailed: bool
    ) -> ContainerUsage:
        cgroups, group = self._engine.cgroups, self._engine.bundles.cgroup(container)
        found, rate = None, None
        held, max_files = None, None
        if container.id in guests:
            found = guests[container.id]
            if found is not None and not detailed:
                found = replace(found, details=None)
            if found is not None:
                rate = self._rates.add(container.id, found.cpu_ns, time.monotonic_ns())
        elif container.running:
            found, rate = self._group(container.id, group, detailed)
            if detailed:
                held = descriptors.count(cgroups.pids(group))
                max_files = descriptors.soft_limit(container.state.pid)
        found = found or GroupStats(taken_ns=time.time_ns())
        return ContainerUsage(container.id, found, rate, layer, held, max_files)

    def _group(
        self, key: str, group: str, detailed: bool
    ) -> tuple[GroupStats | None, int | None]:
        found = read_stats(self._engine.cgroups, group, detailed=detailed)
        if found is None:
            return None, None
        return found, self._rates.add(key, found.cpu_ns, time.monotonic_ns())

    def _pods(
        self,
        pods: Sequence[tuple[Pod, Sequence[Container]]],
        layers: dict[str, LayerUsage],
        guests: _Guests,
        detailed: bool,
    ) -> list[PodUsage]:
        paths = {pod.id: pod.namespaces.get("network") for pod, _ in pods}
        networks = netdev.interfaces(path for path in paths.values() if path)
        found = []
        for pod, listed in pods:
            containers = self._containers(listed, layers, guests, detailed)
            group, rate = None, None
            if parent := group_dir(pod.cgroup_parent, systemd=self._engine.config.systemd_cgroup):
                group, rate = self._group(pod.id, parent, detailed)
            if group is None:
                group = total(item.group for item in containers)
                rates = [item.nano_cores for item in containers if item.nano_cores is not None]
                rate = sum(rates) if rates else None
            interfaces = networks.get(paths[pod.id] or "")
            found.append(
                PodUsage(
                    pod.id,
                    group,
                    rate,
                    None if interfaces is None else tuple(interfaces),
                    tuple(containers),
                )
            )
        return found
