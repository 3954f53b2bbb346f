"""Facts about the machine and the versions of the engines."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import process
from benchmarks.engines import PATH, EngineError, find

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.engines import Engine

__all__ = ["cgroup_version", "facts", "versions"]

_PARTS = {
    "isula": ("lxc-start", "conmon"),
    "isula-runc": ("runc", "conmon"),
    "docker": ("dockerd", "containerd", "runc"),
    "podman": ("conmon", "runc"),
    "containerd": ("containerd", "runc"),
}


def facts() -> dict[str, Any]:
    """What figures depend on."""
    return {
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "cpu": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "architecture": platform.machine(),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "cgroup": cgroup_version(Path("/proc/self/mountinfo").read_text()),
        "distribution": _field("/etc/os-release", "PRETTY_NAME", "="),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
    }


def _field(path: str, key: str, separator: str = ":") -> str:
    """Value of the first line with this key."""
    try:
        text = Path(path).read_text(errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        name, _, value = line.partition(separator)
        if name.strip() == key:
            return value.strip().strip('"')
    return ""


def cgroup_version(mountinfo: str) -> str:
    """v1, v2, or hybrid where version 2 holds no controllers."""
    types = [line.partition(" - ")[2].split()[:1] for line in mountinfo.splitlines()]
    if ["cgroup"] in types:
        return "hybrid" if ["cgroup2"] in types else "v1"
    return "v2" if ["cgroup2"] in types else "none"


def versions(engine: Engine, programs: Mapping[str, str]) -> dict[str, str]:
    """Versions of the engine and of the programs below it, as they say themselves."""
    number = re.search(r"Version:\s+(\S+)", engine.run("version").out)
    found = {engine.name.partition("-")[0]: number[1] if number else "unknown"}
    environment = {"PATH": PATH}
    for name in _PARTS[engine.name]:
        try:
            path = find(name, programs)
        except EngineError:
            continue
        said = process.capture((path, "--version"), environment, 30)
        first = (said.out or said.err).strip().partition("\n")[0]
        number = re.search(r"\d+\.\S+", first)
        found[name] = number[0].rstrip(",") if number else first
    return found
