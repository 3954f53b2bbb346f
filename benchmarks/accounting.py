"""What an engine and all that it starts use, short-lived processes too: CPU time and number."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import tree

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CpuGroup", "Ended", "Spawned", "below", "parse", "spawned"]

_V1 = Path("/sys/fs/cgroup/cpuacct")
_V2 = Path("/sys/fs/cgroup")
_RECORD = struct.Struct("<16x2I24x16s")
"""acct(5), version 3: of all fields the pid, its parent's and the name."""


class CpuGroup:
    """A cgroup that counts the CPU time of whatever runs in it and below it."""

    def __init__(self, name: str) -> None:
        self._v1 = _V1.exists()
        self._folder = (_V1 if self._v1 else _V2) / name
        self._leaf = self._folder / "engine"
        self._leaf.mkdir(parents=True, exist_ok=True)

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words before a command that is to run in it."""
        script = f'echo $$ > {self._leaf}/cgroup.procs && exec "$@"'
        return ("/bin/sh", "-c", script, "sh")

    def used_s(self) -> float:
        """CPU time so far."""
        if self._v1:
            return int((self._folder / "cpuacct.usage").read_text()) / 1e9
        words = (self._folder / "cpu.stat").read_text().split()
        return int(words[words.index("usage_usec") + 1]) / 1e6


class Ended(NamedTuple):
    """A process that has ended, with the parent it had then."""

    pid: int
    parent: int
    name: str


class Spawned:
    """Names of the processes that were started meanwhile."""

    def __init__(self) -> None:
        self.names: list[str] = []


def parse(data: bytes) -> list[Ended]:
    """Records of a file that the kernel's process accounting wrote."""
    whole = len(data) // _RECORD.size * _RECORD.size
    return [
        Ended(pid, parent, name.partition(b"\0")[0].decode(errors="replace"))
        for pid, parent, name in _RECORD.iter_unpack(data[:whole])
    ]


def below(ended: list[Ended], roots: set[int]) -> list[Ended]:
    """Those that descend from ``roots``, through others that have ended if need be."""
    known = set(roots)
    found: list[Ended] = []
    rest = ended
    while True:
        mine = [process for process in rest if process.parent in known]
        if not mine:
            return found
        found += mine
        rest = [process for process in rest if process.parent not in known]
        known.update(process.pid for process in mine)


@contextlib.contextmanager
def spawned(root: int, file: Path) -> Iterator[Spawned]:
    """Counts the processes below ``root`` that are started inside, with what these start.

    OSError where the kernel has no process accounting.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    found = Spawned()
    before = tree.descendants(root)
    file.write_bytes(b"")
    if libc.acct(os.fsencode(file)) != 0:
        raise OSError(ctypes.get_errno(), "acct")
    try:
        yield found
    finally:
        libc.acct(None)
    after = tree.descendants(root)
    ended = below(parse(file.read_bytes()), {root, *before, *after})
    found.names = [process.name for process in ended if process.pid not in before]
    found.names += [process.name for pid, process in after.items() if pid not in before]
