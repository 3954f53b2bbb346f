"""Probes of links, packet filters, and what virtual machines need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isula_edge.kernel._storage import device
from isula_edge.kernel.finding import (
    Finding,
    State,
    absent,
    from_answer,
    present,
    unknown,
    unusable,
)
from isula_edge.kernel.source import CAP_NET_ADMIN, has_cap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isula_edge.kernel.source import Source

__all__ = ["PROBES"]


_NO_NETLINK = ("EAFNOSUPPORT", "EPROTONOSUPPORT")
"""Answers to socket(2), which comes first."""


def _link(kind: str) -> Callable[[Source], Finding]:
    """A kind of link.  EINVAL, ENODEV or EADDRNOTAVAIL mean that it is known and wants
    other parameters."""

    def probe(source: Source) -> Finding:
        return from_answer(
            f"RTM_NEWLINK of kind {kind}",
            source.call(f"net.link_{kind}"),
            ("EOPNOTSUPP", *_NO_NETLINK),
            privileged=has_cap(source, CAP_NET_ADMIN),
        )

    return probe


def _nf_tables(source: Source) -> Finding:
    found = from_answer(
        "NFT_MSG_GETGEN",
        source.call("net.nft_getgen"),
        ("EINVAL", "EOPNOTSUPP", *_NO_NETLINK),
        privileged=has_cap(source, CAP_NET_ADMIN),
    )
    if found.state is not State.PRESENT:
        return found
    # 3.18 and 3.19 know nf_tables, but not the batches that today's nft sends
    batch = source.call("net.nft_batch")
    if batch is not None and not batch.ok:
        return unusable(f"an empty batch, as nft sends it, is refused: {batch.text}")
    return found


def _legacy(names: str, call: str, module: str) -> Callable[[Source], Finding]:
    """A legacy packet filter with NAT: what is loaded, else what could be.

    Live, the table is not asked for: that would load it, and slow every packet down.
    """

    def probe(source: Source) -> Finding:
        answer = source.call(call)
        if answer is not None:
            return from_answer("GET_INFO of table nat", answer, ("ENOPROTOOPT", "ENOENT"))
        loaded = source.read(names)
        if loaded is not None:
            return present(f"{names}: {', '.join(loaded.split()) or 'none in use yet'}")
        if source.exists(names):
            return present(f"{names} is there")
        release = (source.read("/proc/sys/kernel/osrelease") or "").strip()
        known = "".join(
            source.read(f"/lib/modules/{release}/{name}") or ""
            for name in ("modules.builtin", "modules.dep")
        )
        if f"/{module}.ko" in known:
            return present(f"/lib/modules/{release} has {module}")
        if known:
            return absent(f"no {names}, no {module} in /lib/modules/{release}")
        return absent(f"no {names}")

    return probe


_iptables_legacy = _legacy("/proc/net/ip_tables_names", "net.ipt_nat", "iptable_nat")


def _packet_filter(source: Source) -> Finding:
    found = {"nf_tables": _nf_tables(source), "iptables-legacy": _iptables_legacy(source)}
    there = [name for name, one in found.items() if one.state is State.PRESENT]
    if there:
        return present(" and ".join(there))
    if any(one.state is State.UNKNOWN for one in found.values()):
        return unknown("; ".join(f"{name}: {one.why}" for name, one in found.items()))
    return absent("neither nf_tables nor iptables-legacy can be used")


def _br_netfilter(source: Source) -> Finding:
    if source.exists("/proc/sys/net/bridge/bridge-nf-call-iptables"):
        return present("/proc/sys/net/bridge/bridge-nf-call-iptables is there")
    return absent("no /proc/sys/net/bridge (module br_netfilter is not loaded)")


def _ipv6(source: Source) -> Finding:
    off = source.read("/proc/sys/net/ipv6/conf/all/disable_ipv6")
    if off is not None and off.strip() == "1":
        return unusable("/proc/sys/net/ipv6/conf/all/disable_ipv6 is 1")
    if source.exists("/proc/net/if_inet6"):
        return present("/proc/net/if_inet6 is there")
    return absent("no /proc/net/if_inet6")


_LINKS = ("veth", "bridge", "macvlan", "ipvlan", "vlan", "vxlan", "dummy")

PROBES: Mapping[str, Callable[[Source], Finding]] = {
    **{kind: _link(kind) for kind in _LINKS},
    "tun": device("/dev/net/tun"),
    "packet-filter": _packet_filter,
    "nf-tables": _nf_tables,
    "iptables-legacy": _iptables_legacy,
    "ip6tables-legacy": _legacy("/proc/net/ip6_tables_names", "net.ip6t_nat", "ip6table_nat"),
    "br-netfilter": _br_netfilter,
    "ipv6": _ipv6,
    "kvm": device("/dev/kvm"),
    "vhost-vsock": device("/dev/vhost-vsock"),
}
