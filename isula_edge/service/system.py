"""``version`` and ``info``: the engine and the machine it runs on."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from isula_edge.cgroup.stats import page_sizes
from isula_edge.container.record import Status
from isula_edge.service import runtimes
from isula_edge.version import API_VERSION, COMMIT, OCI_RUNTIME_SPEC, VERSION

if TYPE_CHECKING:
    from isula_edge.service.engine import Engine

__all__ = ["info", "version"]

_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
_SECRET = re.compile(r"//[^/@]*@")


def version(engine: Engine) -> dict[str, Any]:
    """Versions of the engine and its interfaces."""
    host = os.uname()
    return {
        "version": VERSION,
        "commit": COMMIT,
        "built": "",
        "os": "linux",
        "arch": engine.profile.architecture,
        "kernel": host.release,
        "api": API_VERSION,
        "oci": {"version": OCI_RUNTIME_SPEC, "default_file": ""},
    }


def info(engine: Engine) -> dict[str, Any]:
    """Counts, drivers, the machine, and what it lacks."""
    states = [container.state.status for container in engine.table]
    host = os.uname()
    found: dict[str, Any] = {
        "containers": len(states),
        "running": states.count(Status.RUNNING) + states.count(Status.STARTING),
        "paused": states.count(Status.PAUSED),
        "stopped": states.count(Status.CREATED) + states.count(Status.EXITED),
        "images": len(engine.images.store),
        "server_version": VERSION,
        "storage_driver": engine.layers.driver.name,
        "storage_status": [list(pair) for pair in engine.layers.driver.status()],
        "logging_driver": "json-file",
        "cgroup_driver": "cgroupfs",
        "cgroup_version": engine.cgroups.version,
        "hugetlb_pagesizes": list(page_sizes()),
        "kernel_version": host.release,
        "kernel_status": engine.verdict.status.value,
        "kernel_verdict": engine.verdict.summary,
        "operating_system": _operating_system(),
        "os_type": "linux",
        "architecture": host.machine,
        "cpus": os.cpu_count() or 1,
        "total_memory": _total_memory(),
        "name": host.nodename,
        "root_dir": engine.config.graph,
        "default_runtime": engine.default_runtime,
        "runtimes": sorted(engine.runtimes),
        "runtime_details": runtimes.details(engine.runtimes),
        "registry_mirrors": list(engine.config.registry_mirrors),
        "quarantined": engine.quarantined(),
        "degraded": [
            {"feature": item.name, "state": item.state.value, "without": item.without}
            for item in engine.degraded()
        ],
        "emulators": engine.platforms.emulators(),
        "warnings": list(engine.warnings),
    }
    for name in _PROXIES:
        value = os.environ.get(name) or os.environ.get(name.upper())
        if value:
            found[name] = _SECRET.sub("//xxxx:xxxx@", value)
    return found


def _operating_system() -> str:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8") as file:
                for line in file:
                    if line.startswith("PRETTY_NAME="):
                        return line.partition("=")[2].strip().strip('"')
        except OSError:
            continue
    return "unknown"


def _total_memory() -> int:
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
    return 0
