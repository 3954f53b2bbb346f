"""What a crash in the middle of a start leaves running, found by its id and ended.

The record says "not started", so nobody was told that the container runs, and nobody would
ever stop it.  A container whose record is damaged is another matter: it goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from typing import TYPE_CHECKING

from isula_edge.sys import process

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from isula_edge.cgroup import Host

__all__ = ["end_processes", "living", "run_dirs"]

_log = logging.getLogger(__name__)


def run_dirs(state: str, runtimes: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(runtime, container id) of every run directory."""
    for runtime in runtimes:
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(f"{state}/{runtime}")):
                if len(name) == 64:
                    yield runtime, name


def end_processes(container_id: str, group: str, cgroups: Host, *, shims: bool = True) -> int:
    """Kills the supervisor, its helpers and everything in ``group``; how many there were.

    Their command lines are known by the id, of which nobody else's has 64 digits.  Without
    ``shims`` servers of that kind are spared: one may serve other containers too.
    """
    count = 0
    for pid in _named(container_id):
        if shims or not _is_shim(pid):
            count += _kill(pid)
    for pid in cgroups.pids(group):
        count += _kill(pid)
    if count:
        _log.warning("container %s: ended %d processes of a start that failed", container_id, count)
    return count


def living(container_id: str) -> bool:
    """Whether a process of the container lives: its supervisor, or anything in its cgroup."""
    return next(_named(container_id, "cmdline", "cgroup"), None) is not None


def _is_shim(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).split(b"\0")[:2]
    except OSError:
        return False
    return any(os.path.basename(word).startswith(b"containerd-shim-") for word in words)


def _kill(pid: int) -> bool:
    found = process.identify(pid)
    return found is not None and process.signal_process(found, signal.SIGKILL)


def _named(word: str, *files: str) -> Iterator[int]:
    """Processes, one of whose ``files`` (their command line) has ``word`` in it."""
    wanted = word.encode()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            for kind in files or ("cmdline",):
                with contextlib.suppress(OSError), open(f"/proc/{name}/{kind}", "rb") as file:
                    if wanted in file.read():
                        yield int(name)
                        break
