"""What several plugins ask for, in one: no two of them may set the same thing."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from isula_cri.nri import messages
from isula_cri.nri.messages import FIELDS
from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Creation", "Owners", "Updates"]

_log = logging.getLogger(__name__)
_MEMORY = {
    "limit": "MemLimit",
    "reservation": "MemReservation",
    "swap": "MemSwapLimit",
    "kernel": "MemKernelLimit",
    "kernel_tcp": "MemTCPLimit",
    "swappiness": "MemSwappiness",
    "disable_oom_killer": "MemDisableOomKiller",
    "use_hierarchy": "MemUseHierarchy",
}
_CPU = {
    "shares": "CPUShares",
    "quota": "CPUQuota",
    "period": "CPUPeriod",
    "realtime_runtime": "CPURealtimeRuntime",
    "realtime_period": "CPURealtimePeriod",
}
_CPUSET = {"cpus": "CPUSetCPUs", "mems": "CPUSetMems"}
_LINUX_LISTS = (("Devices", "devices", "path"), ("Namespace", "namespaces", "type"))
_UNSERVED = ("io_priority", "scheduler", "rdt", "memory_policy")


class Owners:
    """Which plugin set which field of which container."""

    def __init__(self) -> None:
        # (container, Field, key or '' for a field without keys) -> name, '-name' if cleared
        self._owners: dict[tuple[str, str, str], str] = {}

    def claim(self, container: str, field: str, plugin: str, key: str = "") -> None:
        """``plugin`` sets ``field``; FailedPrecondition when another one did."""
        place = (container, field, key)
        other = self._owners.get(place, "").removeprefix("-")
        if other not in ("", plugin):
            what = f"{field} {key}".rstrip()
            raise errors.FailedPrecondition(
                f'plugins "{other}" and "{plugin}" both tried to set {what}', kind="NRI", ref=what
            )
        self._owners[place] = plugin

    def share(self, container: str, field: str, plugin: str) -> None:
        """``plugin`` adds to ``field``, as any number of plugins may."""
        place = (container, field, "")
        self._owners[place] = ",".join(filter(None, (self._owners.get(place, ""), plugin)))

    def clear(self, container: str, field: str, plugin: str, key: str = "") -> None:
        """``plugin`` takes away what is there, and may set it anew."""
        self._owners[container, field, key] = f"-{plugin}"

    def message(self) -> Any:
        """As OwningPlugins."""
        made = messages.OwningPlugins()
        for (container, field, key), plugin in self._owners.items():
            owners, number = made.owners[container], FIELDS[field]
            if key:
                owners.compound[number].owners[key] = plugin
            else:
                owners.simple[number] = plugin
        return made


class Updates:
    """Changed limits of containers, by id."""

    def __init__(self, owners: Owners) -> None:
        self._owners = owners
        self.by_id: dict[str, Any] = {}

    def take(self, plugin: str, updates: Iterable[Any]) -> None:
        """Adds what ``plugin`` asks for; FailedPrecondition for a conflict."""
        for asked in updates:
            name = asked.container_id
            merged = messages.ContainerUpdate(container_id=name, ignore_failure=True)
            if name in self.by_id:
                merged.CopyFrom(self.by_id[name])
            try:
                _merge_resources(
                    self._owners, name, plugin, asked.linux.resources, [merged.linux.resources]
                )
            except errors.FailedPrecondition as error:
                if not asked.ignore_failure:
                    raise
                _log.warning("NRI: an update of container %s is left out: %s", name, error)
                continue
            merged.ignore_failure = merged.ignore_failure and asked.ignore_failure
            self.by_id[name] = merged


class Creation:
    """The adjustments of one container that is being created.

    ``request`` is what the next plugin gets: it has the changes of those before it.
    """

    def __init__(self, request: Any) -> None:
        self.request = request
        self.adjust = messages.ContainerAdjustment()
        self.owners = Owners()
        self.updates = Updates(self.owners)

    def take(self, plugin: str, response: Any) -> None:
        """Adds what ``plugin`` answered; FailedPrecondition for a conflict."""
        own = self.request.container.id
        for update in response.update:
            if update.container_id == own:
                raise errors.FailedPrecondition(
                    f'plugin "{plugin}" asked for an update of {own}, which is being created',
                    kind="NRI",
                    ref=own,
                )
        if response.HasField("adjust"):
            self._adjust(plugin, response.adjust)
        self.updates.take(plugin, response.update)

    def _adjust(self, plugin: str, asked: Any) -> None:
        container, linux = self.request.container, self.request.container.linux
        made = self.adjust
        self._map(plugin, "Annotations", asked.annotations, made.annotations, container.annotations)
        self._list(plugin, "Mounts", asked, made, "mounts", "destination", container.mounts)
        self._env(plugin, asked.env)
        self._list(plugin, "Rlimits", asked, made, "rlimits", "type", container.rlimits)
        self._list(plugin, "CdiDevices", asked, made, "CDI_devices", "name", None)
        self._args(plugin, asked.args)
        self._hooks(plugin, asked.hooks)
        if not asked.HasField("linux"):
            return
        self._refuse(plugin, asked.linux)
        for field, name, key in _LINUX_LISTS:
            current = getattr(linux, name)
            self._list(plugin, field, asked.linux, made.linux, name, key, current)
        self._map(plugin, "Sysctl", asked.linux.sysctl, made.linux.sysctl, linux.sysctl)
        targets = [made.linux.resources, linux.resources]
        _merge_resources(self.owners, container.id, plugin, asked.linux.resources, targets)
        self._simple(plugin, asked.linux)

    def _refuse(self, plugin: str, asked: Any) -> None:
        """What no runtime of ours does is refused, not left out in silence."""
        found = [name for name in _UNSERVED if asked.HasField(name)]
        if asked.net_devices:
            found.append("net_devices")
        if found:
            raise errors.Unimplemented(
                f'plugin "{plugin}" asked for {found[0]}, which this engine cannot set',
                kind="NRI",
                ref=found[0],
            )

    def _map(self, plugin: str, field: str, asked: Any, made: Any, current: Any) -> None:
        own = self.request.container.id
        for key in [key for key in asked if key.startswith("-")]:
            for table in (made, current):
                if key[1:] in table:
                    del table[key[1:]]
            made[key] = ""
            self.owners.clear(own, field, plugin, key[1:])
        for key, value in asked.items():
            if not key.startswith("-"):
                self.owners.claim(own, field, plugin, key)
                made[key] = current[key] = value

    def _list(
        self, plugin: str, field: str, asked: Any, made: Any, name: str, key: str, current: Any
    ) -> None:
        """A list whose items have a name, in the field ``key``."""
        own = self.request.container.id
        items, result = getattr(asked, name), getattr(made, name)
        names = [getattr(item, key) for item in items]
        removed = {text[1:] for text in names if text.startswith("-")}
        for text in removed:
            self.owners.clear(own, field, plugin, text)
        _drop(result, key, removed)
        if current is not None:
            _drop(current, key, removed.union(names))
        for text, item in zip(names, items, strict=True):
            if text.startswith("-"):
                result.add().CopyFrom(item)
                continue
            self.owners.claim(own, field, plugin, text)
            result.add().CopyFrom(item)
            if current is not None:
                current.add().CopyFrom(item)

    def _env(self, plugin: str, asked: Any) -> None:
        wrapped = messages.ContainerAdjustment(env=asked)
        self._list(plugin, "Env", wrapped, self.adjust, "env", "key", None)
        env = self.request.container.env
        gone = {item.key.removeprefix("-") for item in asked}
        kept = [pair for pair in env if pair.partition("=")[0] not in gone]
        kept += [f"{item.key}={item.value}" for item in asked if not item.key.startswith("-")]
        env[:] = kept

    def _args(self, plugin: str, asked: Any) -> None:
        if not asked:
            return
        own, words = self.request.container.id, list(asked)
        if not words[0]:
            # "whatever others said": the first word is only this mark
            self.owners.clear(own, "Args", plugin)
            words = words[1:]
        self.owners.claim(own, "Args", plugin)
        self.adjust.args[:] = words
        self.request.container.args[:] = words

    def _hooks(self, plugin: str, asked: Any) -> None:
        if asked.ByteSize():
            self.owners.share(self.request.container.id, "OciHooks", plugin)
            self.adjust.hooks.MergeFrom(asked)  # which appends to every list
            self.request.container.hooks.MergeFrom(asked)

    def _simple(self, plugin: str, asked: Any) -> None:
        own, made = self.request.container, self.adjust.linux
        if asked.cgroups_path:
            self.owners.claim(own.id, "CgroupsPath", plugin)
            made.cgroups_path = own.linux.cgroups_path = asked.cgroups_path
        for name, field in (("oom_score_adj", "OomScoreAdj"), ("seccomp_policy", "SeccompPolicy")):
            if asked.HasField(name):
                self.owners.claim(own.id, field, plugin)
                _put(made, asked, name)
                _put(own.linux, asked, name)


def _drop(items: Any, key: str, names: set[str]) -> None:
    for index in range(len(items) - 1, -1, -1):
        if getattr(items[index], key) in names:
            del items[index]


def _put(target: Any, asked: Any, name: str) -> None:
    """Copies a message, also one that is empty because all it says is 0."""
    holder = getattr(target, name)
    holder.SetInParent()
    holder.CopyFrom(getattr(asked, name))


def _merge_resources(
    owners: Owners, container: str, plugin: str, asked: Any, targets: list[Any]
) -> None:
    """Puts the limits of ``asked`` into every one of ``targets``."""
    for name in ("blockio_class", "rdt_class"):
        if asked.HasField(name):
            raise errors.Unimplemented(
                f'plugin "{plugin}" asked for {name}, which this engine cannot set',
                kind="NRI",
                ref=name,
            )
    for field, key, change in _changes(asked):
        owners.claim(container, field, plugin, key)
        for target in targets:
            change(target)
    for target in targets if asked.devices else ():
        target.devices.extend(asked.devices)


def _changes(asked: Any) -> Iterator[tuple[str, str, Callable[[Any], None]]]:
    """Every limit that is set: its Field, its key, and what sets it in other resources."""
    for part, names in (("memory", _MEMORY), ("cpu", _CPU)):
        limits = getattr(asked, part)
        for name, field in names.items():
            if limits.HasField(name):
                yield field, "", partial(_put_in, part, limits, name)
    for name, field in _CPUSET.items():
        if getattr(asked.cpu, name):
            yield field, "", partial(_set_cpus, name, getattr(asked.cpu, name))
    if asked.HasField("pids"):
        yield "PidsLimit", "", partial(_put, asked=asked, name="pids")
    for limit in asked.hugepage_limits:
        yield "HugepageLimits", limit.page_size, partial(_set_hugepages, limit)
    for key, text in asked.unified.items():
        yield "CgroupsUnified", key, partial(_set_unified, key, text)


def _put_in(part: str, asked: Any, name: str, target: Any) -> None:
    _put(getattr(target, part), asked, name)


def _set_cpus(name: str, value: str, target: Any) -> None:
    setattr(target.cpu, name, value)


def _set_hugepages(limit: Any, target: Any) -> None:
    _drop(target.hugepage_limits, "page_size", {limit.page_size})
    target.hugepage_limits.add().CopyFrom(limit)


def _set_unified(key: str, value: str, target: Any) -> None:
    target.unified[key] = value
