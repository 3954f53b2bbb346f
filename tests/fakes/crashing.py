"""An isulad that loses its power, or is killed, at the Nth step that changes something.

Its processes run ``isula_edge`` as it is; around the calls by which anything gets onto a
disk (rename, fsync, syncfs, unlink …) stands a count.  At the step that a test has chosen,
just before it is done, the file system of the graph forgets all that it has not been told to
keep (:func:`tests.fakes.disk.cut_power`), and the daemon and its worker are killed.

Without loss of power nothing is forgotten, the daemon alone is killed, and mounts,
namespaces and the starts of programs are steps too, before and after.  Or one thread of it
is held at the step, while the rest goes on.

Run as a program: ``python -m tests.fakes.crashing PLAN [words of isulad]``.  PLAN is a file
that :class:`Plan` writes; the same file of steps counts for daemon and workers.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Plan", "arm", "main"]

_ROOT = str(Path(__file__).parents[2])
_CALLS = ("fdatasync", "fsync", "link", "mkdir", "rename", "replace", "rmdir", "symlink", "unlink")


class Plan:
    """The test's side: which places count, and at which step the end comes (0: never).

    The power is that of the first place; ``power=False`` leaves it on.
    """

    def __init__(self, path: Path, *places: Path, power: bool = True) -> None:
        self.path, self.places, self.power = path, places, power
        self.log = path.with_suffix(".steps")
        self.held = path.with_suffix(".held")
        """There while a thread is held."""
        self.arm(0)

    def release(self) -> None:
        """Lets the thread that is held go on."""
        self.held.unlink(missing_ok=True)

    def arm(self, step: int, *, hold: bool = False) -> None:
        """Begins to count at 1; the end comes just before ``step``.

        With ``hold`` the thread waits there for :meth:`release`, unless it is the main one.
        """
        self.step = step
        if step:
            self.release()
            self.log.write_bytes(b"")
        places = [f"{place}/" for place in self.places]
        plan = {"places": places, "log": self.log.name, "step": step, "power": self.power}
        plan["hold"] = self.held.name if hold else ""
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(plan))
        beside.replace(self.path)
        if not step:
            # who is released goes on counting, and must not be held again
            self.log.write_bytes(b"")
            self.release()

    def command(self, words: list[str], at: int) -> list[str]:
        """``words``, whose isulad is at index ``at``, with one that counts instead."""
        own = [sys.executable, "-m", "tests.fakes.crashing", str(self.path)]
        return [*words[:at], *own, *words[at + 1 :]]

    @property
    def steps(self) -> list[str]:
        """What was counted."""
        return self.log.read_text().splitlines()


class _Counter:
    """The side of the process that loses its power."""

    def __init__(self, path: str, daemon: int) -> None:
        # a thread may have another root by then
        self._folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        self._name = os.path.basename(path)
        self._daemon = daemon

    def plan(self) -> dict[str, Any]:
        """What :meth:`Plan.arm` has written last."""
        with open(os.open(self._name, os.O_RDONLY, dir_fd=self._folder), "rb") as file:
            found: dict[str, Any] = json.load(file)
        return found

    def step(self, call: str, what: str, *, anywhere: bool = False) -> None:
        """Counts one step, which may be the last thing that happens."""
        plan = self.plan()
        place = next((place for place in plan["places"] if what.startswith(place)), "")
        if not place and not anywhere:
            return
        fd = os.open(plan["log"], os.O_RDWR | os.O_APPEND, dir_fd=self._folder)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.write(fd, f"{call} {what.removeprefix(place)}\n".encode())
            count = os.pread(fd, 1 << 20, 0).count(b"\n")
            if count == plan["step"] and not plan["hold"]:
                _die(plan["places"][0] if plan["power"] else "", self._daemon)
        finally:
            os.close(fd)
        if count == plan["step"] and threading.current_thread() is not threading.main_thread():
            self._wait(plan["hold"])

    def _wait(self, name: str) -> None:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=self._folder))
        with contextlib.suppress(FileNotFoundError):
            while os.stat(name, dir_fd=self._folder):
                time.sleep(0.005)


def _die(graph: str, daemon: int) -> None:
    if graph:
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
    if not counter.plan()["power"]:
        _arm_more(counter)


def _arm_more(counter: _Counter) -> None:
    """Counts what changes something without a file system that keeps it."""
    from isula_edge.sys import syscalls

    def around(name: str, module: Any, subject: int) -> None:
        real = getattr(module, name)

        def call(*args: Any, **more: Any) -> Any:
            what = os.fsdecode(args[subject]) if subject >= 0 else ""
            counter.step(name, what, anywhere=True)
            found = real(*args, **more)
            counter.step(f"after {name}", what, anywhere=True)
            return found

        setattr(module, name, call)

    around("mount", syscalls, 1)
    around("umount", syscalls, 0)
    around("unshare", syscalls, -1)
    around("posix_spawn", os, 0)


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
