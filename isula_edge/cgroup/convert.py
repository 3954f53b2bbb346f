"""From ``linux.resources`` (OCI runtime-spec, config-linux) to cgroup file names and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["CgroupFile", "cpu_weight", "device_rules", "resource_files"]

_DEFAULT_PERIOD = 100_000


@dataclass(frozen=True, slots=True)
class CgroupFile:
    """One file to write: ``controller`` (the v1 hierarchy), ``name`` and ``value``."""

    controller: str
    name: str
    value: str


def cpu_weight(shares: int) -> int:
    """cpu.shares (2..262144) as cpu.weight (1..10000), the conversion of the OCI runtimes."""
    shares = min(max(shares, 2), 262144)
    return 1 + (shares - 2) * 9999 // 262142


def _limit(value: int, unlimited: str) -> str:
    return unlimited if value < 0 else str(value)


def resource_files(resources: Mapping[str, Any], version: str) -> list[CgroupFile]:
    """The files to write for ``resources``, in an order the kernel accepts.

    ``version`` is "2" for the unified hierarchy, else version 1 names are given.
    """
    build = _v2 if version == "2" else _v1
    return list(build(resources))


def _v1(resources: Mapping[str, Any]) -> Iterable[CgroupFile]:
    memory = resources.get("memory") or {}
    for key, name in (
        ("limit", "memory.limit_in_bytes"),
        ("reservation", "memory.soft_limit_in_bytes"),
        ("swap", "memory.memsw.limit_in_bytes"),
        ("kernel", "memory.kmem.limit_in_bytes"),
        ("kernelTCP", "memory.kmem.tcp.limit_in_bytes"),
        ("swappiness", "memory.swappiness"),
    ):
        if memory.get(key) is not None:
            yield CgroupFile("memory", name, _limit(memory[key], "-1"))
    if memory.get("disableOOMKiller"):
        yield CgroupFile("memory", "memory.oom_control", "1")
    cpu = resources.get("cpu") or {}
    for key, name in (
        ("shares", "cpu.shares"),
        ("period", "cpu.cfs_period_us"),
        ("quota", "cpu.cfs_quota_us"),
        ("burst", "cpu.cfs_burst_us"),
        ("idle", "cpu.idle"),
        ("realtimePeriod", "cpu.rt_period_us"),
        ("realtimeRuntime", "cpu.rt_runtime_us"),
    ):
        if cpu.get(key):
            yield CgroupFile("cpu", name, str(cpu[key]))
    for key in ("cpus", "mems"):
        if cpu.get(key):
            yield CgroupFile("cpuset", f"cpuset.{key}", cpu[key])
    pids = resources.get("pids") or {}
    if pids.get("limit"):
        yield CgroupFile("pids", "pids.max", _limit(pids["limit"], "max"))
    yield from _v1_block(resources.get("blockIO") or {})
    for item in resources.get("hugepageLimits") or ():
        name = f"hugetlb.{item['pageSize']}.limit_in_bytes"
        yield CgroupFile("hugetlb", name, str(item["limit"]))
    network = resources.get("network") or {}
    if network.get("classID"):
        yield CgroupFile("net_cls", "net_cls.classid", str(network["classID"]))
    for item in network.get("priorities") or ():
        yield CgroupFile("net_prio", "net_prio.ifpriomap", f"{item['name']} {item['priority']}")
    yield from _rdma(resources.get("rdma") or {})


def _rdma(devices: Mapping[str, Any]) -> Iterable[CgroupFile]:
    """The same in both versions."""
    for name, item in devices.items():
        parts = [
            f"{word}={item[key]}"
            for key, word in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
            if item.get(key) is not None
        ]
        if parts:
            yield CgroupFile("rdma", "rdma.max", f"{name} {' '.join(parts)}")


def _v1_block(block: Mapping[str, Any]) -> Iterable[CgroupFile]:
    for key, name in (("weight", "blkio.weight"), ("leafWeight", "blkio.leaf_weight")):
        if block.get(key):
            yield CgroupFile("blkio", name, str(block[key]))
        for item in block.get("weightDevice") or ():
            if item.get(key):
                value = f"{item['major']}:{item['minor']} {item[key]}"
                yield CgroupFile("blkio", f"{name}_device", value)
    for key, name in (
        ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
        ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
        ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
        ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
    ):
        for item in block.get(key) or ():
            value = f"{item['major']}:{item['minor']} {item['rate']}"
            yield CgroupFile("blkio", name, value)


def _v2_memory(memory: Mapping[str, Any]) -> Iterable[CgroupFile]:
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit is not None:
        yield CgroupFile("memory", "memory.max", _limit(limit, "max"))
    if memory.get("reservation"):
        yield CgroupFile("memory", "memory.low", _limit(memory["reservation"], "max"))
    if swap is not None:
        # memory and swap together in the runtime-spec, swap alone in the file
        only = swap if swap < 0 else max(swap - max(limit or 0, 0), 0)
        yield CgroupFile("memory", "memory.swap.max", _limit(only, "max"))


def _v2_cpu(cpu: Mapping[str, Any]) -> Iterable[CgroupFile]:
    if cpu.get("shares"):
        yield CgroupFile("cpu", "cpu.weight", str(cpu_weight(cpu["shares"])))
    if cpu.get("quota") or cpu.get("period"):
        quota = cpu.get("quota") or -1
        value = f"{_limit(quota, 'max')} {cpu.get('period') or _DEFAULT_PERIOD}"
        yield CgroupFile("cpu", "cpu.max", value)
    for key, name in (("burst", "cpu.max.burst"), ("idle", "cpu.idle")):
        if cpu.get(key):
            yield CgroupFile("cpu", name, str(cpu[key]))
    for key in ("cpus", "mems"):
        if cpu.get(key):
            yield CgroupFile("cpuset", f"cpuset.{key}", cpu[key])


def _v2(resources: Mapping[str, Any]) -> Iterable[CgroupFile]:
    yield from _v2_memory(resources.get("memory") or {})
    yield from _v2_cpu(resources.get("cpu") or {})
    pids = resources.get("pids") or {}
    if pids.get("limit"):
        yield CgroupFile("pids", "pids.max", _limit(pids["limit"], "max"))
    block = resources.get("blockIO") or {}
    if block.get("weight"):
        weight = 1 + (block["weight"] - 10) * 9999 // 990
        yield CgroupFile("io", "io.weight", f"default {weight}")
    for key, word in (
        ("throttleReadBpsDevice", "rbps"),
        ("throttleWriteBpsDevice", "wbps"),
        ("throttleReadIOPSDevice", "riops"),
        ("throttleWriteIOPSDevice", "wiops"),
    ):
        for item in block.get(key) or ():
            value = f"{item['major']}:{item['minor']} {word}={item['rate']}"
            yield CgroupFile("io", "io.max", value)
    for item in resources.get("hugepageLimits") or ():
        yield CgroupFile("hugetlb", f"hugetlb.{item['pageSize']}.max", str(item["limit"]))
    yield from _rdma(resources.get("rdma") or {})
    for name, value in (resources.get("unified") or {}).items():
        yield CgroupFile(name.partition(".")[0], name, str(value))


def device_rules(resources: Mapping[str, Any]) -> list[tuple[str, str]]:
    """``linux.resources.devices`` as ("deny" | "allow", rule of the devices cgroup) pairs."""
    rules = []
    for item in resources.get("devices") or ():
        kind = item.get("type") or "a"
        if kind == "a":
            rule = "a"
        else:
            major = item.get("major")
            minor = item.get("minor")
            where = (
                f"{'*' if major in (None, -1) else major}:{'*' if minor in (None, -1) else minor}"
            )
            rule = f"{kind} {where} {item.get('access') or 'rwm'}"
        rules.append(("allow" if item.get("allow") else "deny", rule))
    return rules
