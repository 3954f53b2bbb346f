"""The namespaces of a pod: made by the engine, pinned by bind mounts, without a process.

A thread of the engine enters new namespaces and binds its ``/proc`` entries onto files; it
ends afterwards and the namespaces stay.  A pod with a user namespace needs a helper
process for that moment, and one process id namespace for all containers needs a process
for as long as the pod lives (:mod:`isula_edge.pod.pause`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, TypeVar, cast

from isula_edge import errors
from isula_edge.helper.pod_namespaces import enter, start_pause
from isula_edge.pod import pause
from isula_edge.sys import process, syscalls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from isula_edge.pod.record import IdMap

__all__ = [
    "Made",
    "Request",
    "connect",
    "end_pause",
    "make",
    "network_path",
    "paths",
    "pinned",
    "release",
]

T = TypeVar("T")
_FILES = {"network": "net", "ipc": "ipc", "uts": "uts", "user": "user"}
_NETNS = "/var/run/netns"
_END_S = 5.0
"""What is killed takes a few milliseconds, but for one that waits for a disk."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to make.  ``kinds`` are runtime-spec types; ``folder`` is on tmpfs.

    ``share_pid`` asks for a process id namespace that containers share.
    """

    pod: str
    folder: str
    kinds: tuple[str, ...]
    hostname: str
    sysctls: Mapping[str, str]
    share_pid: bool = False
    uid_maps: Sequence[IdMap] = ()
    gid_maps: Sequence[IdMap] = ()


@dataclass(slots=True)
class Made:
    """Runtime-spec type to the file that pins it; ``pause`` holds a shared pid namespace."""

    paths: dict[str, str] = field(default_factory=dict)
    pause: process.Identity | None = None


def network_path(pod_id: str) -> str:
    """Where a pod's network namespace is pinned: where daemons of CNI plugins look for it."""
    return f"{_NETNS}/isulacni-{pod_id[:32]}"


def paths(pod_id: str, folder: str) -> dict[str, str]:
    """Where each namespace of a pod would be pinned, by runtime-spec type."""
    found = {kind: f"{folder}/ns/{file}" for kind, file in _FILES.items()}
    return {**found, "network": network_path(pod_id)}


def end_pause(pod_id: str) -> None:
    """Ends the pause process of a pod, which a crash may have left unrecorded."""
    wanted = f"/pause\0{pod_id}\0".encode()
    process.end_all("cmdline", lambda found: found == wanted, 256)


def make(request: Request) -> Made:
    """Makes and pins namespaces; blocks.  What fails leaves nothing behind."""
    made = Made()
    try:
        if request.uid_maps:
            pid = _with_users(request, made)
        else:
            pid = in_thread(lambda: _in_thread(request, made))
        made.pause = process.identify(pid) if pid else None
    except OSError as error:
        release(made.paths, made.pause)
        raise errors.Internal(
            f"cannot make the namespaces of pod {request.pod[:12]}: {error}", kind="pod"
        ) from error
    except BaseException:
        release(made.paths, made.pause)
        raise
    return made


def release(paths: Mapping[str, str | None], holder: process.Identity | None) -> None:
    """Ends what :func:`make` made, and waits for ``holder``; gone already is fine."""
    if holder is not None:
        process.signal_process(holder, signal.SIGKILL)
    for path in paths.values():
        if path is not None:
            with contextlib.suppress(OSError):
                syscalls.umount(path, syscalls.MNT_DETACH)
            with contextlib.suppress(OSError):
                os.unlink(path)
    # until then its cgroup cannot be removed
    deadline = time.monotonic() + _END_S
    while holder is not None and holder.alive() and time.monotonic() < deadline:
        time.sleep(0.002)


def pinned(path: str) -> bool:
    """Whether a namespace is pinned at ``path``: a file of the kernel's own file system."""
    try:
        # before Linux 3.8 there is no ns/mnt
        return os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev
    except OSError:
        return False


def connect(netns: str | None, work: Callable[[], T]) -> T:
    """What ``work`` gives in the network namespace pinned at ``netns``; None is the host's."""
    if netns is None:
        return work()

    def inside() -> T:
        _join(netns, syscalls.CLONE_NEWNET)
        return work()

    return in_thread(inside)


def in_thread(work: Callable[[], T]) -> T:
    """What ``work`` gives in a thread that ends with it, and its namespaces with the thread."""
    found: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # noqa: BLE001  # raised again by the caller
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return found[0]


def _join(path: str, kind: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(fd, kind)
    finally:
        os.close(fd)


def _in_thread(request: Request, made: Made) -> int:
    """The pid of the process that holds a shared pid namespace, or 0."""
    kinds = list(request.kinds)
    if kinds:
        enter(kinds, request.hostname, request.sysctls)
    # /proc/thread-self is there since Linux 3.17 only
    _pin(request, made, kinds, f"/proc/self/task/{threading.get_native_id()}/ns")
    if not request.share_pid:
        return 0
    return start_pause(_pause_root(request), pause.build(), request.pod)


def _pin(request: Request, made: Made, kinds: Sequence[str], source: str) -> None:
    places = paths(request.pod, request.folder)
    for kind in kinds:
        path = places[kind]
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o444))
        made.paths[kind] = path
        syscalls.mount(f"{source}/{_FILES[kind]}", path, "none", syscalls.MS_BIND)


def _with_users(request: Request, made: Made) -> int:
    """As :func:`_in_thread`, with a helper process that has a user namespace."""
    kinds = list(request.kinds)
    root = program = ""
    if request.share_pid:
        root, program = _pause_root(request), f"{request.folder}/pause-program"
        with open(program, "wb") as file:
            file.write(pause.build())
    words = [request.hostname, ",".join(kinds), root, program]
    words += [f"{key}={value}" for key, value in request.sysctls.items()]
    with subprocess.Popen(
        [*process.python_command("isula_edge.helper.pod_namespaces"), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as helper:
        try:
            _next(helper)
            for name, maps in (("uid_map", request.uid_maps), ("gid_map", request.gid_maps)):
                text = "".join(f"{inside} {host} {size}\n" for inside, host, size in maps)
                with open(f"/proc/{helper.pid}/{name}", "w", encoding="ascii") as file:
                    file.write(text)
            _go(helper)
            _next(helper)
            _pin(request, made, [*kinds, "user"], f"/proc/{helper.pid}/ns")
            if not root:
                return 0
            _go(helper)
            return int(_next(helper))
        finally:
            helper.kill()


def _next(helper: subprocess.Popen[bytes]) -> str:
    line = cast("IO[bytes]", helper.stdout).readline()
    word, _, rest = line.decode().strip().partition(" ")
    if word == "refused":
        raise errors.InvalidArgument(rest, kind="sysctl")
    if word in ("", "failed"):
        number, _, why = rest.partition(" ")
        raise OSError(
            int(number or errno.ECHILD), f"no user namespace: {why or 'its helper has ended'}"
        )
    return word


def _go(helper: subprocess.Popen[bytes]) -> None:
    cast("IO[bytes]", helper.stdin).write(b"g")


def _pause_root(request: Request) -> str:
    """The directory that is to be the root of the pause process."""
    root = f"{request.folder}/pause"
    os.makedirs(root, 0o755, exist_ok=True)
    return root
