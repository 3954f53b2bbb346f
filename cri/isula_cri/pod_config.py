"""PodSandboxConfig: what a kubelet says of a pod, checked and in the engine's words."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from isula_cri import messages, security
from isula_cri.resources import stored
from isula_edge import errors
from isula_edge.network import Dns, PortMapping
from isula_edge.pod.record import IdMap, PodSpec

if TYPE_CHECKING:
    from isula_edge.service.engine import Engine

__all__ = ["MODES", "check_lists", "id_maps", "pod_spec", "runtime_of"]

MODES = {number: name.lower() for name, number in messages.enum("NamespaceMode").items()}
"""Numbers of NamespaceMode to the words of ``PodSpec.modes``."""
_PROTOCOLS = {number: name.lower() for name, number in messages.enum("Protocol").items()}
_MOST = 1000


def runtime_of(engine: Engine, handler: str) -> str:
    """The runtime that a RuntimeClass handler names; InvalidArgument for an unknown one."""
    name = engine.config.cri.handlers.get(handler, handler)
    try:
        return engine.runtime_name(name)
    except errors.InvalidArgument:
        known = ", ".join(sorted({*engine.runtimes, *engine.config.cri.handlers}))
        raise errors.InvalidArgument(
            f"no runtime handler {handler}",
            kind="runtime",
            ref=handler,
            hint=f"one of {known}, or add it to cri-runtimes in daemon.json",
        ) from None


def check_lists(config: Any) -> None:
    """InvalidArgument when a pod or a container has more labels or annotations than may be."""
    for what, listed in (("Labels", config.labels), ("Annotations", config.annotations)):
        if len(listed) > _MOST:
            raise errors.InvalidArgument(f"{what} list is too long, the limit is {_MOST}")


def pod_spec(engine: Engine, config: Any, handler: str) -> PodSpec:
    """The pod that ``config`` describes; InvalidArgument names what is wrong."""
    linux = config.linux
    context = linux.security_context
    options = context.namespace_options
    check_lists(config)
    modes = {
        kind: messages.word(MODES, getattr(options, kind), f"namespace_options.{kind}")
        for kind in ("network", "ipc", "pid")
    }
    for kind in ("network", "ipc"):
        if modes[kind] not in ("pod", "node"):
            raise errors.InvalidArgument(f"{kind} namespace mode of a pod must be POD or NODE")
    if modes["pid"] == "target":
        raise errors.InvalidArgument("a pod has no target for its pid namespace")
    security.check_pod(context)
    uid_maps, gid_maps = id_maps(options.userns_options)
    metadata = config.metadata
    return PodSpec(
        metadata.name,
        metadata.uid,
        metadata.namespace,
        metadata.attempt,
        dict(config.labels),
        dict(config.annotations),
        config.hostname,
        handler,
        runtime_of(engine, handler),
        modes,
        _dns(config),
        tuple(_port(item) for item in config.port_mappings),
        linux.cgroup_parent,
        dict(linux.sysctls),
        uid_maps,
        gid_maps,
        config.log_directory,
        context.privileged,
        {"selinux": security.selinux_label(context.selinux_options)},
        stored(linux.resources),
        stored(linux.overhead),
    )


def _dns(config: Any) -> Dns | None:
    if not config.HasField("dns_config"):
        return None
    found = config.dns_config
    return Dns(tuple(found.servers), tuple(found.searches), tuple(found.options))


def _port(item: Any) -> PortMapping:
    if not 0 < item.container_port <= 65535 or not 0 <= item.host_port <= 65535:
        raise errors.InvalidArgument(
            f"port mapping {item.host_port} to {item.container_port} is out of range",
            kind="port",
            ref=str(item.container_port),
        )
    if item.host_ip:
        try:
            ipaddress.ip_address(item.host_ip)
        except ValueError:
            raise errors.InvalidArgument(
                f"host_ip {item.host_ip!r:.80} is no IP address", kind="port", ref=item.host_ip
            ) from None
    protocol = messages.word(_PROTOCOLS, item.protocol, "port_mappings.protocol")
    return PortMapping(protocol, item.container_port, item.host_port, item.host_ip)


def id_maps(options: Any) -> tuple[tuple[IdMap, ...], tuple[IdMap, ...]]:
    """Mappings of user and group ids of a pod's user namespace; empty for the host's.

    InvalidArgument unless there is exactly one, the same for both, with id 0 in it.
    """
    mode = messages.word(MODES, options.mode, "userns_options.mode")
    uids = tuple((item.container_id, item.host_id, item.length) for item in options.uids)
    gids = tuple((item.container_id, item.host_id, item.length) for item in options.gids)
    if mode == "node" or (mode == "pod" and not uids and not gids):
        if uids or gids:
            raise errors.InvalidArgument("the host's user namespace takes no id mappings")
        return (), ()
    if mode != "pod":
        raise errors.InvalidArgument(f"user namespace mode {mode.upper()} is not supported")
    if len(uids) != 1 or uids != gids:
        raise errors.InvalidArgument(
            "a user namespace takes exactly one mapping, the same for user and group ids"
        )
    inside, host, size = uids[0]
    if inside != 0 or size < 1 or host + size > 2**32:
        raise errors.InvalidArgument(f"id mapping {inside}:{host}:{size} does not map id 0")
    return uids, gids
