"""Probes of cgroups: the hierarchies, and each controller one by one (case A21)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from isula_edge.kernel.finding import (
    Finding,
    State,
    absent,
    from_answer,
    present,
    unknown,
    unusable,
)
from isula_edge.kernel.layout import CgroupLayout, cgroup_layout
from isula_edge.kernel.source import CAP_SYS_ADMIN, has_cap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isula_edge.kernel.source import Source

__all__ = ["PROBES"]

_V2_NAMES = {"blkio": "io"}
_NEVER_IN_V2 = ("net_cls", "net_prio")


class _Row(NamedTuple):
    """A line of /proc/cgroups."""

    hierarchy: str
    enabled: bool


def _rows(source: Source) -> dict[str, _Row] | None:
    text = source.read("/proc/cgroups")
    if text is None:
        return None
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 4 and not line.startswith("#"):
            found[words[0]] = _Row(words[1], words[3] == "1")
    return found


def _controller(name: str) -> Callable[[Source], Finding]:
    def probe(source: Source) -> Finding:
        rows = _rows(source)
        if rows is not None and name in rows and not rows[name].enabled:
            return absent(
                f"/proc/cgroups lists {name} with enabled=0: switched off, or not switched "
                f"on, by the kernel command line"
            )
        layout = cgroup_layout(source)
        if layout.version == "v2":
            return _in_v2(source, layout, name, rows)
        if name in layout.mounts:
            return present(f"version 1 hierarchy at {layout.mounts[name]}")
        if _V2_NAMES.get(name, name) in layout.unified_controllers:
            return unusable(
                f"{name} is in the unified hierarchy {layout.unified}, the others are version 1"
            )
        if rows is None:
            return absent("no /proc/cgroups")
        if name in rows:
            return unusable(f"/proc/cgroups lists {name}, but no hierarchy of it is mounted")
        return absent(f"/proc/cgroups does not list {name}")

    return probe


def _in_v2(
    source: Source, layout: CgroupLayout, name: str, rows: dict[str, _Row] | None
) -> Finding:
    """A controller where only the unified hierarchy is mounted."""
    if name in _NEVER_IN_V2:
        return absent(f"cgroup version 2 has no {name}")
    top = layout.unified
    if name == "cpuacct":  # no controller in version 2: part of every group since 4.15
        return _v2_file(source, "cpu.stat")
    if name == "perf_event":  # on in every group without being switched on
        found = present if name in (rows or {}) else absent
        return found(f"/proc/cgroups {'lists' if found is present else 'does not list'} it")
    wanted = _V2_NAMES.get(name, name)
    if wanted not in layout.unified_controllers:
        row = (rows or {}).get(name)
        if row is None:
            return absent(f"{top}/cgroup.controllers does not list {wanted}")
        if row.hierarchy != "0":
            return unusable(f"{name} is bound to version 1 hierarchy {row.hierarchy}")
        if _is_root(source, top):
            return absent(f"{top}/cgroup.controllers does not list {wanted}")
        return unusable(f"not delegated: {top}/cgroup.controllers does not list {wanted}")
    handed_down = (source.read(f"{top}/cgroup.subtree_control") or "").split()
    if wanted in handed_down:
        return present(f"{top}/cgroup.subtree_control has {wanted}")
    if _is_root(source, top):
        return present(f"{top}/cgroup.controllers has {wanted}, the engine switches it on")
    return unusable(f"not delegated: {top}/cgroup.subtree_control does not have {wanted}")


def _is_root(source: Source, top: str) -> bool:
    """Whether ``top`` is the true root, the one group without ``cgroup.type`` (4.14) and
    ``cgroup.events``."""
    return not source.exists(f"{top}/cgroup.events")


def _devices(source: Source) -> Finding:
    layout = cgroup_layout(source)
    if layout.version != "v2":
        return _controller("devices")(source)
    return from_answer(
        "loading a device program for cgroup version 2",
        source.call("bpf.prog_cgroup_device"),
        ("EINVAL",),
        privileged=has_cap(source, CAP_SYS_ADMIN),
    )


def _freezer(source: Source) -> Finding:
    layout = cgroup_layout(source)
    if layout.version != "v2":
        return _controller("freezer")(source)
    return _v2_file(source, "cgroup.freeze")


def _v2_file(source: Source, name: str) -> Finding:
    """A file of every group.  The root lacks most of them, so that one which is not the root
    must be found."""
    layout = cgroup_layout(source)
    if not layout.unified:
        return absent("no cgroup version 2 hierarchy is mounted")
    if source.exists(f"{layout.unified}/{name}"):
        return present(f"{layout.unified}/{name} is there")
    for group in _groups(source, layout.unified):
        if source.exists(f"{group}/cgroup.procs"):
            if source.exists(f"{group}/{name}"):
                return present(f"{group}/{name} is there")
            return absent(f"no {group}/{name}")
    return unknown(f"no group below {layout.unified} to look for {name}")


def _groups(source: Source, top: str) -> list[str]:
    """Groups in which to look for a file: our own first."""
    if not _is_root(source, top):
        return [top]
    own = ""
    for line in (source.read("/proc/self/cgroup") or "").splitlines():
        if line.startswith("0::"):
            own = line[3:].strip("/")
    return [f"{top}/{group}" for group in ([own] if own else []) + source.list(top)]


def _file_of(controller: str, v1: str, v2: str) -> Callable[[Source], Finding]:
    """A file that a controller has only with some kernel options."""

    def probe(source: Source) -> Finding:
        base = _controller(controller)(source)
        if base.state is not State.PRESENT:
            return Finding(base.state, f"no {controller}: {base.why}")
        layout = cgroup_layout(source)
        if layout.version == "v2":
            return _v2_file_of(source, layout, controller, v2)
        path = f"{layout.mounts[controller]}/{v1}"
        return present(f"{path} is there") if source.exists(path) else absent(f"no {path}")

    return probe


def _v2_file_of(source: Source, layout: CgroupLayout, controller: str, name: str) -> Finding:
    if not name:
        return absent("cgroup version 2 has none")
    handed_down = source.read(f"{layout.unified}/cgroup.subtree_control") or ""
    if _V2_NAMES.get(controller, controller) not in handed_down.split():
        return unknown(f"{controller} is not switched on yet in {layout.unified}, nor its files")
    return _v2_file(source, name)


def _oom_count(source: Source) -> Finding:
    base = _controller("memory")(source)
    if base.state is not State.PRESENT:
        return Finding(base.state, f"no memory: {base.why}")
    layout = cgroup_layout(source)
    if layout.version != "v2":
        path = f"{layout.mounts['memory']}/memory.oom_control"
        counted = "oom_kill " in (source.read(path) or "")
        return (present if counted else absent)(f"{path} has {'' if counted else 'no '}oom_kill")
    found = _v2_file_of(source, layout, "memory", "memory.events")
    if found.state is not State.PRESENT:
        return found
    for group in _groups(source, layout.unified):
        text = source.read(f"{group}/memory.events")
        if text is not None:
            counted = "oom_kill " in text
            return (present if counted else absent)(
                f"{group}/memory.events has {'' if counted else 'no '}oom_kill"
            )
    return unknown("memory.events cannot be read")


def _hierarchy(source: Source) -> Finding:
    layout = cgroup_layout(source)
    if layout.version != "none":
        return present(f"layout {layout.version}")
    if _rows(source) or "cgroup" in (source.read("/proc/filesystems") or ""):
        return unusable("the kernel has cgroups, but no hierarchy is mounted")
    return absent("no cgroups in /proc/cgroups and /proc/filesystems")


def _layout_is(*versions: str) -> Callable[[Source], Finding]:
    def probe(source: Source) -> Finding:
        found = cgroup_layout(source).version
        return (present if found in versions else absent)(f"layout {found}")

    return probe


def _psi(source: Source) -> Finding:
    if source.read("/proc/pressure/memory"):
        return present("/proc/pressure/memory can be read")
    if source.exists("/proc/pressure"):
        return unusable("/proc/pressure is there, but cannot be read (psi=0)")
    return absent("no /proc/pressure")


_PLAIN = (
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "pids",
    "blkio",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "rdma",
    "misc",
)

PROBES: Mapping[str, Callable[[Source], Finding]] = {
    "cgroup-hierarchy": _hierarchy,
    "cgroup-v1": _layout_is("v1", "hybrid"),
    "cgroup-v2": _layout_is("v2", "hybrid"),
    "cgroup-hybrid": _layout_is("hybrid"),
    **{f"cgroup-{name}": _controller(name) for name in _PLAIN},
    "cgroup-devices": _devices,
    "cgroup-freezer": _freezer,
    "cgroup-cpu-quota": _file_of("cpu", "cpu.cfs_quota_us", "cpu.max"),
    "cgroup-cpu-rt": _file_of("cpu", "cpu.rt_runtime_us", ""),
    "cgroup-memory-swap": _file_of("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"),
    "cgroup-blkio-throttle": _file_of("blkio", "blkio.throttle.read_bps_device", "io.max"),
    "cgroup-oom-count": _oom_count,
    "cgroup-kill": lambda source: _v2_file(source, "cgroup.kill"),
    "psi": _psi,
}
