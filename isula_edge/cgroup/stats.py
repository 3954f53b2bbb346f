"""What the kernel counts of one cgroup, alike for version 1, hybrid and version 2."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isula_edge.cgroup.host import Host

__all__ = [
    "Details",
    "Device",
    "GroupStats",
    "HugePages",
    "Pressure",
    "Stall",
    "page_sizes",
    "read_stats",
    "total",
]

_UNLIMITED = 1 << 62
_HUGE_PAGES = "/sys/kernel/mm/hugepages"


@dataclass(frozen=True, slots=True)
class Pressure:
    """One line of a pressure file: ns stalled since ever, and per cent of the last seconds."""

    total_ns: int = 0
    avg10: float = 0.0
    avg60: float = 0.0
    avg300: float = 0.0


@dataclass(frozen=True, slots=True)
class Stall:
    """A pressure file (PSI): time in which some, or all, processes waited."""

    some: Pressure = Pressure()
    full: Pressure = Pressure()


@dataclass(frozen=True, slots=True)
class Device:
    """What was read from and written to a block device; ``name`` is the kernel's (sda)."""

    major: int
    minor: int
    name: str
    read_bytes: int = 0
    write_bytes: int = 0
    reads: int = 0
    writes: int = 0


@dataclass(frozen=True, slots=True)
class HugePages:
    """Bytes of huge pages of one size (2MB)."""

    size: str
    usage: int
    max_usage: int


@dataclass(frozen=True, slots=True)
class Details:
    """What costs more files: counters that only metrics show.  Times are ns."""

    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0
    memory_max_usage: int = 0
    memory_failures: int = 0
    memory_kernel: int = 0
    oom_kills: int = 0
    pids_max: int | None = None
    devices: tuple[Device, ...] = ()
    huge_pages: tuple[HugePages, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupStats:
    """Counters of a cgroup and all below it.

    ``taken_ns`` is the time of reading, ns since 1970 UTC.  Sizes are bytes; a limit is
    None where there is none.  Pressure is None where the kernel does not tell it.
    """

    taken_ns: int = 0
    cpu_ns: int = 0
    memory_usage: int = 0
    memory_working_set: int = 0
    memory_limit: int | None = None
    memory_rss: int = 0
    memory_cache: int = 0
    memory_mapped_file: int = 0
    page_faults: int = 0
    major_page_faults: int = 0
    swap_usage: int = 0
    swap_limit: int | None = None
    pids: int = 0
    cpu_stall: Stall | None = None
    memory_stall: Stall | None = None
    io_stall: Stall | None = None
    details: Details | None = None


class _Group:
    """Files of one cgroup; what cannot be read is empty, ``found`` tells whether any could."""

    def __init__(self, host: Host, group: str) -> None:
        self._host, self._group = host, group
        self._places: dict[str, str] = {}
        self.found = False

    def text(self, controller: str, name: str) -> str:
        place = self._places.get(controller)
        if place is None:
            known = controller in self._host.mounts
            place = self._host.path(controller, self._group) if known else ""
            self._places[controller] = place
        if not place:
            return ""
        try:
            with open(f"{place}/{name}", "rb", 0) as file:
                text = (file.read() or b"").decode("ascii", "replace")
        except OSError:
            return ""
        self.found = True
        return text

    def number(self, controller: str, name: str) -> int:
        """0 for anything that is no number."""
        try:
            return int(self.text(controller, name))
        except ValueError:
            return 0

    def limit(self, controller: str, name: str) -> int | None:
        """None for "max", for version 1's number near 2^63 and for an absent file."""
        try:
            value = int(self.text(controller, name))
        except ValueError:
            return None
        return value if value < _UNLIMITED else None

    def table(self, controller: str, name: str) -> dict[str, int]:
        """A flat-keyed file."""
        found = {}
        for line in self.text(controller, name).splitlines():
            key, _, value = line.partition(" ")
            with contextlib.suppress(ValueError):
                found[key] = int(value)
        return found

    def stall(self, name: str) -> Stall | None:
        """A pressure file, which only the unified hierarchy has (Linux 4.20)."""
        lines = {}
        for line in self.text("", name).splitlines():
            kind, *words = line.split()
            values = dict(word.partition("=")[::2] for word in words)
            with contextlib.suppress(KeyError, ValueError):
                lines[kind] = Pressure(
                    int(values["total"]) * 1000,
                    *(float(values[key]) for key in ("avg10", "avg60", "avg300")),
                )
        return Stall(**{key: lines.get(key, Pressure()) for key in ("some", "full")}) if (
            lines
        ) else None


def read_stats(host: Host, group: str, *, detailed: bool = False) -> GroupStats | None:
    """Counters of ``group`` now, with ``detailed`` all there are; None when it is not there."""
    files = _Group(host, group)
    now = time.time_ns()
    read = _read_v2 if host.version == "2" else _read_v1
    found = read(files, now, detailed)
    return found if files.found else None


def _read_v1(files: _Group, now: int, detailed: bool) -> GroupStats:
    memory = files.table("memory", "memory.stat")
    usage = files.number("memory", "memory.usage_in_bytes")
    limit = files.limit("memory", "memory.limit_in_bytes")
    both = files.limit("memory", "memory.memsw.limit_in_bytes")
    return GroupStats(
        taken_ns=now,
        cpu_ns=files.number("cpuacct", "cpuacct.usage"),
        memory_usage=usage,
        memory_working_set=max(usage - memory.get("total_inactive_file", 0), 0),
        memory_limit=limit,
        memory_rss=memory.get("total_rss", 0),
        memory_cache=memory.get("total_cache", 0),
        memory_mapped_file=memory.get("total_mapped_file", 0),
        page_faults=memory.get("total_pgfault", 0),
        major_page_faults=memory.get("total_pgmajfault", 0),
        swap_usage=memory.get("total_swap", 0),
        swap_limit=None if both is None else max(both - (limit or 0), 0),
        pids=files.number("pids", "pids.current"),
        cpu_stall=files.stall("cpu.pressure"),
        memory_stall=files.stall("memory.pressure"),
        io_stall=files.stall("io.pressure"),
        details=_details_v1(files) if detailed else None,
    )


def _read_v2(files: _Group, now: int, detailed: bool) -> GroupStats:
    cpu = files.table("", "cpu.stat")
    memory = files.table("memory", "memory.stat")
    usage = files.number("memory", "memory.current")
    return GroupStats(
        taken_ns=now,
        cpu_ns=cpu.get("usage_usec", 0) * 1000,
        memory_usage=usage,
        memory_working_set=max(usage - memory.get("inactive_file", 0), 0),
        memory_limit=files.limit("memory", "memory.max"),
        memory_rss=memory.get("anon", 0),
        memory_cache=memory.get("file", 0),
        memory_mapped_file=memory.get("file_mapped", 0),
        page_faults=memory.get("pgfault", 0),
        major_page_faults=memory.get("pgmajfault", 0),
        swap_usage=files.number("memory", "memory.swap.current"),
        swap_limit=files.limit("memory", "memory.swap.max"),
        pids=files.number("pids", "pids.current"),
        cpu_stall=files.stall("cpu.pressure"),
        memory_stall=files.stall("memory.pressure"),
        io_stall=files.stall("io.pressure"),
        details=_details_v2(files, cpu, memory) if detailed else None,
    )


def _details_v1(files: _Group) -> Details:
    ticks = files.table("cpuacct", "cpuacct.stat")
    tick_ns = 10**9 // os.sysconf("SC_CLK_TCK")
    cpu = files.table("cpu", "cpu.stat")
    return Details(
        cpu_user_ns=ticks.get("user", 0) * tick_ns,
        cpu_system_ns=ticks.get("system", 0) * tick_ns,
        periods=cpu.get("nr_periods", 0),
        throttled_periods=cpu.get("nr_throttled", 0),
        throttled_ns=cpu.get("throttled_time", 0),
        memory_max_usage=files.number("memory", "memory.max_usage_in_bytes"),
        # with both limits alike only the second one is ever hit
        memory_failures=files.number("memory", "memory.failcnt")
        + files.number("memory", "memory.memsw.failcnt"),
        memory_kernel=files.number("memory", "memory.kmem.usage_in_bytes"),
        oom_kills=files.table("memory", "memory.oom_control").get("oom_kill", 0),
        pids_max=files.limit("pids", "pids.max"),
        devices=_devices_v1(files),
        huge_pages=_huge_pages(files, "usage_in_bytes", "max_usage_in_bytes"),
    )


def _details_v2(files: _Group, cpu: dict[str, int], memory: dict[str, int]) -> Details:
    events = files.table("memory", "memory.events")
    kernel = memory.get("kernel")
    if kernel is None:
        # before Linux 5.18 there are only its parts
        kernel = sum(memory.get(key, 0) for key in ("kernel_stack", "pagetables", "slab", "sock"))
    return Details(
        cpu_user_ns=cpu.get("user_usec", 0) * 1000,
        cpu_system_ns=cpu.get("system_usec", 0) * 1000,
        periods=cpu.get("nr_periods", 0),
        throttled_periods=cpu.get("nr_throttled", 0),
        throttled_ns=cpu.get("throttled_usec", 0) * 1000,
        memory_max_usage=files.number("memory", "memory.peak"),
        memory_failures=events.get("max", 0),
        memory_kernel=kernel,
        oom_kills=events.get("oom_kill", 0),
        pids_max=files.limit("pids", "pids.max"),
        devices=_devices_v2(files),
        huge_pages=_huge_pages(files, "current", ""),
    )


def _devices_v1(files: _Group) -> tuple[Device, ...]:
    found: dict[str, dict[str, int]] = {}
    for name, keys in (
        ("io_service_bytes", {"Read": "read_bytes", "Write": "write_bytes"}),
        ("io_serviced", {"Read": "reads", "Write": "writes"}),
    ):
        text = files.text("blkio", f"blkio.throttle.{name}_recursive")
        for line in (text or files.text("blkio", f"blkio.throttle.{name}")).splitlines():
            words = line.split()
            if len(words) == 3 and words[1] in keys and words[2].isdigit():
                found.setdefault(words[0], {})[keys[words[1]]] = int(words[2])
    return _devices(found)


def _devices_v2(files: _Group) -> tuple[Device, ...]:
    keys = {"rbytes": "read_bytes", "wbytes": "write_bytes", "rios": "reads", "wios": "writes"}
    found: dict[str, dict[str, int]] = {}
    for line in files.text("io", "io.stat").splitlines():
        number, *words = line.split()
        for word in words:
            key, _, value = word.partition("=")
            if key in keys and value.isdigit():
                found.setdefault(number, {})[keys[key]] = int(value)
    return _devices(found)


def _devices(found: dict[str, dict[str, int]]) -> tuple[Device, ...]:
    devices = []
    for number, counts in found.items():
        major, _, minor = number.partition(":")
        if major.isdigit() and minor.isdigit():
            name = _device_name(number)
            devices.append(Device(int(major), int(minor), name, **counts))
    return tuple(devices)


def _device_name(number: str) -> str:
    try:
        return os.path.basename(os.readlink(f"/sys/dev/block/{number}"))
    except OSError:
        return number


def _huge_pages(files: _Group, usage: str, highest: str) -> tuple[HugePages, ...]:
    found = []
    for size in page_sizes():
        if text := files.text("hugetlb", f"hugetlb.{size}.{usage}").strip():
            most = files.number("hugetlb", f"hugetlb.{size}.{highest}") if highest else 0
            found.append(HugePages(size, int(text), most))
    return tuple(found)


@functools.cache
def page_sizes() -> tuple[str, ...]:
    """Sizes of huge pages of this machine as the hugetlb controller writes them (2MB, 1GB)."""
    with contextlib.suppress(OSError):
        kilobytes = sorted(
            int(name.removeprefix("hugepages-").removesuffix("kB"))
            for name in os.listdir(_HUGE_PAGES)
        )
        return tuple(_page_size(size) for size in kilobytes)
    return ()


def _page_size(kilobytes: int) -> str:
    for factor, unit in ((1 << 20, "GB"), (1 << 10, "MB")):
        if kilobytes >= factor:
            return f"{kilobytes // factor}{unit}"
    return f"{kilobytes}KB"


def total(parts: Iterable[GroupStats]) -> GroupStats:
    """The sum of several groups, without limits, pressure and details; the latest time."""
    listed = list(parts)
    sums = {
        item.name: sum(getattr(part, item.name) for part in listed)
        for item in fields(GroupStats)
        if item.type == "int" and item.name != "taken_ns"
    }
    return GroupStats(taken_ns=max((part.taken_ns for part in listed), default=0), **sums)
