"""Proxies of the environment, in upper or lower case: HTTP_PROXY and HTTPS_PROXY, or else
ALL_PROXY; and NO_PROXY, what they are not for.
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["LOOPBACK", "for_url", "in_networks", "split_port"]

LOOPBACK = ("127.0.0.0/8", "::1/128", "localhost")


def for_url(scheme: str, host: str, environ: Mapping[str, str] | None = None) -> str:
    """URL of the proxy for ``scheme`` and ``host[:port]``, or ''; never one for loopback."""
    env = os.environ if environ is None else environ
    names = (f"{scheme}_proxy", "all_proxy")
    proxy = next((found for name in names if (found := _either(env, name))), "")
    if not proxy or in_networks(host, LOOPBACK):
        return ""
    exempt = re.split(r"[,\s]+", _either(env, "no_proxy"))
    if _exempt(host, 443 if scheme == "https" else 80, exempt):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _either(env: Mapping[str, str], name: str) -> str:
    return (env.get(name.upper()) or "").strip() or (env.get(name) or "").strip()


def split_port(host: str) -> tuple[str, str]:
    """``host[:port]`` apart; brackets of an IPv6 address are removed."""
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        return name, rest.removeprefix(":")
    name, _, port = host.partition(":")
    return name, port


def in_networks(host: str, patterns: Iterable[str]) -> bool:
    """Whether ``host[:port]`` is one of ``patterns``: names without port, addresses, CIDR."""
    name = split_port(host)[0].lower()
    address = _address(name)
    for pattern in patterns:
        if pattern == name or (address is not None and _address(pattern) == address):
            return True
        if address is not None and "/" in pattern:
            try:
                if address in ipaddress.ip_network(pattern, strict=False):
                    return True
            except ValueError:
                continue
    return False


def _exempt(host: str, default_port: int, patterns: Iterable[str]) -> bool:
    name, port = split_port(host.lower())
    port = port or str(default_port)
    for item in patterns:
        pattern = item.strip().lower()
        if pattern == "*":
            return True
        if not pattern.strip("*.:"):
            continue
        if "/" in pattern or _address(pattern.strip("[]")) is not None:
            if in_networks(host, (pattern.strip("[]"),)):
                return True
            continue
        wanted, only_port = split_port(pattern)
        if not wanted or (only_port and only_port != port):
            continue
        if _address(wanted) is not None and _address(wanted) == _address(name):
            return True
        suffix = wanted.removeprefix("*").removeprefix(".")
        # ".example.com" stands for hosts below it, "example.com" for itself too
        if name.endswith("." + suffix) or (name == suffix and wanted[0] not in ".*"):
            return True
    return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
