"""Runs the harness so that nothing it started outlives it: processes, mounts, network, cgroups.

Whatever loses its parent below this process becomes its child, so that every process of every
engine is found by descent, and ended by its id.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from benchmarks import process, tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["enter", "main", "run", "settle_in"]

_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE_S = 300


def enter(
    document: dict[str, Any],
    output: Path,
    parent: str,
    root: Path,
    packages: Sequence[Path] = (),
) -> NoReturn:
    """Becomes the sandbox with a new work folder in ``parent``.

    It runs the module ``document["harness"]`` with the path of a file that holds ``document``
    and, beside it, ``name``, ``work`` and ``output``.

    On the interpreter's own file the harness would share pages with an engine written in
    Python, and make its proportional memory look smaller than it is: the harness gets a copy,
    also of the ``packages`` that it needs beside the standard library.
    """
    work = Path(tempfile.mkdtemp(prefix="isula-bench.", dir=parent))
    python = work / "harness" / "bin" / "python"
    python.parent.mkdir(parents=True)
    original = Path(sys.executable).resolve()
    shutil.copy(original, python)
    (work / "harness" / "pyvenv.cfg").write_text(f"home = {original.parent}\n")
    library = work / "harness" / "lib"
    library.mkdir()
    for package in packages:
        copy = shutil.copytree if package.is_dir() else shutil.copy
        copy(package, library / package.name)
    output = output.absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    path = work / "settings.json"
    own = {"name": f"isula-bench-{os.getpid()}", "work": str(work), "output": str(output)}
    path.write_text(json.dumps({**document, **own}))
    places = os.pathsep.join(map(str, (root, root / "cri", library)))
    environment = {**os.environ, "PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1"}
    words = [str(python), "-m", "benchmarks.sandbox", str(path)]
    os.execve(words[0], words, environment)


def settle_in() -> None:
    """For a harness that begins: SIGCHLD is blocked, and SIGTERM an interruption.

    It gets folders of its own where engines keep sockets and locks.
    """
    _private_places()
    process.prepare()
    signal.signal(signal.SIGTERM, _interrupted)


def run(harness: Callable[[str], int]) -> NoReturn:
    """Ends with what ``harness`` gives for the settings file that the command line names."""
    try:
        sys.exit(harness(sys.argv[1]))
    except KeyboardInterrupt as e:
        sys.exit(f"interrupted: {e}")


def _interrupted(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _private_places() -> None:
    for place in ("/run", "/dev/shm"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "bench", place], check=True)


def _become_subreaper() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl: PR_SET_CHILD_SUBREAPER")


@contextlib.contextmanager
def _network(name: str) -> Iterator[list[str]]:
    """A network namespace with nothing but lo: the words before a command that enters it."""
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        # not "ip netns exec", which mounts another /sys that lacks the cgroups
        yield ["nsenter", f"--net=/run/netns/{name}"]
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


def _reap_until(pid: int) -> int:
    """Waits for one child, and reaps all that were left to us: its exit status."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


def _forward(pid: int) -> None:
    """Passes the wish to end on to the harness, and kills it when it takes too long."""

    def ask(_number: int, _frame: object) -> None:
        signal.alarm(_PATIENCE_S)
        os.kill(pid, signal.SIGTERM)

    def kill(_number: int, _frame: object) -> None:
        os.kill(pid, signal.SIGKILL)

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGALRM, kill)


def _end_processes() -> list[str]:
    """Kills every process that is still below us: their names."""
    names: list[str] = []
    for _ in range(200):
        left = tree.descendants(os.getpid())
        if not left:
            break
        for pid, other in left.items():
            names.append(other.name)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.05)
    return sorted(set(names))


def _remove_cgroups(name: str) -> None:
    """Removes the engines' cgroups, the innermost first, in every hierarchy."""
    for parent, folders, _ in os.walk("/sys/fs/cgroup"):
        for folder in [folder for folder in folders if folder.startswith(f"{name}-")]:
            for path, _, _ in os.walk(os.path.join(parent, folder), topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(path)


def main(path: str) -> int:
    """Runs the harness on the settings file at ``path``: its exit status."""
    settings = json.loads(Path(path).read_text())
    name, work = settings["name"], settings["work"]
    _become_subreaper()
    try:
        with _network(name) as prefix:
            # mounts of the engines vanish with the last process in this mount namespace
            words = ["unshare", "--mount", "--propagation", "private", *prefix]
            harness = [*words, sys.executable, "-m", settings["harness"], path]
            child = subprocess.Popen(harness, stdin=subprocess.DEVNULL, start_new_session=True)
            _forward(child.pid)
            status = _reap_until(child.pid)
            child.returncode = status
            signal.alarm(0)
            left = _end_processes()
    finally:
        _remove_cgroups(name)
        shutil.rmtree(work, ignore_errors=True)
    if left:
        print(f"ended what the engines left behind: {', '.join(left)}", file=sys.stderr)
    if os.path.exists(work):
        print(f"could not be removed: {work}", file=sys.stderr)
    return status if status >= 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
