"""What is asked of the network for one container, and what plugins are told of it."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.network.quantity import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "DEFAULT_INTERFACE",
    "Attach",
    "Choice",
    "Dns",
    "PortMapping",
    "capability_values",
    "check_interface",
    "cni_args",
    "pod_choices",
]

log = logging.getLogger(__name__)

DEFAULT_INTERFACE = "eth0"
_NETWORKS = "network.alpha.kubernetes.io/network"
_EXTENSION = "extension.network.kubernetes.io/cni"
_EXTENSION_ARGS = "extension.network.kubernetes.io/cniargs/"
_INGRESS = "kubernetes.io/ingress-bandwidth"
# iSulad knows only the second spelling
_EGRESS = ("kubernetes.io/egress-bandwidth", "kubernetes.io/engress-bandwidth")
_BURST_BITS = (1 << 31) - 1
_MOST_NETWORKS = 64


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A port of the host that leads into the container; protocol tcp, udp or sctp."""

    protocol: str
    container_port: int
    host_port: int
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class Dns:
    """What the container's resolver is configured with."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One network of a container, and what its interface there is to be.

    ``primary`` marks the one that ports, bandwidth, DNS and pod addresses are for.
    """

    network: str
    interface: str
    mac: str = ""
    ips: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    infiniband_guid: str = ""
    primary: bool = False


@dataclass(frozen=True, slots=True)
class Attach:
    """A container or pod whose network is to be made, checked or taken away.

    ``netns`` is the path of its network namespace, '' when that is gone.  ``networks`` are
    its networks by name; when there are none it is a pod, which gets the default network and
    those that its annotations name.  ``mac`` and ``ips`` are for the primary interface.
    """

    id: str
    netns: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    port_mappings: Sequence[PortMapping] = ()
    dns: Dns = Dns()
    hostname: str = ""
    cgroup_parent: str = ""
    mac: str = ""
    ips: tuple[str, ...] = ()
    networks: tuple[Choice, ...] = ()


def check_interface(name: str) -> None:
    """Raises InvalidArgument when the kernel would refuse ``name`` for an interface."""
    if (
        not 0 < len(name.encode(errors="replace")) < 16
        or name in (".", "..", "lo")
        or any(c in "/:" or c.isspace() or not c.isprintable() for c in name)
    ):
        raise errors.InvalidArgument(f"invalid interface name: {name[:100]!r}")


def pod_choices(request: Attach, default: str, known: Sequence[str]) -> list[Choice]:
    """Networks of a pod in the order of their set-up, its default network last.

    Raises InvalidArgument when its annotation is wrong or names what cannot be used.
    """
    chosen = _extra_networks(request.annotations.get(_NETWORKS, ""))
    for choice in chosen:
        if choice.network == default or choice.network not in known:
            hint = f"there are: {', '.join(known)}" if choice.network not in known else ""
            raise errors.InvalidArgument(
                f"User defined network is in conflict with default network: {choice.network}",
                kind="network",
                ref=choice.network,
                hint=hint,
            )
    main = Choice(default, DEFAULT_INTERFACE)
    for choice in chosen:
        if choice.interface == DEFAULT_INTERFACE:
            main = choice
    main = replace(
        main,
        mac=main.mac or request.mac,
        ips=main.ips or tuple(request.ips),
        aliases=main.aliases or ((request.hostname,) if request.hostname else ()),
        primary=True,
    )
    return [choice for choice in chosen if choice.interface != DEFAULT_INTERFACE] + [main]


def _extra_networks(text: str) -> list[Choice]:
    """Networks that annotation ``network.alpha.kubernetes.io/network`` asks for."""
    if not text.strip():
        return []
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise errors.InvalidArgument(f"annotation {_NETWORKS} is no JSON: {error}") from error
    if not isinstance(entries, list) or len(entries) > _MOST_NETWORKS:
        raise errors.InvalidArgument(
            f"annotation {_NETWORKS} is no list of at most {_MOST_NETWORKS} networks"
        )
    chosen = [_extra_network(entry) for entry in entries]
    taken = {choice.interface for choice in chosen} | {DEFAULT_INTERFACE}
    for index, choice in enumerate(chosen):
        if not choice.interface:
            free = next(f"eth{n}" for n in range(1, 2 * _MOST_NETWORKS) if f"eth{n}" not in taken)
            taken.add(free)
            chosen[index] = replace(choice, interface=free)
    names = [choice.interface for choice in chosen]
    for name in names:
        check_interface(name)
        if names.count(name) > 1:
            raise errors.InvalidArgument(f"two networks are to have interface {name}", ref=name)
    return chosen


def _extra_network(entry: object) -> Choice:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
        raise errors.InvalidArgument(f"an entry of annotation {_NETWORKS} has no name")
    texts = {}
    for key in ("interface", "mac", "infinibandGUID"):
        texts[key] = entry[key] if entry.get(key) is not None else ""
        if not isinstance(texts[key], str):
            raise errors.InvalidArgument(f"{key} in annotation {_NETWORKS} is no string")
    ips = entry["ips"] if entry.get("ips") is not None else []
    if not isinstance(ips, list) or not all(isinstance(ip, str) for ip in ips):
        raise errors.InvalidArgument(f"ips in annotation {_NETWORKS} are no strings")
    return Choice(
        entry["name"],
        texts["interface"],
        mac=texts["mac"],
        ips=tuple(ips),
        infiniband_guid=texts["infinibandGUID"],
    )


def cni_args(
    request: Attach, choice: Choice, capabilities: set[str]
) -> tuple[tuple[str, str], ...]:
    """Pairs for CNI_ARGS; what a capability says already is not said again."""
    args = {"IgnoreUnknown": "1"}
    if request.name:
        args["K8S_POD_NAMESPACE"] = request.namespace
        args["K8S_POD_NAME"] = request.name
        args["K8S_POD_INFRA_CONTAINER_ID"] = request.id
        args["K8S_POD_UID"] = request.uid
    if choice.mac and "mac" not in capabilities:
        args["MAC"] = choice.mac
    if choice.ips and "ips" not in capabilities:
        args["IP"] = choice.ips[0]
    for key, value in args.items():
        if not _fits(value):
            raise errors.InvalidArgument(f"{key} cannot be given to CNI plugins: {value!r}")
    extension = request.annotations.get(_EXTENSION, "")
    if extension and _fits(extension):
        args["CNI_MUTLINET_EXTENSION"] = extension
    elif extension:
        log.warning("annotation %s of %s is ignored: it has a ';'", _EXTENSION, request.id)
    for name in sorted(request.annotations):
        if not name.startswith(_EXTENSION_ARGS):
            continue
        key, _, value = request.annotations[name].partition("=")
        if not key or request.annotations[name].count("=") != 1 or not _fits(key + value):
            log.warning("annotation %s of %s is ignored: it is no K=V", name, request.id)
            continue
        args.setdefault(key, value)
    return tuple(args.items())


def _fits(value: str) -> bool:
    """Whether ``value`` can be part of CNI_ARGS: nothing is quoted there."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return ";" not in value and "\0" not in value


def capability_values(
    request: Attach, choice: Choice, pod_cidrs: Sequence[str]
) -> dict[str, Any]:
    """Values of all capabilities that this attachment has any for; raises InvalidArgument.

    Conventions of the specification; a plugin is given those that it declares.
    """
    values: dict[str, Any] = {}
    if choice.primary:
        published = [item for item in request.port_mappings if item.host_port > 0]
        values["portMappings"] = [_port(item) for item in published]
        values["bandwidth"] = _bandwidth(request.annotations)
        values["ipRanges"] = [[{"subnet": cidr}] for cidr in pod_cidrs]
        values["dns"] = _dns(request.dns)
        values["cgroupPath"] = request.cgroup_parent
    values["mac"] = choice.mac
    values["ips"] = list(choice.ips)
    values["aliases"] = list(choice.aliases)
    values["infinibandGUID"] = choice.infiniband_guid
    return {name: value for name, value in values.items() if value}


def _port(mapping: PortMapping) -> dict[str, Any]:
    protocol = mapping.protocol.lower()
    if protocol not in ("tcp", "udp", "sctp"):
        raise errors.InvalidArgument(f"invalid protocol of a port mapping: {mapping.protocol!r}")
    for port in (mapping.host_port, mapping.container_port):
        if not 0 < port < 65536:
            raise errors.InvalidArgument(f"invalid port of a port mapping: {port}")
    entry = {
        "hostPort": mapping.host_port,
        "containerPort": mapping.container_port,
        "protocol": protocol,
    }
    return entry | ({"hostIP": mapping.host_ip} if mapping.host_ip else {})


def _bandwidth(annotations: Mapping[str, str]) -> dict[str, int]:
    values: dict[str, int] = {}
    egress = next((annotations[key] for key in _EGRESS if annotations.get(key)), "")
    for name, text in (("ingress", annotations.get(_INGRESS, "")), ("egress", egress)):
        if text:
            values[f"{name}Rate"] = parse_quantity(text)
            values[f"{name}Burst"] = _BURST_BITS
    return values


def _dns(dns: Dns) -> dict[str, list[str]]:
    lists = {"servers": dns.servers, "searches": dns.searches, "options": dns.options}
    return {name: list(items) for name, items in lists.items() if items}
