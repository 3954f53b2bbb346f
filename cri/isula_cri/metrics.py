"""Metrics by the names that the kubelet publishes in place of cAdvisor's.

A metric is described and computed in one row of a table, so that none goes undescribed.
Values are whole numbers (UInt64Value): seconds are rounded down.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isula_cri import messages
from isula_edge.cgroup.stats import Details
from isula_edge.oci.resources import swap_limit
from isula_edge.service.stats import ContainerUsage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from isula_edge.cgroup.stats import Stall
    from isula_edge.container.record import Container
    from isula_edge.oci.options import Settings
    from isula_edge.pod.record import Pod
    from isula_edge.service.stats import PodUsage
    from isula_edge.sys.descriptors import Descriptors

__all__ = ["Subject", "container_metrics", "descriptors", "pod_metrics", "subject_of"]

_BASE = ("id", "name", "image", "container", "pod", "namespace")
_NS = 10**9
_PERIOD = 100_000
_SHARES = 1024

Row = tuple[tuple[str, ...], int]
"""Values of the labels that a metric has beyond the common ones, and its own value."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What metrics are of: values of the common labels, limits, and the start of a container.

    ``container`` is empty and ``settings`` None for a pod itself.
    """

    id: str
    name: str
    image: str
    container: str
    pod: str
    namespace: str
    settings: Settings | None = None
    started_ns: int = 0

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of the common label keys."""
        return self.id, self.name, self.image, self.container, self.pod, self.namespace


@dataclass(frozen=True, slots=True)
class _Metric:
    name: str
    help: str
    rows: Callable[[ContainerUsage, Subject], Iterable[Row]]
    counter: bool = False
    labels: tuple[str, ...] = ()


def _one(value: Callable[[ContainerUsage], int]) -> Callable[[ContainerUsage, Subject], list[Row]]:
    return lambda usage, _: [((), value(usage))]


def _details(value: Callable[[Details], int]) -> Callable[[ContainerUsage, Subject], list[Row]]:
    return lambda usage, _: [((), value(usage.group.details))] if usage.group.details else []


def _spec(value: Callable[[Settings], int]) -> Callable[[ContainerUsage, Subject], list[Row]]:
    return lambda _, subject: [((), value(subject.settings))] if subject.settings else []


def _stall(
    which: Callable[[ContainerUsage], Stall | None], *, full: bool
) -> Callable[[ContainerUsage, Subject], list[Row]]:
    def rows(usage: ContainerUsage, _: Subject) -> list[Row]:
        stall = which(usage)
        if stall is None:
            return []
        return [((), (stall.full if full else stall.some).total_ns // _NS)]

    return rows


def _failures(usage: ContainerUsage, _: Subject) -> Iterator[Row]:
    group = usage.group
    for scope in ("container", "hierarchy"):
        yield ("pgfault", scope), group.page_faults
        yield ("pgmajfault", scope), group.major_page_faults


def _devices(*fields: tuple[str, ...]) -> Callable[[ContainerUsage, Subject], Iterator[Row]]:
    """Rows per block device: ``fields`` are (attribute, further label values …)."""

    def rows(usage: ContainerUsage, _: Subject) -> Iterator[Row]:
        for device in (usage.group.details or Details()).devices:
            for attribute, *labels in fields:
                place = (str(device.major), str(device.minor)) if labels else ()
                yield (f"/dev/{device.name}", *place, *labels), getattr(device, attribute)

    return rows


def _space(value: Callable[[os.statvfs_result], int]) -> Any:
    """Rows of the file system below the writable layer."""

    def rows(usage: ContainerUsage, _: Subject) -> list[Row]:
        if usage.layer is None:
            return []
        place = usage.layer.mountpoint
        try:
            return [((place,), value(os.statvfs(place)))]
        except OSError:
            return []

    return rows


def _layer(usage: ContainerUsage, _: Subject) -> list[Row]:
    layer = usage.layer
    return [((layer.mountpoint,), layer.size.bytes)] if layer else []


def _pages(attribute: str) -> Callable[[ContainerUsage, Subject], list[Row]]:
    return lambda usage, _: [
        ((pages.size,), getattr(pages, attribute))
        for pages in (usage.group.details or Details()).huge_pages
    ]


def _open(value: Callable[[Descriptors], int]) -> Callable[[ContainerUsage, Subject], list[Row]]:
    return lambda usage, _: [((), value(usage.open))] if usage.open else []


def _ulimits(usage: ContainerUsage, _: Subject) -> list[Row]:
    return [] if usage.max_files is None else [(("max_open_files",), usage.max_files)]


def _started(_: ContainerUsage, subject: Subject) -> list[Row]:
    return [((), subject.started_ns // _NS)] if subject.settings else []


def _quota(_: ContainerUsage, subject: Subject) -> list[Row]:
    settings = subject.settings
    if settings is None:
        return []
    quota = settings.cpu_quota or settings.nano_cpus // 10_000
    return [((), quota)] if quota > 0 else []


_CONTAINER = (
    _Metric(
        "container_cpu_usage_seconds_total",
        "CPU time used, in seconds.",
        lambda usage, _: [(("total",), usage.group.cpu_ns // _NS)],
        counter=True,
        labels=("cpu",),
    ),
    _Metric(
        "container_cpu_user_seconds_total",
        "CPU time used in user space, in seconds.",
        _details(lambda item: item.cpu_user_ns // _NS),
        counter=True,
    ),
    _Metric(
        "container_cpu_system_seconds_total",
        "CPU time used in the kernel, in seconds.",
        _details(lambda item: item.cpu_system_ns // _NS),
        counter=True,
    ),
    _Metric(
        "container_cpu_cfs_periods_total",
        "Periods in which the CPU quota was enforced.",
        _details(lambda item: item.periods),
        counter=True,
    ),
    _Metric(
        "container_cpu_cfs_throttled_periods_total",
        "Periods in which the CPU quota was used up.",
        _details(lambda item: item.throttled_periods),
        counter=True,
    ),
    _Metric(
        "container_cpu_cfs_throttled_seconds_total",
        "Time spent waiting for CPU quota, in seconds.",
        _details(lambda item: item.throttled_ns // _NS),
        counter=True,
    ),
    _Metric(
        "container_memory_usage_bytes",
        "Memory in use, page cache included, in bytes.",
        _one(lambda usage: usage.group.memory_usage),
    ),
    _Metric(
        "container_memory_working_set_bytes",
        "Memory in use without inactive page cache, in bytes.",
        _one(lambda usage: usage.group.memory_working_set),
    ),
    _Metric(
        "container_memory_rss",
        "Anonymous memory, in bytes.",
        _one(lambda usage: usage.group.memory_rss),
    ),
    _Metric(
        "container_memory_cache",
        "Page cache, in bytes.",
        _one(lambda usage: usage.group.memory_cache),
    ),
    _Metric(
        "container_memory_mapped_file",
        "Memory-mapped files, in bytes.",
        _one(lambda usage: usage.group.memory_mapped_file),
    ),
    _Metric(
        "container_memory_swap",
        "Swap in use, in bytes.",
        _one(lambda usage: usage.group.swap_usage),
    ),
    _Metric(
        "container_memory_kernel_usage",
        "Memory of the kernel, in bytes.",
        _details(lambda item: item.memory_kernel),
    ),
    _Metric(
        "container_memory_max_usage_bytes",
        "The most memory that was ever in use, in bytes.",
        _details(lambda item: item.memory_max_usage),
    ),
    _Metric(
        "container_memory_failcnt",
        "How often memory usage hit the limit.",
        _details(lambda item: item.memory_failures),
        counter=True,
    ),
    _Metric(
        "container_memory_failures_total",
        "Page faults.",
        _failures,
        counter=True,
        labels=("failure_type", "scope"),
    ),
    _Metric(
        "container_oom_events_total",
        "Processes that the OOM killer ended.",
        _details(lambda item: item.oom_kills),
        counter=True,
    ),
    _Metric(
        "container_processes", "Processes that run.", _open(lambda item: item.processes)
    ),
    _Metric(
        "container_threads", "Threads that run.", _one(lambda usage: usage.group.pids)
    ),
    _Metric(
        "container_threads_max",
        "Threads that may run, 0 without a limit.",
        _details(lambda item: item.pids_max or 0),
    ),
    _Metric(
        "container_file_descriptors",
        "Open file descriptors.",
        _open(lambda item: item.files),
    ),
    _Metric("container_sockets", "Open sockets.", _open(lambda item: item.sockets)),
    _Metric(
        "container_ulimits_soft",
        "Soft limits of the first process.",
        _ulimits,
        labels=("ulimit",),
    ),
    _Metric(
        "container_fs_usage_bytes",
        "Size of the writable layer, in bytes.",
        _layer,
        labels=("device",),
    ),
    _Metric(
        "container_fs_limit_bytes",
        "Size of the file system of the writable layer, in bytes.",
        _space(lambda found: found.f_blocks * found.f_frsize),
        labels=("device",),
    ),
    _Metric(
        "container_fs_inodes_total",
        "Inodes of the file system of the writable layer.",
        _space(lambda found: found.f_files),
        labels=("device",),
    ),
    _Metric(
        "container_fs_inodes_free",
        "Free inodes of the file system of the writable layer.",
        _space(lambda found: found.f_ffree),
        labels=("device",),
    ),
    _Metric(
        "container_fs_reads_bytes_total",
        "Bytes read from a block device.",
        _devices(("read_bytes",)),
        counter=True,
        labels=("device",),
    ),
    _Metric(
        "container_fs_reads_total",
        "Reads of a block device.",
        _devices(("reads",)),
        counter=True,
        labels=("device",),
    ),
    _Metric(
        "container_fs_writes_bytes_total",
        "Bytes written to a block device.",
        _devices(("write_bytes",)),
        counter=True,
        labels=("device",),
    ),
    _Metric(
        "container_fs_writes_total",
        "Writes to a block device.",
        _devices(("writes",)),
        counter=True,
        labels=("device",),
    ),
    _Metric(
        "container_blkio_device_usage_total",
        "Bytes read from and written to a block device.",
        _devices(("read_bytes", "Read"), ("write_bytes", "Write")),
        counter=True,
        labels=("device", "major", "minor", "operation"),
    ),
    _Metric(
        "container_hugetlb_usage_bytes",
        "Huge pages in use, in bytes.",
        _pages("usage"),
        labels=("pagesize",),
    ),
    _Metric(
        "container_hugetlb_max_usage_bytes",
        "The most huge pages that were ever in use, in bytes.",
        _pages("max_usage"),
        labels=("pagesize",),
    ),
    *(
        _Metric(
            f"container_pressure_{kind}_{word}_seconds_total",
            f"Time in which {who} processes waited for {kind}, in seconds.",
            _stall(which, full=full),
            counter=True,
        )
        for kind, which in (
            ("cpu", lambda usage: usage.group.cpu_stall),
            ("io", lambda usage: usage.group.io_stall),
            ("memory", lambda usage: usage.group.memory_stall),
        )
        for word, who, full in (("stalled", "all", True), ("waiting", "some", False))
    ),
    _Metric(
        "container_spec_cpu_period",
        "Period of the CPU quota, in microseconds.",
        _spec(lambda settings: settings.cpu_period or _PERIOD),
    ),
    _Metric("container_spec_cpu_quota", "CPU quota, in microseconds per period.", _quota),
    _Metric(
        "container_spec_cpu_shares",
        "CPU shares.",
        _spec(lambda settings: settings.cpu_shares or _SHARES),
    ),
    _Metric(
        "container_spec_memory_limit_bytes",
        "Memory limit in bytes, 0 for none.",
        _spec(lambda settings: max(settings.memory, 0)),
    ),
    _Metric(
        "container_spec_memory_reservation_limit_bytes",
        "Memory reservation in bytes, 0 for none.",
        _spec(lambda settings: max(settings.memory_reservation, 0)),
    ),
    _Metric(
        "container_spec_memory_swap_limit_bytes",
        "Limit of memory and swap together in bytes, 0 for none.",
        _spec(lambda settings: max(swap_limit(settings), 0)),
    ),
    _Metric(
        "container_last_seen",
        "When these values were read, in seconds since 1970.",
        _one(lambda usage: usage.group.taken_ns // _NS),
    ),
    _Metric(
        "container_start_time_seconds",
        "When the container was started, in seconds since 1970.",
        _started,
    ),
)

_NETWORK = {
    f"container_network_{word}_{what}_total": (text.format(verb), f"{short}_{field}")
    for word, verb, short in (("receive", "received", "rx"), ("transmit", "sent", "tx"))
    for what, text, field in (
        ("bytes", "Bytes {}.", "bytes"),
        ("packets", "Packets {}.", "packets"),
        ("packets_dropped", "Packets dropped that should have been {}.", "dropped"),
        ("errors", "Errors of packets that should have been {}.", "errors"),
    )
}
"""What each counts, and the attribute of an interface that is its value."""


def subject_of(pod: Pod, container: Container | None = None) -> Subject:
    """A container of ``pod``, or the pod itself."""
    spec = pod.spec
    if container is None:
        return Subject(pod.id, spec.key, "", "", spec.name, spec.namespace)
    return Subject(
        container.id,
        container.name,
        container.image,
        container.cri["name"],
        spec.name,
        spec.namespace,
        container.settings,
        container.state.started_ns,
    )


def descriptors() -> list[Any]:
    """A MetricDescriptor of every metric that there can be."""
    found = [
        messages.MetricDescriptor(name=item.name, help=item.help, label_keys=[*_BASE, *item.labels])
        for item in _CONTAINER
    ]
    found += [
        messages.MetricDescriptor(name=name, help=text, label_keys=[*_BASE, "interface"])
        for name, (text, _) in _NETWORK.items()
    ]
    return found


def container_metrics(usage: ContainerUsage, subject: Subject) -> Any:
    """ContainerMetrics of detailed usage."""
    return messages.ContainerMetrics(
        container_id=subject.id, metrics=list(_metrics(usage, subject))
    )


def pod_metrics(usage: PodUsage, subject: Subject, containers: Iterable[Any]) -> Any:
    """PodSandboxMetrics of detailed usage with the given ContainerMetrics."""
    own = ContainerUsage(usage.id, usage.group)
    return messages.PodSandboxMetrics(
        pod_sandbox_id=subject.id,
        metrics=[*_metrics(own, subject), *_network(usage, subject)],
        container_metrics=list(containers),
    )


def _metrics(usage: ContainerUsage, subject: Subject) -> Iterator[Any]:
    for item in _CONTAINER:
        for labels, value in item.rows(usage, subject):
            yield _message(item.name, (*subject.labels, *labels), value, counter=item.counter)


def _network(usage: PodUsage, subject: Subject) -> Iterator[Any]:
    for name, (_, field) in _NETWORK.items():
        for interface in usage.network or ():
            if interface.name != "lo":
                labels = (*subject.labels, interface.name)
                yield _message(name, labels, getattr(interface, field), counter=True)


def _message(name: str, labels: tuple[str, ...], value: int, *, counter: bool) -> Any:
    kinds = messages.enum("MetricType")
    return messages.Metric(
        name=name,
        # live: the kubelet takes the time of the answer
        timestamp=0,
        metric_type=kinds["COUNTER" if counter else "GAUGE"],
        label_values=labels,
        value=messages.UInt64Value(value=value),
    )
