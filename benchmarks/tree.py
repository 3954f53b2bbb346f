"""Processes by descent: who they are, what they have used, and when they have calmed down."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Memory",
    "Process",
    "cpu_s",
    "descendants",
    "in_own_namespace",
    "memory",
    "program",
    "settle",
]

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_STEP_S = 0.1


@dataclass(frozen=True, slots=True)
class Process:
    """A line of the process table."""

    pid: int
    parent: int
    name: str
    state: str
    ticks: int  # CPU time of its own
    reaped_ticks: int  # CPU time of the children it has waited for


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in KiB: all, with shared pages divided by their users, and unshared."""

    rss: int = 0
    pss: int = 0
    uss: int = 0

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.rss + other.rss, self.pss + other.pss, self.uss + other.uss)


def _read(pid: int) -> Process:
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    head, _, tail = text.rpartition(") ")
    words = tail.split()
    user, system, reaped_user, reaped_system = map(int, words[11:15])
    return Process(
        pid=pid,
        parent=int(words[1]),
        name=head.partition("(")[2],
        state=words[0],
        ticks=user + system,
        reaped_ticks=reaped_user + reaped_system,
    )


def descendants(root: int) -> dict[int, Process]:
    """Every process below ``root`` that has not ended."""
    table: dict[int, Process] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                table[int(name)] = _read(int(name))
    children: dict[int, list[int]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process.pid)
    found: dict[int, Process] = {}
    waiting = [root]
    while waiting:
        for pid in children.get(waiting.pop(), []):
            waiting.append(pid)
            if table[pid].state not in "ZX":
                found[pid] = table[pid]
    return found


def cpu_s(pids: list[int]) -> float:
    """CPU time of these processes and of the children they have waited for."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            process = _read(pid)
            total += process.ticks + process.reaped_ticks
    return total / _TICKS_PER_S


def memory(pid: int) -> Memory:
    """Memory of one process; nothing when it has ended."""
    values: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            key, _, value = line.partition(":")
            values[key] = int(value.split()[0])
    private = values.get("Private_Clean", 0) + values.get("Private_Dirty", 0)
    return Memory(values.get("Rss", 0), values.get("Pss", 0), private)


def settle(root: int, patience_s: float = 15.0) -> bool:
    """Waits until the processes below ``root`` rest: whether they did in time.

    What an engine goes on doing after its client has ended must not be counted to the next.
    """
    deadline = time.monotonic() + patience_s
    before, calm = _usage(root), 0
    while time.monotonic() < deadline:
        time.sleep(_STEP_S)
        after = _usage(root)
        rests = 0 <= after[0] - before[0] <= 1 and after[1] == before[1]
        calm = calm + 1 if rests else 0
        if calm == 2:
            return True
        before = after
    return False


def _usage(root: int) -> tuple[int, frozenset[int]]:
    """CPU ticks of all processes below ``root``, and those of our own process namespace."""
    found = descendants(root)
    own = frozenset(pid for pid in found if in_own_namespace(pid))
    return sum(process.ticks for pid, process in found.items() if pid != os.getpid()), own


def program(pid: int) -> tuple[int, int] | None:
    """The file that a process runs, as its device and inode; None when it has ended."""
    try:
        status = os.stat(f"/proc/{pid}/exe")
    except OSError:
        return None
    return status.st_dev, status.st_ino


def in_own_namespace(pid: int) -> bool:
    """Whether a process is outside all containers."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
    except OSError:
        return False
