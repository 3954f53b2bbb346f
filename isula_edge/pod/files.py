"""hosts, hostname and resolv.conf of a pod, which its containers share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.network import Dns

__all__ = ["hostname", "write_files", "write_hosts"]

_FALLBACK = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
"""As iSulad has it for a host without resolv.conf."""
_LOCAL = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::0\tip6-localnet\n"
    "fe00::0\tip6-mcastprefix\n"
    "fe00::1\tip6-allnodes\n"
    "fe00::2\tip6-allrouters\n"
)


def hostname(wanted: str, pod_id: str, *, node: bool) -> str:
    """The pod's host name: asked for, the host's on its network, or the pod's id."""
    return wanted or (os.uname().nodename if node else pod_id[:63])


def write_files(folder: str, name: str, dns: Dns | None, *, node: bool) -> dict[str, str]:
    """Writes the files into ``folder``: path inside to path on the host.

    ``dns`` replaces the host's resolver settings unless it is empty.
    """
    os.makedirs(folder, 0o755, exist_ok=True)
    _write(f"{folder}/hostname", name + "\n")
    _write(f"{folder}/resolv.conf", _resolver(dns))
    write_hosts(folder, name, (), node=node)
    return {f"/etc/{file}": f"{folder}/{file}" for file in ("hosts", "hostname", "resolv.conf")}


def write_hosts(folder: str, name: str, addresses: Sequence[str], *, node: bool) -> None:
    """Writes hosts, in place: a running container holds it by its bind mount."""
    text = _read("/etc/hosts") if node else ""
    if not text:
        lines = [f"{address}\t{name}\n" for address in addresses or ("127.0.1.1",)]
        text = _LOCAL + "".join(lines)
    _write(f"{folder}/hosts", text)


def _resolver(dns: Dns | None) -> str:
    if dns is None or not (dns.servers or dns.searches or dns.options):
        return _read("/etc/resolv.conf") or _FALLBACK
    lines = [f"nameserver {server}\n" for server in dns.servers]
    if dns.searches:
        lines.append(f"search {' '.join(dns.searches)}\n")
    if dns.options:
        lines.append(f"options {' '.join(dns.options)}\n")
    return "".join(lines)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o644)
