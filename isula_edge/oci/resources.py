"""The limits of a container: in the runtime-spec's words, and changed while it exists."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.oci import values
from isula_edge.oci.options import MIN_MEMORY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isula_edge.oci.options import Settings

__all__ = ["ResourceChange", "changed", "limits", "swap_limit"]

_UNIFIED = re.compile(r"[a-z]+(\.[A-Za-z0-9_]+)+")
_PAGE_SIZE = re.compile(r"[0-9]+[KMG]B")


def limits(settings: Settings) -> dict[str, Any]:
    """``linux.resources`` of the runtime-spec without its devices."""
    memory: dict[str, Any] = {}
    if settings.memory:
        memory["limit"] = settings.memory
        swap = swap_limit(settings)
        if swap >= 0:
            # no limit is what a new cgroup has, and kernels that do not count swap lack the file
            memory["swap"] = swap
    if settings.memory_reservation:
        memory["reservation"] = settings.memory_reservation
    if settings.memory_swappiness >= 0:
        memory["swappiness"] = settings.memory_swappiness
    if settings.oom_kill_disable:
        memory["disableOOMKiller"] = True
    cpu: dict[str, Any] = {}
    if settings.nano_cpus:
        cpu.update(period=100_000, quota=settings.nano_cpus // 10_000)
    for key, value in (
        ("shares", settings.cpu_shares),
        ("period", settings.cpu_period),
        ("quota", settings.cpu_quota),
        ("cpus", settings.cpuset_cpus),
        ("mems", settings.cpuset_mems),
    ):
        if value:
            cpu[key] = value
    pids = {"limit": settings.pids_limit} if settings.pids_limit else {}
    pages = [{"pageSize": size, "limit": limit} for size, limit in settings.hugepages]
    parts = {
        "memory": memory,
        "cpu": cpu,
        "pids": pids,
        "hugepageLimits": pages,
        "unified": dict(settings.unified),
    }
    return {key: part for key, part in parts.items() if part}


def swap_limit(settings: Settings) -> int:
    """Memory and swap together, below 0 for no limit."""
    if settings.memory < 0:
        return -1
    return settings.memory_swap or settings.memory * (1 if settings.no_swap else 2)


@dataclass(frozen=True, slots=True)
class ResourceChange:
    """New limits of a container; 0, '' and empty leave one as it is.

    Sizes are bytes, ``cpu_period`` and ``cpu_quota`` µs.  -1 is no limit for ``cpu_quota``,
    ``memory``, ``memory_swap`` (memory and swap together) and ``pids_limit``.  Of
    ``hugepages`` (page size like 2MB, bytes) and ``unified`` (files of cgroup v2) only what is
    named changes.
    """

    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    memory: int = 0
    memory_swap: int = 0
    pids_limit: int = 0
    hugepages: tuple[tuple[str, int], ...] = ()
    unified: Mapping[str, str] = field(default_factory=dict)


def changed(
    settings: Settings, change: ResourceChange, *, cpuset: str = "", mems: str = ""
) -> Settings:
    """``settings`` with ``change`` applied; InvalidArgument names what cannot be.

    ``cpuset`` and ``mems`` are the CPUs and memory nodes that may be asked for.
    """
    new = replace(settings, warnings=[])
    _processors(new, change, cpuset, mems)
    _memory(new, settings, change)
    if change.pids_limit:
        new.pids_limit = max(change.pids_limit, -1)
    for size, _ in change.hugepages:
        if not _PAGE_SIZE.fullmatch(size):
            raise _bad("hugepage_limits", f"{size!r} is no page size like 2MB")
    new.hugepages = list({**dict(settings.hugepages), **dict(change.hugepages)}.items())
    for name, value in change.unified.items():
        if not _UNIFIED.fullmatch(name) or "\0" in value:
            raise _bad("unified", f"{name!r} is no file of a cgroup")
    new.unified = {**settings.unified, **change.unified}
    return new


def _bad(ref: str, text: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(text, kind="resources", ref=ref)


def _processors(new: Settings, change: ResourceChange, cpuset: str, mems: str) -> None:
    if new.nano_cpus and (change.cpu_period or change.cpu_quota):
        raise _bad(
            "cpu_quota",
            "Conflicting options: CPU period and quota cannot be updated as NanoCPUs has "
            "already been set",
        )
    if change.cpu_shares:
        if change.cpu_shares < 0:
            raise _bad("cpu_shares", f"CPU shares can not be {change.cpu_shares}")
        new.cpu_shares = change.cpu_shares
    if change.cpu_period:
        if not 1000 <= change.cpu_period <= 1_000_000:
            raise _bad(
                "cpu_period",
                f"CPU cfs period must be between 1ms and 1s (1000 to 1000000), it is "
                f"{change.cpu_period}",
            )
        new.cpu_period = change.cpu_period
    if change.cpu_quota:
        if 0 < change.cpu_quota < 1000:
            raise _bad("cpu_quota", "CPU cfs quota can not be less than 1ms (i.e. 1000)")
        new.cpu_quota = max(change.cpu_quota, -1)
    if change.cpuset_cpus:
        new.cpuset_cpus = values.parse_cpuset("cpuset-cpus", change.cpuset_cpus, cpuset)
    if change.cpuset_mems:
        new.cpuset_mems = values.parse_cpuset("cpuset-mems", change.cpuset_mems, mems)


def _memory(new: Settings, old: Settings, change: ResourceChange) -> None:
    if 0 < change.memory < MIN_MEMORY:
        raise _bad("memory", "Minimum memory limit allowed is 4MB")
    swap = change.memory_swap
    if not swap and not old.no_swap and old.memory > 0:
        # what was twice the memory is a number in the kernel by now, and stays as it is
        swap = swap_limit(old)
    swap = max(swap or old.memory_swap, -1)
    if change.memory:
        new.memory = max(change.memory, -1)
    if new.memory < 0 and not change.memory_swap:
        swap = 0 if old.no_swap else -1
    if new.memory == old.memory and not change.memory_swap:
        return
    if swap > 0 and new.memory <= 0:
        raise _bad(
            "memory_swap", "You should set the memory limit when using memoryswap limit"
        )
    if 0 < swap < new.memory:
        if change.memory_swap:
            raise _bad(
                "memory_swap", "Minimum memoryswap limit should be larger than memory limit"
            )
        raise _bad(
            "memory",
            "Memory limit should be smaller than already set memoryswap limit, update the "
            "memoryswap at the same time",
        )
    if 0 < new.memory < old.memory_reservation:
        raise _bad("memory", "Minimum memory limit should be larger than memory reservation limit")
    new.memory_swap = swap
