"""Memory of an engine that has the machine to itself: idle, and with containers."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any

from benchmarks import tree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from benchmarks.config import Config
    from benchmarks.engines import Engine

__all__ = ["around", "measure"]


def measure(engine: Engine, config: Config, root: int) -> dict[str, Any]:
    """Memory of a started engine's daemons, idle and busy, and of what each container adds."""

    def run() -> None:
        for _ in range(config.memory_shim_count):
            name = secrets.token_hex(8)
            flags = engine.create_flags
            engine.ok("run", "-d", "--name", name, *flags, config.image_name, *config.start_cmd)

    return around(run, config.memory_shim_count, root)


def around(
    run: Callable[[], None], containers: int, root: int, inside: Collection[str] = ()
) -> dict[str, Any]:
    """The same where ``run`` starts that many containers.

    Everything below ``root`` outside of the containers, except for the harness, is the
    engine's; what it has when idle are its daemons.  Podman's are none.  Processes in
    containers whose names are in ``inside`` count as well.
    """
    tree.settle(root)
    daemons = set(_processes(root, inside))
    idle = _table(daemons)
    run()
    calm = tree.settle(root)
    now = _processes(root, inside)
    added = [pid for pid in now if pid not in daemons]
    count = max(containers, 1)
    total = sum((tree.memory(pid) for pid in added), tree.Memory())
    sharers = _sharers(now, root)
    names = sorted(now[pid] for pid in added)
    return {
        "containers": containers,
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


def _processes(root: int, inside: Collection[str]) -> dict[int, str]:
    """Processes of the engine and their names."""
    return {
        pid: process.name
        for pid, process in tree.descendants(root).items()
        if pid != os.getpid() and (process.name in inside or tree.in_own_namespace(pid))
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
