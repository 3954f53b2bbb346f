"""Memory of an engine that has the machine to itself: idle, and with containers."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any

from benchmarks import tree

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.config import Config
    from benchmarks.engines import Engine

__all__ = ["measure"]


def measure(engine: Engine, config: Config, root: int) -> dict[str, Any]:
    """Memory of a started engine's daemons, idle and busy, and of what each container adds.

    Everything below ``root`` outside of the containers, except for the harness, is the
    engine's; what it has when idle are its daemons.  Podman's are none.
    """
    tree.settle(root)
    daemons = set(_processes(root))
    idle = _table(daemons)
    for _ in range(config.memory_shim_count):
        name = secrets.token_hex(8)
        flags = engine.create_flags
        engine.ok("run", "-d", "--name", name, *flags, config.image_name, *config.start_cmd)
    calm = tree.settle(root)
    now = _processes(root)
    added = [pid for pid in now if pid not in daemons]
    count = max(config.memory_shim_count, 1)
    total = sum((tree.memory(pid) for pid in added), tree.Memory())
    sharers = _sharers(now, root)
    names = sorted(now[pid] for pid in added)
    return {
        "containers": config.memory_shim_count,
        "calm": calm,
        "sharers": sharers,
        "idle_kib": idle,
        "busy_kib": _table(daemons),
        "per_container_kib": {
            "rss": total.rss / count,
            "pss": total.pss / count,
            "uss": total.uss / count,
        },
        "per_container_processes": {name: names.count(name) / count for name in set(names)},
    }


def _processes(root: int) -> dict[int, str]:
    """Processes of the engine and their names."""
    return {
        pid: process.name
        for pid, process in tree.descendants(root).items()
        if pid != os.getpid() and tree.in_own_namespace(pid)
    }


def _sharers(pids: Iterable[int], root: int) -> list[int]:
    """Processes of others that run the same programs, so that PSS looks smaller than it is."""
    mine = tree.descendants(root).keys() | {root}
    programs = {tree.program(pid) for pid in pids}
    others = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in others if pid not in mine and tree.program(pid) in programs - {None}]


def _table(pids: Iterable[int]) -> dict[str, Any]:
    """Memory of all, in KiB."""
    total = sum((tree.memory(pid) for pid in pids), tree.Memory())
    return {"rss": total.rss, "pss": total.pss, "uss": total.uss}
