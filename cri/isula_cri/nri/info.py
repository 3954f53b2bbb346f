"""What plugins are told of a pod and a container, and the messages made of it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from isula_cri.nri import messages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isula_edge.oci.options import Settings

__all__ = [
    "HOOKS",
    "ContainerInfo",
    "PodInfo",
    "Resources",
    "container_message",
    "from_settings",
    "pod_message",
]

HOOKS = {
    "prestart": "prestart",
    "create_runtime": "createRuntime",
    "create_container": "createContainer",
    "start_container": "startContainer",
    "poststart": "poststart",
    "poststop": "poststop",
}
"""NRI's names of the kinds of hooks, and the runtime-spec's."""
_STATES = {"created": 1, "paused": 2, "running": 3, "stopped": 4}
_UNLIMITED = 2**64 - 1
_OPTIONAL = {
    "memory_limit": ("memory", "limit"),
    "memory_reservation": ("memory", "reservation"),
    "memory_swap": ("memory", "swap"),
    "memory_kernel": ("memory", "kernel"),
    "memory_kernel_tcp": ("memory", "kernel_tcp"),
    "memory_swappiness": ("memory", "swappiness"),
    "oom_kill_disable": ("memory", "disable_oom_killer"),
    "cpu_shares": ("cpu", "shares"),
    "cpu_quota": ("cpu", "quota"),
    "cpu_period": ("cpu", "period"),
    "cpu_rt_runtime": ("cpu", "realtime_runtime"),
    "cpu_rt_period": ("cpu", "realtime_period"),
}


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits; None or '' is "not set".  Sizes are bytes, CPU times microseconds.

    ``devices`` are rules as ``c 1:3 rwm``; ``hugepages`` are (page size as ``2MB``, bytes).
    """

    memory_limit: int | None = None
    memory_reservation: int | None = None
    memory_swap: int | None = None
    memory_kernel: int | None = None
    memory_kernel_tcp: int | None = None
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    cpu_shares: int | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    cpu_rt_runtime: int | None = None
    cpu_rt_period: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None
    blockio_class: str | None = None
    rdt_class: str | None = None
    hugepages: tuple[tuple[str, int], ...] = ()
    unified: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()

    def message(self) -> Any:
        """As LinuxResources."""
        made = messages.LinuxResources(unified=self.unified)
        for name, (part, key) in _OPTIONAL.items():
            _set(getattr(made, part), key, getattr(self, name))
        _set(made, "blockio_class", self.blockio_class)
        _set(made, "rdt_class", self.rdt_class)
        if self.cpuset_cpus:
            made.cpu.cpus = self.cpuset_cpus
        if self.cpuset_mems:
            made.cpu.mems = self.cpuset_mems
        if self.pids_limit is not None:
            made.pids.SetInParent()
            made.pids.limit = self.pids_limit
        for page_size, limit in self.hugepages:
            made.hugepage_limits.add(page_size=page_size, limit=limit)
        for text in self.devices:
            made.devices.append(_device_rule(text))
        return made

    @classmethod
    def of(cls, message: Any) -> Resources:
        """What LinuxResources say."""
        found: dict[str, Any] = {}
        for name, (part, key) in _OPTIONAL.items():
            holder = getattr(message, part)
            if holder.HasField(key):
                found[name] = getattr(holder, key).value
        for name in ("blockio_class", "rdt_class"):
            if message.HasField(name):
                found[name] = getattr(message, name).value
        if message.HasField("pids"):
            found["pids_limit"] = message.pids.limit
        return cls(
            **found,
            cpuset_cpus=message.cpu.cpus,
            cpuset_mems=message.cpu.mems,
            hugepages=tuple((item.page_size, item.limit) for item in message.hugepage_limits),
            unified=dict(message.unified),
            devices=tuple(_rule_text(rule) for rule in message.devices if rule.allow),
        )

    def named(self) -> list[str]:
        """The fields that are set."""
        return [item.name for item in fields(self) if getattr(self, item.name) not in _UNSET]


_UNSET: tuple[Any, ...] = (None, "", (), {})


def _set(message: Any, name: str, value: Any) -> None:
    """Sets an Optional… to ``value``, which may be 0 or ''; None leaves it out."""
    if value is not None:
        holder = getattr(message, name)
        holder.SetInParent()
        holder.value = value


def _device_rule(text: str) -> Any:
    kind, where, access = text.split(" ")
    rule = messages.LinuxDeviceCgroup(allow=True, type=kind, access=access)
    for name, number in zip(("major", "minor"), where.split(":"), strict=True):
        _set(rule, name, None if number == "*" else int(number))
    return rule


def _rule_text(rule: Any) -> str:
    major = rule.major.value if rule.HasField("major") else "*"
    minor = rule.minor.value if rule.HasField("minor") else "*"
    return f"{rule.type or 'a'} {major}:{minor} {rule.access or 'rwm'}"


@dataclass(frozen=True, slots=True)
class PodInfo:
    """A pod sandbox.  ``namespaces`` maps a runtime-spec type to the path that pins it."""

    id: str
    name: str = ""
    uid: str = ""
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    runtime_handler: str = ""
    cgroup_parent: str = ""
    pid: int = 0
    ips: Sequence[str] = ()
    namespaces: Mapping[str, str] = field(default_factory=dict)
    resources: Resources | None = None
    overhead: Resources | None = None


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """A container.  ``state`` is created, paused, running, stopped or '' (not known).

    ``mounts``, ``devices`` and ``hooks`` are the runtime-spec's objects; ``rlimits`` are
    (name as ``nofile``, soft, hard) with -1 for no limit.
    """

    id: str = ""
    pod_id: str = ""
    name: str = ""
    state: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    args: Sequence[str] = ()
    env: Sequence[str] = ()
    mounts: Sequence[Mapping[str, Any]] = ()
    hooks: Mapping[str, Any] = field(default_factory=dict)
    devices: Sequence[Mapping[str, Any]] = ()
    namespaces: Mapping[str, str] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    resources: Resources | None = None
    rlimits: Sequence[tuple[str, int, int]] = ()
    oom_score_adj: int | None = None
    cgroups_path: str = ""
    cdi_devices: Sequence[str] = ()
    pid: int = 0
    created_ns: int = 0
    started_ns: int = 0
    finished_ns: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    image: str = ""
    image_id: str = ""


def from_settings(settings: Settings) -> ContainerInfo:
    """What ``settings`` say of a container; dataclasses.replace() adds the rest."""
    limits = {
        "memory_limit": settings.memory or None,
        "memory_reservation": settings.memory_reservation or None,
        "memory_swap": settings.memory_swap or None,
        "memory_swappiness": None if settings.memory_swappiness < 0 else settings.memory_swappiness,
        "oom_kill_disable": settings.oom_kill_disable or None,
        "cpu_shares": settings.cpu_shares or None,
        "cpu_quota": settings.cpu_quota or settings.nano_cpus // 10_000 or None,
        "cpu_period": settings.cpu_period or (100_000 if settings.nano_cpus else None),
        "pids_limit": settings.pids_limit or None,
    }
    return ContainerInfo(
        labels=settings.labels,
        annotations=settings.annotations,
        env=settings.env,
        mounts=[mount.spec() for mount in settings.mounts],
        hooks=settings.hooks,
        namespaces={kind: path for kind, path in settings.join.items() if path is not None},
        sysctls=settings.sysctls,
        resources=Resources(
            **limits,  # type: ignore[arg-type]
            cpuset_cpus=settings.cpuset_cpus,
            cpuset_mems=settings.cpuset_mems,
            hugepages=tuple(settings.hugepages),
            unified=settings.unified,
            devices=tuple(settings.device_rules),
        ),
        rlimits=settings.ulimits,
        oom_score_adj=settings.oom_score_adj,
    )


def pod_message(pod: PodInfo) -> Any:
    """``pod`` as PodSandbox."""
    made = messages.PodSandbox(
        id=pod.id,
        name=pod.name,
        uid=pod.uid,
        namespace=pod.namespace,
        labels=pod.labels,
        annotations=pod.annotations,
        runtime_handler=pod.runtime_handler,
        pid=pod.pid,
        ips=pod.ips,
    )
    made.linux.cgroup_parent = pod.cgroup_parent
    for kind, path in pod.namespaces.items():
        made.linux.namespaces.add(type=kind, path=path)
    if pod.resources is not None:
        made.linux.pod_resources.CopyFrom(pod.resources.message())
    if pod.overhead is not None:
        made.linux.pod_overhead.CopyFrom(pod.overhead.message())
    return made


def container_message(container: ContainerInfo) -> Any:
    """``container`` as Container."""
    made = messages.Container(
        id=container.id,
        pod_sandbox_id=container.pod_id,
        name=container.name,
        state=_STATES.get(container.state, 0),
        labels=container.labels,
        annotations=container.annotations,
        args=container.args,
        env=container.env,
        pid=container.pid,
        created_at=container.created_ns,
        started_at=container.started_ns,
        finished_at=container.finished_ns,
        exit_code=container.exit_code,
        status_reason=container.reason,
        status_message=container.message,
        CDI_devices=[{"name": name} for name in container.cdi_devices],
    )
    made.image.name, made.image.config_digest = container.image, container.image_id
    for mount in container.mounts:
        made.mounts.add(**{key: mount[key] for key in _MOUNT_KEYS if key in mount})
    for name, kind in HOOKS.items():
        for hook in container.hooks.get(kind) or ():
            getattr(made.hooks, name).append(_hook(hook))
    for limit, soft, hard in container.rlimits:
        made.rlimits.add(type=f"RLIMIT_{limit.upper()}", soft=_limit(soft), hard=_limit(hard))
    _fill_linux(made.linux, container)
    return made


_MOUNT_KEYS = ("destination", "type", "source", "options")


def _limit(number: int) -> int:
    return _UNLIMITED if number < 0 else number


def _hook(hook: Mapping[str, Any]) -> Any:
    made = messages.Hook(path=hook["path"], args=hook.get("args") or (), env=hook.get("env") or ())
    _set(made, "timeout", hook.get("timeout") or None)
    return made


def _fill_linux(linux: Any, container: ContainerInfo) -> None:
    for kind, path in container.namespaces.items():
        linux.namespaces.add(type=kind, path=path)
    for device in container.devices:
        made = linux.devices.add(
            path=device["path"], type=device["type"], major=device["major"], minor=device["minor"]
        )
        for name, key in (("file_mode", "fileMode"), ("uid", "uid"), ("gid", "gid")):
            _set(made, name, device.get(key))
    if container.resources is not None:
        linux.resources.CopyFrom(container.resources.message())
    _set(linux, "oom_score_adj", container.oom_score_adj)
    linux.cgroups_path = container.cgroups_path
    linux.sysctl.update(container.sysctls)
