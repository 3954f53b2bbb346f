"""Messages between the engine and a shim of containerd's runtime v2.

The requests and answers of ``containerd.task.v2.Task`` (v3 has the same fields), the answer
of ``shim start`` and ``shim delete``, events, and statistics.  ``exec_id`` of '' is the
container's first process.  Times are ns since 1970 UTC, None where there is none.

Sources: api/runtime/task/v2/shim.proto, api/events/task.proto, api/types of
github.com/containerd/containerd; cgroup1/stats and cgroup2/stats of containerd/cgroups.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from isula_edge.runtime.protobuf import Message

__all__ = [
    "CREATED",
    "EVENTS",
    "PAUSED",
    "PAUSING",
    "RUNNING",
    "STOPPED",
    "UNKNOWN",
    "Address",
    "AnyValue",
    "BootstrapResult",
    "CloseIORequest",
    "ConnectResponse",
    "CreateRequest",
    "DeleteResponse",
    "Envelope",
    "ExecRequest",
    "ForwardRequest",
    "KataOptions",
    "KillRequest",
    "Metrics",
    "Mount",
    "NetworkMetrics",
    "Pair",
    "PidResponse",
    "PidsResponse",
    "ProcessInfo",
    "ResizeRequest",
    "RuncOptions",
    "ShutdownRequest",
    "StateResponse",
    "StatsResponse",
    "Target",
    "TaskExit",
    "TaskOOM",
    "TaskProcess",
    "UpdateRequest",
    "WaitResponse",
    "document",
    "metrics",
]

UNKNOWN, CREATED, RUNNING, STOPPED, PAUSED, PAUSING = range(6)
"""StateResponse.status."""
_SPEC = "types.containerd.io/opencontainers/runtime-spec/1/"
_PREFIX = "type.googleapis.com/"
_UNLIMITED = 1 << 62


class Address(NamedTuple):
    """Where a shim serves: version of its Task service (2 or 3), and the socket.

    ``unix:///path`` is a socket with a path; anything else is an abstract name.
    """

    version: int
    address: str


@dataclass(frozen=True, slots=True)
class AnyValue(Message):
    """google.protobuf.Any: a message and the name of its type."""

    type_url: Annotated[str, 1] = ""
    value: Annotated[bytes, 2] = b""

    @property
    def type_name(self) -> str:
        """The name of the type, without what some programs write before it."""
        return self.type_url.removeprefix(_PREFIX)


def document(kind: str, value: Any) -> AnyValue:
    """A part of the runtime-spec (``Process``, ``LinuxResources``) as JSON inside an Any."""
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")
    return AnyValue(_SPEC + kind, text)


@dataclass(frozen=True, slots=True)
class Target(Message):
    """The argument of State, Start, Delete, Wait; and, without ``exec_id``, of Pids, Pause,
    Resume, Stats and Connect.
    """

    id: Annotated[str, 1] = ""
    exec_id: Annotated[str, 2] = ""


@dataclass(frozen=True, slots=True)
class StateResponse(Message):
    """A process: ``status`` is one of CREATED, RUNNING …  Streams are paths, '' for none."""

    id: Annotated[str, 1] = ""
    bundle: Annotated[str, 2] = ""
    pid: Annotated[int, 3] = 0
    status: Annotated[int, 4] = UNKNOWN
    stdin: Annotated[str, 5] = ""
    stdout: Annotated[str, 6] = ""
    stderr: Annotated[str, 7] = ""
    terminal: Annotated[bool, 8] = False
    exit_status: Annotated[int, 9] = 0
    exited_ns: Annotated[int | None, 10] = None
    exec_id: Annotated[str, 11] = ""


@dataclass(frozen=True, slots=True)
class Mount(Message):
    """A mount that the shim makes at ``rootfs`` of the bundle."""

    type: Annotated[str, 1] = ""
    source: Annotated[str, 2] = ""
    target: Annotated[str, 3] = ""
    options: Annotated[tuple[str, ...], 4] = ()


@dataclass(frozen=True, slots=True)
class CreateRequest(Message):
    """The argument of Create.  ``rootfs`` is empty when the root is mounted already."""

    id: Annotated[str, 1] = ""
    bundle: Annotated[str, 2] = ""
    rootfs: Annotated[tuple[Mount, ...], 3] = ()
    terminal: Annotated[bool, 4] = False
    stdin: Annotated[str, 5] = ""
    stdout: Annotated[str, 6] = ""
    stderr: Annotated[str, 7] = ""
    checkpoint: Annotated[str, 8] = ""
    parent_checkpoint: Annotated[str, 9] = ""
    options: Annotated[AnyValue | None, 10] = None


@dataclass(frozen=True, slots=True)
class PidResponse(Message):
    """The answer of Create and Start.  kata gives a process of its own, not the container's."""

    pid: Annotated[int, 1] = 0


@dataclass(frozen=True, slots=True)
class DeleteResponse(Message):
    """The answer of Delete, and what ``shim delete`` prints."""

    pid: Annotated[int, 1] = 0
    exit_status: Annotated[int, 2] = 0
    exited_ns: Annotated[int | None, 3] = None


@dataclass(frozen=True, slots=True)
class ProcessInfo(Message):
    """One process of a container."""

    pid: Annotated[int, 1] = 0
    info: Annotated[AnyValue | None, 2] = None


@dataclass(frozen=True, slots=True)
class PidsResponse(Message):
    """The processes of a container."""

    processes: Annotated[tuple[ProcessInfo, ...], 1] = ()


@dataclass(frozen=True, slots=True)
class KillRequest(Message):
    """A signal; ``all`` for every process of the container."""

    id: Annotated[str, 1] = ""
    exec_id: Annotated[str, 2] = ""
    signal: Annotated[int, 3] = 0
    all: Annotated[bool, 4] = False


@dataclass(frozen=True, slots=True)
class ExecRequest(Message):
    """One more process; Start runs it."""

    id: Annotated[str, 1] = ""
    exec_id: Annotated[str, 2] = ""
    terminal: Annotated[bool, 3] = False
    stdin: Annotated[str, 4] = ""
    stdout: Annotated[str, 5] = ""
    stderr: Annotated[str, 6] = ""
    spec: Annotated[AnyValue | None, 7] = None


@dataclass(frozen=True, slots=True)
class ResizeRequest(Message):
    """The size of a terminal, in characters."""

    id: Annotated[str, 1] = ""
    exec_id: Annotated[str, 2] = ""
    width: Annotated[int, 3] = 0
    height: Annotated[int, 4] = 0


@dataclass(frozen=True, slots=True)
class CloseIORequest(Message):
    """The shim's own end of ``stdin`` is closed."""

    id: Annotated[str, 1] = ""
    exec_id: Annotated[str, 2] = ""
    stdin: Annotated[bool, 3] = False


@dataclass(frozen=True, slots=True)
class Pair(Message):
    """An entry of a map of texts."""

    key: Annotated[str, 1] = ""
    value: Annotated[str, 2] = ""


@dataclass(frozen=True, slots=True)
class UpdateRequest(Message):
    """New limits: LinuxResources of the runtime-spec."""

    id: Annotated[str, 1] = ""
    resources: Annotated[AnyValue | None, 2] = None
    annotations: Annotated[tuple[Pair, ...], 3] = ()


@dataclass(frozen=True, slots=True)
class WaitResponse(Message):
    """How a process ended: 0-255, or 128 + signal."""

    exit_status: Annotated[int, 1] = 0
    exited_ns: Annotated[int | None, 2] = None


@dataclass(frozen=True, slots=True)
class StatsResponse(Message):
    """Statistics, as :func:`metrics` reads them."""

    stats: Annotated[AnyValue | None, 1] = None


@dataclass(frozen=True, slots=True)
class ConnectResponse(Message):
    """The shim's own process, and the container's first as the host sees it."""

    shim_pid: Annotated[int, 1] = 0
    task_pid: Annotated[int, 2] = 0
    version: Annotated[str, 3] = ""


@dataclass(frozen=True, slots=True)
class ShutdownRequest(Message):
    """The shim shall end, if it serves no container any more."""

    id: Annotated[str, 1] = ""
    now: Annotated[bool, 2] = False


@dataclass(frozen=True, slots=True)
class BootstrapResult(Message):
    """What ``shim start`` of containerd 2.3 and later prints."""

    version: Annotated[int, 1] = 0
    address: Annotated[str, 2] = ""
    protocol: Annotated[str, 3] = ""


@dataclass(frozen=True, slots=True)
class RuncOptions(Message):
    """Options of Create for the shim of runc: which program, and where its state lies."""

    no_pivot_root: Annotated[bool, 1] = False
    no_new_keyring: Annotated[bool, 2] = False
    shim_cgroup: Annotated[str, 3] = ""
    io_uid: Annotated[int, 4] = 0
    io_gid: Annotated[int, 5] = 0
    binary_name: Annotated[str, 6] = ""
    root: Annotated[str, 7] = ""
    criu_path: Annotated[str, 8] = ""
    systemd_cgroup: Annotated[bool, 9] = False

    def pack(self) -> AnyValue:
        """As :meth:`Task.create` takes it."""
        return AnyValue("containerd.runc.v1.Options", self.encode())


@dataclass(frozen=True, slots=True)
class KataOptions(Message):
    """Options of Create for kata: its configuration.toml."""

    type_url: Annotated[str, 1] = ""
    config_path: Annotated[str, 2] = ""

    def pack(self, *, old: bool = False) -> AnyValue:
        """As :meth:`Task.create` takes it; ``old`` for kata 1.x."""
        name = "runtimeoptions.v1.Options"
        return AnyValue(f"cri.{name}" if old else name, self.encode())


# --- events


@dataclass(frozen=True, slots=True)
class Envelope(Message):
    """An event on its way: ``topic`` is ``/tasks/exit`` and the like."""

    timestamp_ns: Annotated[int | None, 1] = None
    namespace: Annotated[str, 2] = ""
    topic: Annotated[str, 3] = ""
    event: Annotated[AnyValue | None, 4] = None


@dataclass(frozen=True, slots=True)
class ForwardRequest(Message):
    """The argument of Events.Forward."""

    envelope: Annotated[Envelope | None, 1] = None


@dataclass(frozen=True, slots=True)
class TaskExit(Message):
    """A process ended; ``id`` is the container's for its first process, else the exec's."""

    container_id: Annotated[str, 1] = ""
    id: Annotated[str, 2] = ""
    pid: Annotated[int, 3] = 0
    exit_status: Annotated[int, 4] = 0
    exited_ns: Annotated[int | None, 5] = None


@dataclass(frozen=True, slots=True)
class TaskOOM(Message):
    """The kernel killed for lack of memory in this container."""

    container_id: Annotated[str, 1] = ""


@dataclass(frozen=True, slots=True)
class TaskProcess(Message):
    """What the other events have in common."""

    container_id: Annotated[str, 1] = ""


EVENTS: dict[str, type[TaskExit | TaskOOM | TaskProcess]] = {
    "containerd.events.TaskExit": TaskExit,
    "containerd.events.TaskOOM": TaskOOM,
    **dict.fromkeys(
        (
            f"containerd.events.Task{name}"
            for name in (
                "Create", "Start", "Delete", "ExecAdded", "ExecStarted", "Paused", "Resumed",
                "Checkpointed",
            )
        ),
        TaskProcess,
    ),
}  # fmt: skip
"""The messages of events, by the type of their Any."""


# --- statistics


@dataclass(frozen=True, slots=True)
class NetworkMetrics(Message):
    """A network interface inside the container."""

    name: Annotated[str, 1] = ""
    rx_bytes: Annotated[int, 2] = 0
    rx_packets: Annotated[int, 3] = 0
    rx_errors: Annotated[int, 4] = 0
    rx_dropped: Annotated[int, 5] = 0
    tx_bytes: Annotated[int, 6] = 0
    tx_packets: Annotated[int, 7] = 0
    tx_errors: Annotated[int, 8] = 0
    tx_dropped: Annotated[int, 9] = 0


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a shim counts of one container, alike for both versions of cgroups.

    Sizes are bytes, times ns.  A limit is None where there is none.  Of kata the numbers are
    those inside the guest.
    """

    cpu_ns: int = 0
    cpu_user_ns: int = 0
    cpu_kernel_ns: int = 0
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0
    memory_usage: int = 0
    memory_limit: int | None = None
    memory_max_usage: int = 0
    memory_failures: int = 0
    memory_kernel: int = 0
    memory_rss: int = 0
    memory_cache: int = 0
    memory_mapped_file: int = 0
    page_faults: int = 0
    major_page_faults: int = 0
    inactive_file: int = 0
    oom_kills: int = 0
    swap_usage: int = 0
    swap_limit: int | None = None
    pids: int = 0
    pids_limit: int | None = None
    read_bytes: int = 0
    write_bytes: int = 0
    networks: tuple[NetworkMetrics, ...] = ()


@dataclass(frozen=True, slots=True)
class _Pids(Message):
    current: Annotated[int, 1] = 0
    limit: Annotated[int, 2] = 0


@dataclass(frozen=True, slots=True)
class _Usage1(Message):
    total: Annotated[int, 1] = 0
    kernel: Annotated[int, 2] = 0
    user: Annotated[int, 3] = 0


@dataclass(frozen=True, slots=True)
class _Throttling1(Message):
    periods: Annotated[int, 1] = 0
    throttled_periods: Annotated[int, 2] = 0
    throttled_time: Annotated[int, 3] = 0


@dataclass(frozen=True, slots=True)
class _Cpu1(Message):
    usage: Annotated[_Usage1 | None, 1] = None
    throttling: Annotated[_Throttling1 | None, 2] = None


@dataclass(frozen=True, slots=True)
class _Entry1(Message):
    limit: Annotated[int, 1] = 0
    usage: Annotated[int, 2] = 0
    max: Annotated[int, 3] = 0
    failcnt: Annotated[int, 4] = 0


@dataclass(frozen=True, slots=True)
class _Memory1(Message):
    cache: Annotated[int, 1] = 0
    rss: Annotated[int, 2] = 0
    total_mapped_file: Annotated[int, 21] = 0
    total_pgfault: Annotated[int, 26] = 0
    total_pgmajfault: Annotated[int, 27] = 0
    total_inactive_file: Annotated[int, 30] = 0
    usage: Annotated[_Entry1 | None, 33] = None
    swap: Annotated[_Entry1 | None, 34] = None
    kernel: Annotated[_Entry1 | None, 35] = None


@dataclass(frozen=True, slots=True)
class _Oom1(Message):
    oom_kill: Annotated[int, 3] = 0


@dataclass(frozen=True, slots=True)
class _Blkio1(Message):
    op: Annotated[str, 1] = ""
    value: Annotated[int, 5] = 0


@dataclass(frozen=True, slots=True)
class _Blkios1(Message):
    service_bytes: Annotated[tuple[_Blkio1, ...], 1] = ()


@dataclass(frozen=True, slots=True)
class _Metrics1(Message):
    pids: Annotated[_Pids | None, 2] = None
    cpu: Annotated[_Cpu1 | None, 3] = None
    memory: Annotated[_Memory1 | None, 4] = None
    blkio: Annotated[_Blkios1 | None, 5] = None
    network: Annotated[tuple[NetworkMetrics, ...], 7] = ()
    oom: Annotated[_Oom1 | None, 9] = None


@dataclass(frozen=True, slots=True)
class _Cpu2(Message):
    usage_usec: Annotated[int, 1] = 0
    user_usec: Annotated[int, 2] = 0
    system_usec: Annotated[int, 3] = 0
    nr_periods: Annotated[int, 4] = 0
    nr_throttled: Annotated[int, 5] = 0
    throttled_usec: Annotated[int, 6] = 0


@dataclass(frozen=True, slots=True)
class _Memory2(Message):
    anon: Annotated[int, 1] = 0
    file: Annotated[int, 2] = 0
    inactive_file: Annotated[int, 13] = 0
    usage: Annotated[int, 32] = 0
    usage_limit: Annotated[int, 33] = 0
    swap_usage: Annotated[int, 34] = 0
    swap_limit: Annotated[int, 35] = 0


@dataclass(frozen=True, slots=True)
class _Io2(Message):
    rbytes: Annotated[int, 3] = 0
    wbytes: Annotated[int, 4] = 0


@dataclass(frozen=True, slots=True)
class _Ios2(Message):
    usage: Annotated[tuple[_Io2, ...], 1] = ()


@dataclass(frozen=True, slots=True)
class _Metrics2(Message):
    pids: Annotated[_Pids | None, 1] = None
    cpu: Annotated[_Cpu2 | None, 2] = None
    memory: Annotated[_Memory2 | None, 4] = None
    io: Annotated[_Ios2 | None, 6] = None


def metrics(stats: AnyValue) -> Metrics:
    """The numbers in the answer of Stats; ValueError when they are of no kind that is known."""
    if stats.type_name == "io.containerd.cgroups.v1.Metrics":
        return _first(_Metrics1.decode(stats.value))
    if stats.type_name == "io.containerd.cgroups.v2.Metrics":
        return _second(_Metrics2.decode(stats.value))
    raise ValueError(f"statistics of the type {stats.type_url[:100]!r} are not known")


def _first(found: _Metrics1) -> Metrics:
    cpu, memory, pids = found.cpu or _Cpu1(), found.memory or _Memory1(), found.pids or _Pids()
    usage, throttling = cpu.usage or _Usage1(), cpu.throttling or _Throttling1()
    used, swap = memory.usage or _Entry1(), memory.swap or _Entry1()
    entries = (found.blkio or _Blkios1()).service_bytes
    return Metrics(
        cpu_ns=usage.total,
        cpu_user_ns=usage.user,
        cpu_kernel_ns=usage.kernel,
        periods=throttling.periods,
        throttled_periods=throttling.throttled_periods,
        throttled_ns=throttling.throttled_time,
        memory_usage=used.usage,
        memory_limit=_limit(used.limit),
        memory_max_usage=used.max,
        memory_failures=used.failcnt,
        memory_kernel=(memory.kernel or _Entry1()).usage,
        memory_rss=memory.rss,
        memory_cache=memory.cache,
        memory_mapped_file=memory.total_mapped_file,
        page_faults=memory.total_pgfault,
        major_page_faults=memory.total_pgmajfault,
        inactive_file=memory.total_inactive_file,
        # version 1 counts memory and swap in one
        swap_usage=max(swap.usage - used.usage, 0),
        swap_limit=_swap_limit(swap.limit, used.limit),
        oom_kills=(found.oom or _Oom1()).oom_kill,
        pids=pids.current,
        pids_limit=_limit(pids.limit),
        read_bytes=sum(entry.value for entry in entries if entry.op.lower() == "read"),
        write_bytes=sum(entry.value for entry in entries if entry.op.lower() == "write"),
        networks=found.network,
    )


def _second(found: _Metrics2) -> Metrics:
    cpu, memory, pids = found.cpu or _Cpu2(), found.memory or _Memory2(), found.pids or _Pids()
    devices = (found.io or _Ios2()).usage
    return Metrics(
        cpu_ns=cpu.usage_usec * 1000,
        cpu_user_ns=cpu.user_usec * 1000,
        cpu_kernel_ns=cpu.system_usec * 1000,
        periods=cpu.nr_periods,
        throttled_periods=cpu.nr_throttled,
        throttled_ns=cpu.throttled_usec * 1000,
        memory_usage=memory.usage,
        memory_limit=_limit(memory.usage_limit),
        memory_rss=memory.anon,
        memory_cache=memory.file,
        inactive_file=memory.inactive_file,
        swap_usage=memory.swap_usage,
        swap_limit=_limit(memory.swap_limit),
        pids=pids.current,
        pids_limit=_limit(pids.limit),
        read_bytes=sum(device.rbytes for device in devices),
        write_bytes=sum(device.wbytes for device in devices),
    )


def _swap_limit(both: int, memory: int) -> int | None:
    """The limit of swap alone, where version 1 has one for memory and swap together."""
    limit = _limit(both)
    return None if limit is None else max(limit - memory, 0)


def _limit(value: int) -> int | None:
    """A limit: 0 is not told, and what the kernel writes for none is huge (v2: all bits)."""
    return value if 0 < value < _UNLIMITED else None
