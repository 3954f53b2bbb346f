"""The keys of daemon.json that concern Kubernetes, CNI, CDI and NRI."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.service.config import CriConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["check_hosts", "parse"]

_SOCKET_PATH = 107
"""Bytes of a unix socket's path (unix(7), less the final NUL)."""


def parse(table: dict[str, Any], path: str) -> CriConfig:
    """The settings in ``table``, the content of file ``path``; InvalidArgument names the key."""
    default = CriConfig()

    def one(key: str, otherwise: Any) -> Any:
        found = table.get(key)
        return otherwise if found in (None, "", []) else found

    certificate, key = one("stream-server-cert", ""), one("stream-server-key", "")
    if bool(certificate) != bool(key):
        raise errors.InvalidArgument(
            f"{path}: stream-server-cert and stream-server-key belong together",
            ref="stream-server-cert",
        )
    port = one("websocket-server-listening-port", 0)
    if port and not 1 <= port <= 65535:
        raise errors.InvalidArgument(
            f"{path}: websocket-server-listening-port must be from 1 to 65535, it is {port}",
            ref="websocket-server-listening-port",
        )
    return CriConfig(
        socket=_socket(one("cri-socket", ""), path),
        eager=bool(one("enable-cri-v1", False) or one("cri-socket", "")),
        handlers=dict(one("cri-runtimes", {})),
        pod_sandbox_image=one("pod-sandbox-image", ""),
        cni_conf_dir=one("cni-conf-dir", default.cni_conf_dir),
        cni_bin_dirs=_folders("cni-bin-dir", re.split("[,:]", one("cni-bin-dir", "")), path)
        or default.cni_bin_dirs,
        cni_cache_dir=one("cni-cache-dir", default.cni_cache_dir),
        stream_address=one("stream-server-address", default.stream_address),
        stream_port=port,
        stream_cert=certificate,
        stream_key=key,
        cdi=table.get("enable-cdi", True),
        cdi_dirs=_folders("cdi-spec-dirs", one("cdi-spec-dirs", []), path) or default.cdi_dirs,
        nri=one("nri-support", False),
        nri_socket=one("nri-socket-path", default.nri_socket),
        nri_connections=not one("disable-connections", False),
        nri_plugin_dir=one("plugin-path", default.nri_plugin_dir),
        nri_config_dir=one("plugin-config-path", default.nri_config_dir),
        nri_registration_s=_seconds(table, "plugin-registration-timeout", path)
        or default.nri_registration_s,
        nri_request_s=_seconds(table, "plugin-requst-timeout", path) or default.nri_request_s,
    )


def check_hosts(config: CriConfig, hosts: Iterable[str], path: str) -> None:
    """InvalidArgument when the socket is one of the client's, which serve the CRI anyway."""
    if f"unix://{config.socket}" in hosts:
        raise errors.InvalidArgument(
            f"{path}: cri-socket {config.socket} is one of hosts, which serve the CRI too",
            ref="cri-socket",
        )


def _socket(text: str, path: str) -> str:
    """The path in ``unix:///path``."""
    if not text:
        return ""
    found = text.removeprefix("unix://")
    absolute = text.startswith("unix:///") and not text.endswith("/")
    if not absolute or len(found.encode()) > _SOCKET_PATH:
        raise errors.InvalidArgument(
            f"{path}: cri-socket must be unix:///absolute/path of at most {_SOCKET_PATH} bytes, "
            f"it is {text}",
            ref="cri-socket",
        )
    return found


def _folders(key: str, items: Iterable[str], path: str) -> tuple[str, ...]:
    """The directories among ``items``; empty ones are left out."""
    found = tuple(item for item in items if item)
    for item in found:
        if not item.startswith("/"):
            raise errors.InvalidArgument(
                f"{path}: {key} must name absolute directories, not {item}", ref=key
            )
    return found


def _seconds(table: dict[str, Any], key: str, path: str) -> float:
    """A time; 0 is the default one."""
    found = float(table.get(key, 0))
    if found < 0:
        raise errors.InvalidArgument(f"{path}: {key} must not be negative", ref=key)
    return found
