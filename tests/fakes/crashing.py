"""An isulad that loses its power at the Nth step that makes something durable.

Its processes run ``isula_edge`` as it is; around the calls by which anything gets onto a
disk (rename, fsync, syncfs, unlink …) stands a count.  At the step that a test has chosen,
just before it is done, the file system of the graph forgets all that it has not been told to
keep (:func:`tests.fakes.disk.cut_power`), and the daemon and its worker are killed.

Run as a program: ``python -m tests.fakes.crashing PLAN [words of isulad]``.  PLAN is a file
that :class:`Plan` writes; the same file of steps counts for daemon and workers.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Plan", "arm", "main"]

_ROOT = str(Path(__file__).parents[2])
_CALLS = ("fdatasync", "fsync", "link", "mkdir", "rename", "replace", "rmdir", "symlink", "unlink")


class Plan:
    """The test's side: where the graph is, and at which step its power goes (0: never)."""

    def __init__(self, path: Path, graph: Path) -> None:
        self.path, self.graph = path, graph
        self.log = path.with_suffix(".steps")
        self.arm(0)

    def arm(self, step: int) -> None:
        """Begins to count at 1; the power goes just before ``step``."""
        self.log.write_bytes(b"")
        plan = {"graph": f"{self.graph}/", "log": str(self.log), "step": step}
        self.path.write_text(json.dumps(plan))

    @property
    def steps(self) -> list[str]:
        """What was counted."""
        return self.log.read_text().splitlines()


class _Counter:
    """The side of the process that loses its power."""

    def __init__(self, path: str, daemon: int) -> None:
        self._path = path
        self._daemon = daemon

    def step(self, call: str, what: str) -> None:
        """Counts one step, which may be the last thing that happens."""
        plan = json.loads(Path(self._path).read_text())
        if not what.startswith(plan["graph"]):
            return
        fd = os.open(plan["log"], os.O_RDWR | os.O_APPEND)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.write(fd, f"{call} {what.removeprefix(plan['graph'])}\n".encode())
            count = os.pread(fd, 1 << 20, 0).count(b"\n")
            if count == plan["step"]:
                _die(plan["graph"], self._daemon)
        finally:
            os.close(fd)


def _die(graph: str, daemon: int) -> None:
    from tests.fakes.disk import cut_power

    cut_power(graph)
    for pid in (daemon, os.getpid()):
        os.kill(pid, signal.SIGKILL)
    signal.pause()


def arm(path: str, daemon: int) -> None:
    """Puts the count around this process's calls."""
    from isula_edge.sys import syscalls

    counter = _Counter(path, daemon)

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(subject: Any, *args: Any, **more: Any) -> Any:
            where = os.readlink(f"/proc/self/fd/{subject}") if isinstance(subject, int) else subject
            # what is named relative to a descriptor is a file of a tree that is being removed
            if "dir_fd" not in more:
                counter.step(name, os.fsdecode(where))
            return real(subject, *args, **more)

        return call

    for name in _CALLS:
        setattr(os, name, counted(name, getattr(os, name)))
    syscalls.syncfs = counted("syncfs", syscalls.syncfs)


def main(words: list[str]) -> int:
    """Runs isulad; its workers count too."""
    from isula_edge.daemon import main as daemon
    from isula_edge.sys import process

    path = words.pop(0)
    real = process.python_command

    def command(module: str) -> list[str]:
        found = real(module)
        if module == "isula_edge.image.worker":
            head = f"import sys;sys.path[:0]={[_ROOT]!r};from tests.fakes.crashing import arm"
            found[-1] = f"{head};arm({path!r},{os.getpid()});{found[-1]}"
        return found

    process.python_command = command
    arm(path, os.getpid())
    return daemon.main(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
