"""What an administrator decides, checked and in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from isula_edge.snapshot.base import StorageOptions

__all__ = ["CriConfig", "EngineConfig", "RuntimeConfig"]


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """A runtime of the administrator's.

    ``path`` is absolute or a name to be found in PATH; ``args`` go before the command.
    ``type`` is "oci" (a command line) or "shim" (containerd's shim of version 2), to which
    ``options`` belong, named as containerd does (``ConfigPath``, ``BinaryName`` …).  With ``vm``
    the container is in a virtual machine.  ``timeout_s`` is for one command, 0 being the default.
    """

    path: str
    args: tuple[str, ...] = ()
    type: str = "oci"
    options: dict[str, Any] = field(default_factory=dict)
    vm: bool = False
    timeout_s: float = 0.0


@dataclass(frozen=True, slots=True)
class CriConfig:
    """What Kubernetes needs.

    ``socket`` is a socket for the CRI alone ('' is none), ``eager`` loads the CRI at the
    start instead of at the first connection.  ``handlers`` maps a RuntimeClass handler to a
    runtime.  Times are seconds.
    """

    socket: str = ""
    eager: bool = False
    handlers: dict[str, str] = field(default_factory=dict)
    pod_sandbox_image: str = ""
    cni_conf_dir: str = "/etc/cni/net.d"
    cni_bin_dirs: tuple[str, ...] = ("/opt/cni/bin", "/usr/lib/cni")
    cni_cache_dir: str = "/var/lib/cni"
    stream_address: str = "127.0.0.1"
    stream_port: int = 0
    stream_cert: str = ""
    stream_key: str = ""
    cdi: bool = True
    cdi_dirs: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")
    nri: bool = False
    nri_socket: str = "/var/run/nri/nri.sock"
    nri_connections: bool = True
    nri_plugin_dir: str = "/opt/nri/plugins"
    nri_config_dir: str = "/etc/nri/conf.d"
    nri_registration_s: float = 5.0
    nri_request_s: float = 2.0


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Settings of one engine; '' and empty mean "the default of this machine"."""

    graph: str = "/var/lib/isulad"
    state: str = "/var/run/isulad"
    storage_driver: str = ""
    storage_options: StorageOptions = field(default_factory=StorageOptions)
    default_runtime: str = ""
    runtimes: dict[str, RuntimeConfig] = field(default_factory=dict)
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    registry_host_mirrors: dict[str, tuple[str, ...]] = field(default_factory=dict)
    clock_timeout_s: float = 600.0
    insecure_skip_verify: bool = False
    certs_dir: str = "/etc/isulad/certs.d"
    auth_file: str = "/root/.isulad/config.json"
    max_concurrent_downloads: int = 0
    max_download_rate: int = 0
    cgroup_parent: str = "/isulad"
    systemd_cgroup: bool = False
    default_ulimits: tuple[tuple[str, int, int], ...] = ()
    hook_spec: str = ""
    start_timeout_s: float = 0.0
    seccomp_profile: str = ""
    log_max_size: int = 0
    tmpdir: str = ""
    image_gc_high: int = 0
    image_gc_low: int = 0
    image_gc_min_age: float = 120.0
    image_layer_check: bool = False
    logging: dict[str, Any] = field(default_factory=dict)
    cri: CriConfig = field(default_factory=CriConfig)
