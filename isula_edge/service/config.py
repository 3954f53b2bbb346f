"""What an administrator decides, checked and in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

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
    default_runtime: str = ""
    runtimes: dict[str, RuntimeConfig] = field(default_factory=dict)
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    insecure_skip_verify: bool = False
    certs_dir: str = "/etc/isulad/certs.d"
    max_concurrent_downloads: int = 0
    cgroup_parent: str = "/isulad"
    default_ulimits: tuple[tuple[str, int, int], ...] = ()
    hook_spec: str = ""
    seccomp_profile: str = ""
    log_max_size: int = 0
    tmpdir: str = ""
    logging: dict[str, Any] = field(default_factory=dict)
