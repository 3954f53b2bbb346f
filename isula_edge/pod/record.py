"""One pod sandbox as the engine remembers it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from isula_edge.network import Dns, PortMapping
from isula_edge.sys.process import Identity

__all__ = ["IdMap", "Pod", "PodSpec"]

IdMap = tuple[int, int, int]
"""Id inside, id on the host, size."""


@dataclass(frozen=True, slots=True)
class PodSpec:
    """What a caller asks for.

    ``modes`` maps network, ipc and pid to ``pod`` (its own), ``node`` (the host's) or
    ``container`` (pid alone: each container its own).  ``uid_maps`` are empty without a
    user namespace; ``security`` is what containers inherit (``selinux``: a label).
    ``resources`` and ``overhead`` are limits by their names in the CRI: what the kubelet has
    set for the pod's cgroup.
    """

    name: str
    uid: str
    namespace: str
    attempt: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    hostname: str = ""
    handler: str = ""
    runtime: str = ""
    modes: dict[str, str] = field(default_factory=dict)
    dns: Dns | None = None
    port_mappings: tuple[PortMapping, ...] = ()
    cgroup_parent: str = ""
    sysctls: dict[str, str] = field(default_factory=dict)
    uid_maps: tuple[IdMap, ...] = ()
    gid_maps: tuple[IdMap, ...] = ()
    log_directory: str = ""
    privileged: bool = False
    security: dict[str, str] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)
    overhead: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What no two pods may have in common: iSulad's name of the pod."""
        return f"k8s_POD_{self.name}_{self.namespace}_{self.uid}_{self.attempt}"


@dataclass(slots=True)
class Pod:
    """A pod sandbox; ``ready`` while containers can be made in it.

    ``namespaces`` maps a runtime-spec type to the file that pins it, None for the host's;
    ``ips`` are the pod's addresses, first the primary one.  ``groups`` are
    directories of cgroups that were made for it.
    """

    id: str
    created_ns: int
    boot: str
    spec: PodSpec
    ready: bool = False
    network: bool = False
    namespaces: dict[str, str | None] = field(default_factory=dict)
    ips: list[str] = field(default_factory=list)
    pause: Identity | None = None
    exited_ns: int = 0
    groups: list[str] = field(default_factory=list)
    # what follows lives only in memory
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def cgroup_parent(self) -> str:
        """The cgroup that the kubelet made for the pod, '' for the engine's own."""
        return self.spec.cgroup_parent

    def to_record(self) -> dict[str, Any]:
        """What outlives a reboot."""
        return {
            "id": self.id,
            "created_ns": self.created_ns,
            "boot": self.boot,
            "spec": asdict(self.spec),
        }

    def to_state(self) -> dict[str, Any]:
        """What a reboot ends."""
        pause = self.pause
        return {
            "ready": self.ready,
            "network": self.network,
            "namespaces": self.namespaces,
            "ips": self.ips,
            "pause": [pause.pid, pause.start_ticks, pause.boot] if pause else [],
            "exited_ns": self.exited_ns,
            "groups": self.groups,
        }

    def take_state(self, state: dict[str, Any]) -> None:
        """Takes over what :meth:`to_state` gave."""
        self.ready = bool(state["ready"])
        self.network = bool(state["network"])
        self.namespaces = dict(state["namespaces"])
        self.ips = list(state["ips"])
        self.pause = Identity(*state["pause"]) if state["pause"] else None
        self.exited_ns = int(state["exited_ns"])
        self.groups = list(state["groups"])

    @classmethod
    def from_record(cls, data: dict[str, Any]) -> Pod:
        """The pod that :meth:`to_record` described."""
        return cls(data["id"], data["created_ns"], data["boot"], _spec(data["spec"]))


def _spec(record: dict[str, Any]) -> PodSpec:
    known = {item.name for item in fields(PodSpec)}
    data = {key: value for key, value in record.items() if key in known}
    if data.get("dns") is not None:
        data["dns"] = Dns(**{key: tuple(value) for key, value in data["dns"].items()})
    data["port_mappings"] = tuple(PortMapping(**item) for item in data["port_mappings"])
    for name in ("uid_maps", "gid_maps"):
        data[name] = tuple(tuple(item) for item in data[name])
    return PodSpec(**data)
