"""The keys of daemon.json that concern Kubernetes, CNI, CDI and NRI."""

from __future__ import annotations

import re
from typing import Any

from isula_edge import errors
from isula_edge.service.config import CriConfig

__all__ = ["parse"]

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
        cni_bin_dirs=_folders(one("cni-bin-dir", ""), path) or default.cni_bin_dirs,
        cni_cache_dir=one("cni-cache-dir", default.cni_cache_dir),
        stream_address=one("stream-server-address", default.stream_address),
        stream_port=port,
        stream_cert=certificate,
        stream_key=key,
        cdi=table.get("enable-cdi", True),
        cdi_dirs=tuple(one("cdi-spec-dirs", default.cdi_dirs)),
        nri=one("nri-support", False),
        nri_socket=one("nri-socket-path", default.nri_socket),
        nri_connections=not one("disable-connections", False),
        nri_plugin_dir=one("plugin-path", default.nri_plugin_dir),
        nri_config_dir=one("plugin-config-path", default.nri_config_dir),
        nri_registration_s=float(one("plugin-registration-timeout", default.nri_registration_s)),
        nri_request_s=float(one("plugin-requst-timeout", default.nri_request_s)),
    )


def _socket(text: str, path: str) -> str:
    """The path in ``unix:///path``."""
    if not text:
        return ""
    found = text.removeprefix("unix://")
    if not text.startswith("unix:///") or len(found.encode()) > _SOCKET_PATH:
        raise errors.InvalidArgument(
            f"{path}: cri-socket must be unix:///absolute/path of at most {_SOCKET_PATH} bytes, "
            f"it is {text}",
            ref="cri-socket",
        )
    return found


def _folders(text: str, path: str) -> tuple[str, ...]:
    """Directories, separated by commas or colons."""
    found = tuple(item for item in re.split("[,:]", text) if item)
    for item in found:
        if not item.startswith("/"):
            raise errors.InvalidArgument(
                f"{path}: cni-bin-dir must name absolute directories, not {item}",
                ref="cni-bin-dir",
            )
    return found
