"""``isula info``."""

from __future__ import annotations

__all__ = ["ARGUMENTS", "EXAMPLES", "MISCOUNT", "OPTIONS", "run"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from isula_cli.context import Context

OPTIONS = ()
ARGUMENTS = ()
MISCOUNT = ('"info" requires 0 arguments.', 1)
EXAMPLES = ("isula info",)

_AFTER_STORAGE = (
    ("Logging Driver", "logging_driver"),
    ("Cgroup Driver", "cgroup_driver"),
    ("Cgroup Version", "cgroup_version"),
    ("Hugetlb Pagesize", "hugetlb_pagesizes"),
    ("Kernel Version", "kernel_version"),
    ("Kernel Verdict", "kernel_verdict"),
    ("Operating System", "operating_system"),
    ("OSType", "os_type"),
    ("Architecture", "architecture"),
    ("CPUs", "cpus"),
    ("Total Memory", "total_memory"),
    ("Name", "name"),
    ("iSulad Root Dir", "root_dir"),
    ("Default Runtime", "default_runtime"),
    ("Runtimes", "runtimes"),
    ("Http Proxy", "http_proxy"),
    ("Https Proxy", "https_proxy"),
    ("No Proxy", "no_proxy"),
    ("Registry Mirrors", "registry_mirrors"),
    ("Quarantined", "quarantined"),
)
_COUNTS = (
    ("Containers", "containers"),
    (" Running", "running"),
    (" Paused", "paused"),
    (" Stopped", "stopped"),
    ("Images", "images"),
    ("Server Version", "server_version"),
    ("Storage Driver", "storage_driver"),
)


def run(ctx: Context, options: dict[str, Any], args: list[str]) -> int:
    """Print what the daemon says about itself, line by line."""
    info = ctx.client.info()
    lines = [f"{title}: {info.get(key, '')}" for title, key in _COUNTS]
    lines += [f" {key}: {value}" for key, value in info.get("storage_status", [])]
    for title, key in _AFTER_STORAGE:
        value = info.get(key)
        if value is None or value in ("", []):
            continue
        if key == "total_memory":
            value = f"{value / (1 << 30):.3g}GiB"
        lines.append(f"{title}: {', '.join(value) if isinstance(value, list) else value}")
        if key == "runtimes":
            lines += map(_runtime, info.get("runtime_details", []))
    for item in info.get("emulators", []):
        lost = "" if "F" in item.get("flags", "F") else ", without flag F: not inside containers"
        lines.append(f"Emulator: {item['arch']} ({item['path']}{lost})")
    for item in info.get("degraded", []):
        lines.append(f"Degraded: {item['feature']}: {item['state']}; without it: {item['without']}")
    ctx.out("\n".join(lines) + "\n")
    for text in info.get("warnings", []):
        ctx.err(f"WARNING: {text}\n")
    return 0


def _runtime(item: dict[str, Any]) -> str:
    """One line for a runtime: its type, its program, and why that cannot be run."""
    kind = f"{item['type']}, vm" if item["vm"] else item["type"]
    problem = item["problem"]
    return f" {item['name']}: {kind}, " + (f"unusable: {problem}" if problem else item["path"])
