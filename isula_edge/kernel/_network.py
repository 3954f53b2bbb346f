"""Probes of links and packet filters."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def _link(kind: str) -> Callable[[Source], Finding]:
    """A kind of link.  EINVAL, ENODEV or EADDRNOTAVAIL mean that it is known and wants
    other parameters."""

    def probe(source: Source) -> Finding:
        return from_answer(
            f"RTM_NEWLINK of kind {kind}",
            source.call(f"net.link_{kind}"),
            ("EOPNOTSUPP",),
            privileged=has_cap(source, CAP_NET_ADMIN),
        )

    return probe


def _nf_tables(source: Source) -> Finding:
    found = from_answer(
        "NFT_MSG_GETGEN",
        source.call("net.nft_getgen"),
        ("EINVAL", "EPROTONOSUPPORT", "EOPNOTSUPP"),
        privileged=has_cap(source, CAP_NET_ADMIN),
    )
    if found.state is not State.PRESENT:
        return found
    # 3.18 and 3.19 know nf_tables, but not the batches that today's nft sends
    batch = source.call("net.nft_batch")
    if batch is not None and not batch.ok:
        return unusable(f"an empty batch, as nft sends it, is refused: {batch.text}")
    return found


def _iptables_legacy(source: Source) -> Finding:
    names = source.read("/proc/net/ip_tables_names")
    if names is not None and ("nat" in names.split() or source.call("net.ipt_nat") is None):
        tables = ", ".join(names.split()) or "none in use yet"
        return present(f"/proc/net/ip_tables_names: {tables}")
    if names is None and source.exists("/proc/net/ip_tables_names"):
        return present("/proc/net/ip_tables_names is there")
    answer = source.call("net.ipt_nat")
    if answer is not None:
        return from_answer("IPT_SO_GET_INFO of table nat", answer, ("ENOPROTOOPT", "ENOENT"))
    release = (source.read("/proc/sys/kernel/osrelease") or "").strip()
    known = "".join(
        source.read(f"/lib/modules/{release}/{name}") or ""
        for name in ("modules.builtin", "modules.dep")
    )
    if "/iptable_nat.ko" in known:
        return present(f"/lib/modules/{release} has iptable_nat")
    if known:
        return absent(f"no /proc/net/ip_tables_names, no iptable_nat in /lib/modules/{release}")
    return absent("no /proc/net/ip_tables_names")


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


PROBES: Mapping[str, Callable[[Source], Finding]] = {
    **{kind: _link(kind) for kind in ("veth", "bridge", "macvlan", "ipvlan")},
    "packet-filter": _packet_filter,
    "nf-tables": _nf_tables,
    "iptables-legacy": _iptables_legacy,
    "br-netfilter": _br_netfilter,
    "ipv6": _ipv6,
}
