"""Statistics as the CRI's messages.

A value that was measured is always sent, 0 too: the kubelet takes an absent one for a fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isula_cri import messages
from isula_edge.sys.usage import TreeUsage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from isula_edge.cgroup.stats import GroupStats, Pressure, Stall
    from isula_edge.service.stats import ContainerUsage, PodUsage
    from isula_edge.sys.netdev import Interface

__all__ = ["container_stats", "default_interface", "filesystem_usage", "pod_stats"]

DEFAULT_INTERFACE = "eth0"


def container_stats(
    usage: ContainerUsage,
    *,
    metadata: Mapping[str, Any],
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    mountpoint: str,
) -> Any:
    """ContainerStats; ``metadata`` are name and attempt, ``mountpoint`` is the file system of
    writable layers, for one that is not measured yet.
    """
    layer = usage.layer
    found = messages.ContainerStats(
        attributes=messages.ContainerAttributes(
            id=usage.id,
            metadata=messages.ContainerMetadata(**metadata),
            labels=dict(labels),
            annotations=dict(annotations),
        ),
        cpu=_cpu(usage.group, usage.nano_cores),
        memory=_memory(usage.group),
        writable_layer=filesystem_usage(
            layer.taken_ns if layer else usage.group.taken_ns,
            layer.mountpoint if layer else mountpoint,
            layer.size if layer else TreeUsage(),
        ),
        swap=_swap(usage.group),
    )
    if usage.group.io_stall is not None:
        found.io.CopyFrom(_io(usage.group))
    return found


def pod_stats(
    usage: PodUsage,
    containers: Iterable[Any],
    *,
    metadata: Mapping[str, Any],
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
) -> Any:
    """PodSandboxStats with the given ContainerStats; ``metadata`` are name, uid, namespace and
    attempt.
    """
    group = usage.group
    linux = messages.LinuxPodSandboxStats(
        cpu=_cpu(group, usage.nano_cores),
        memory=_memory(group),
        process=messages.ProcessUsage(timestamp=group.taken_ns, process_count=_value(group.pids)),
        containers=list(containers),
    )
    if usage.network is not None:
        linux.network.CopyFrom(_network(group.taken_ns, usage.network))
    if group.io_stall is not None:
        linux.io.CopyFrom(_io(group))
    return messages.PodSandboxStats(
        attributes=messages.PodSandboxAttributes(
            id=usage.id,
            metadata=messages.PodSandboxMetadata(**metadata),
            labels=dict(labels),
            annotations=dict(annotations),
        ),
        linux=linux,
    )


def filesystem_usage(taken_ns: int, mountpoint: str, size: TreeUsage) -> Any:
    """FilesystemUsage of a tree on the file system at ``mountpoint``."""
    return messages.FilesystemUsage(
        timestamp=taken_ns,
        fs_id=messages.FilesystemIdentifier(mountpoint=mountpoint),
        used_bytes=_value(size.bytes),
        inodes_used=_value(size.inodes),
    )


def default_interface(network: Iterable[Interface]) -> Interface | None:
    """The interface of the pod's default network: eth0, else the first that is not lo."""
    others = [item for item in network if item.name != "lo"]
    named = (item for item in others if item.name == DEFAULT_INTERFACE)
    return next(named, others[0] if others else None)


def _value(number: int) -> Any:
    return messages.UInt64Value(value=number)


def _cpu(group: GroupStats, nano_cores: int | None) -> Any:
    found = messages.CpuUsage(
        timestamp=group.taken_ns, usage_core_nano_seconds=_value(group.cpu_ns)
    )
    if nano_cores is not None:
        found.usage_nano_cores.value = nano_cores
    if group.cpu_stall is not None:
        found.psi.CopyFrom(_psi(group.cpu_stall))
    return found


def _memory(group: GroupStats) -> Any:
    limit = group.memory_limit
    available = 0 if limit is None else max(limit - group.memory_working_set, 0)
    found = messages.MemoryUsage(
        timestamp=group.taken_ns,
        working_set_bytes=_value(group.memory_working_set),
        available_bytes=_value(available),
        usage_bytes=_value(group.memory_usage),
        rss_bytes=_value(group.memory_rss),
        page_faults=_value(group.page_faults),
        major_page_faults=_value(group.major_page_faults),
    )
    if group.memory_stall is not None:
        found.psi.CopyFrom(_psi(group.memory_stall))
    return found


def _swap(group: GroupStats) -> Any:
    limit = group.swap_limit
    available = 0 if limit is None else max(limit - group.swap_usage, 0)
    return messages.SwapUsage(
        timestamp=group.taken_ns,
        swap_available_bytes=_value(available),
        swap_usage_bytes=_value(group.swap_usage),
    )


def _io(group: GroupStats) -> Any:
    found = messages.IoUsage(timestamp=group.taken_ns)
    if group.io_stall is not None:
        found.psi.CopyFrom(_psi(group.io_stall))
    return found


def _psi(stall: Stall) -> Any:
    return messages.PsiStats(Full=_pressure(stall.full), Some=_pressure(stall.some))


def _pressure(line: Pressure) -> Any:
    return messages.PsiData(
        Total=line.total_ns, Avg10=line.avg10, Avg60=line.avg60, Avg300=line.avg300
    )


def _network(taken_ns: int, network: Iterable[Interface]) -> Any:
    listed = list(network)
    default = default_interface(listed)
    found = messages.NetworkUsage(timestamp=taken_ns)
    if default is not None:
        found.default_interface.CopyFrom(_interface(default))
    found.interfaces.extend(
        _interface(item) for item in listed if item is not default and item.name != "lo"
    )
    return found


def _interface(item: Interface) -> Any:
    return messages.NetworkInterfaceUsage(
        name=item.name,
        rx_bytes=_value(item.rx_bytes),
        rx_errors=_value(item.rx_errors),
        tx_bytes=_value(item.tx_bytes),
        tx_errors=_value(item.tx_errors),
    )
