"""Runs one command and watches, meanwhile, what its engine uses of memory and disk."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import process, tree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.disk import Disk

__all__ = ["Watched", "run"]

_STEP_S = 0.05


@dataclass(slots=True)
class Watched:
    """What a command did: times in seconds, memory in KiB, disk in bytes.

    ``synced_s`` is the time until all it wrote is on the device.  Memory is what the engine has
    beyond what it has at rest: ``pss_kib`` by samples of the proportional size, ``peak_kib`` by
    the kernel's high-water marks of resident size, summed up as if all came at once.
    """

    status: int = -1
    timed_out: bool = False
    wall_s: float = 0.0
    synced_s: float = 0.0
    pss_kib: int = 0
    peak_kib: int = 0
    written_bytes: int = 0
    used_bytes: int = 0
    peak_used_bytes: int = 0
    cpu_s: float = 0.0


def run(
    argv: Sequence[str],
    env: Mapping[str, str],
    disk: Disk,
    processes: Callable[[int], set[int]],
    *,
    timeout_s: float,
    log: str,
) -> Watched:
    """Runs ``argv``; ``processes`` gives the pids that count, told the one of the client."""
    found = Watched()
    idle = processes(-1)
    for pid in idle:
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the mark is now what it has
    rest = sum((tree.memory(pid) for pid in idle), tree.Memory())
    cpu = tree.cpu_s(list(idle))
    disk.sync()
    written, used = disk.written_bytes(), disk.used_bytes()
    marks: dict[int, int] = {}
    began = time.perf_counter()
    client = process.spawn(argv, env, log, log)
    while True:
        reaped, status, usage = os.wait4(client, os.WNOHANG)
        if reaped:
            break
        if time.perf_counter() - began > timeout_s and not found.timed_out:
            found.timed_out = True
            os.kill(client, signal.SIGKILL)
        _sample(found, marks, processes(client), disk.used_bytes() - used)
        signal.sigtimedwait({signal.SIGCHLD}, _STEP_S)
    found.wall_s = time.perf_counter() - began
    disk.sync()
    found.synced_s = time.perf_counter() - began
    # what the engine has not waited for yet has no CPU time
    tree.settle(os.getppid())
    found.status = os.waitstatus_to_exitcode(status)
    found.pss_kib -= rest.pss
    found.peak_kib = sum(marks.values()) - rest.rss
    found.written_bytes = disk.written_bytes() - written
    found.used_bytes = disk.used_bytes() - used
    found.peak_used_bytes = max(found.peak_used_bytes, found.used_bytes)
    found.cpu_s = tree.cpu_s(list(idle)) - cpu + usage.ru_utime + usage.ru_stime
    return found


def _sample(found: Watched, marks: dict[int, int], pids: set[int], used: int) -> None:
    found.pss_kib = max(found.pss_kib, sum(tree.memory(pid).pss for pid in pids))
    found.peak_used_bytes = max(found.peak_used_bytes, used)
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            text = Path(f"/proc/{pid}/status").read_text()
            marks[pid] = max(marks.get(pid, 0), int(text.split("VmHWM:")[1].split()[0]))
