"""What an administrator decides, checked and in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from isula_edge.snapshot.base import StorageOptions

__all__ = ["EngineConfig", "RuntimeConfig"]


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """An OCI runtime of the administrator's: program and arguments before the command."""

    path: str
    args: tuple[str, ...] = ()


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
    default_ulimits: tuple[tuple[str, int, int], ...] = ()
    hook_spec: str = ""
    seccomp_profile: str = ""
    log_max_size: int = 0
    tmpdir: str = ""
    image_gc_high: int = 0
    image_gc_low: int = 0
    image_gc_min_age: float = 120.0
    image_layer_check: bool = False
    logging: dict[str, Any] = field(default_factory=dict)
