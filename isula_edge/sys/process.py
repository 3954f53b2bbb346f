"""Child processes of the daemon, and who a process is.

Children are started with posix_spawn(3) (vfork inside), never with fork: a Python
daemon's page tables are too large to copy for every container.  One :class:`Reaper`
waits for all of them, and, as the daemon is a child subreaper, also for processes
that the daemon's children left behind (an exec's process, a supervisor).

A pid alone names nothing: :class:`Identity` adds the start time and the boot id.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isula_edge.sys import atomic
from isula_edge.sys.boot import boot_id
from isula_edge.sys.fds import write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from typing import Any

__all__ = [
    "Identity",
    "Reaper",
    "end_all",
    "exit_code",
    "gone",
    "identify",
    "note",
    "noted",
    "python_command",
    "signal_process",
    "spawn",
    "stat_fields",
]

_DRAIN_S = 1.0
_FIRST_LOOK_S, _LOOK_S = 0.01, 1.0
# what was ignored when the engine was started would be ignored by containers
_DEFAULTED = [number for number in range(1, 32) if number not in (signal.SIGKILL, signal.SIGSTOP)]
_CLEAN_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that cannot be mistaken for another: pid, start time in ticks, boot id."""

    pid: int
    start_ticks: int
    boot: str

    def alive(self) -> bool:
        """Whether this very process runs now (a zombie does not)."""
        if self.pid <= 0 or self.boot != boot_id():
            return False
        found = _stat(self.pid)
        return found is not None and found[1] == self.start_ticks and found[0] not in "ZX"


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and start time (field 22 of proc_pid_stat(5)) of ``pid``."""
    fields = stat_fields(pid)
    return (fields[0].decode(), int(fields[19])) if fields else None


def stat_fields(pid: int | str) -> list[bytes]:
    """What follows the name in /proc/PID/stat: state, parent …; nothing when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            data = file.read()
    except OSError:
        return []
    return data[data.rindex(b")") + 2 :].split()


def identify(pid: int) -> Identity | None:
    """The identity of the process that has ``pid`` now, or None."""
    found = _stat(pid)
    if found is None:
        return None
    return Identity(pid, found[1], boot_id())


def note(path: str, *found: Identity | None) -> None:
    """Writes down who somebody is, at a moment when the pid is surely theirs; None is nobody.

    ``path`` is on tmpfs: nothing of it outlives the boot.
    """
    lines = [f"{one.pid} {one.start_ticks} {one.boot}\n" for one in found if one is not None]
    atomic.write(path, "".join(lines).encode(), durable=False)


def noted(path: str) -> list[Identity]:
    """What :func:`note` wrote, alive or not; nothing where it has not."""
    try:
        with open(path, encoding="ascii") as file:
            words = [line.split() for line in file]
        return [Identity(int(pid), int(ticks), boot) for pid, ticks, boot in words]
    except (OSError, ValueError):
        return []


def end_all(file: str, is_wanted: Callable[[bytes], bool], most: int = -1) -> None:
    """Kills the processes of whose ``/proc/PID/<file>`` ``is_wanted`` says that they shall go.

    It gets the first ``most`` bytes of each, -1 being all.
    """
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            found = identify(int(name))
            with open(f"/proc/{name}/{file}", "rb") as opened:
                wanted = is_wanted(opened.read(most))
            if wanted and found is not None:
                signal_process(found, signal.SIGKILL)


def signal_process(process: Identity, number: int) -> bool:
    """Sends ``number`` to exactly this process; False when it is gone.

    Uses a pidfd (Linux 5.3) so that the pid cannot be reused between the check and the
    signal; on older kernels the start time is checked just before kill(2).
    """
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except OSError:
        fd = -1
    try:
        if not process.alive():
            return False
        if fd >= 0:
            signal.pidfd_send_signal(fd, number)
        else:
            os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    finally:
        if fd >= 0:
            os.close(fd)
    return True


def gone(
    process: Identity, after: Callable[[], asyncio.Future[None]] | None = None
) -> asyncio.Future[None]:
    """A future that ends with the process (pidfd, Linux 5.3).

    Older kernels do not tell: there the process is looked at, at intervals that grow to a
    second, and only once the future that ``after`` gives has ended (the end of somebody who
    would have told).
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        future.set_result(None)
        return future
    except OSError:
        return asyncio.ensure_future(_looked_for(process, after))

    def readable() -> None:
        loop.remove_reader(fd)
        if not future.done():
            future.set_result(None)

    def close(_: object) -> None:
        loop.remove_reader(fd)
        os.close(fd)

    if not process.alive():
        os.close(fd)
        future.set_result(None)
        return future
    loop.add_reader(fd, readable)
    future.add_done_callback(close)
    return future


async def _looked_for(process: Identity, after: Callable[[], asyncio.Future[None]] | None) -> None:
    if after is not None:
        await after()
    interval_s = _FIRST_LOOK_S
    while process.alive():
        await asyncio.sleep(interval_s)
        interval_s = min(2 * interval_s, _LOOK_S)


def spawn(
    argv: Sequence[str],
    *,
    stdin: int = -1,
    stdout: int = -1,
    stderr: int = -1,
    fds: Mapping[int, int] | None = None,
    env: Mapping[str, str] | None = None,
    new_session: bool = False,
) -> int:
    """Starts ``argv`` (its first word an absolute path) and returns the pid.

    A stream of -1 is /dev/null.  ``fds`` maps descriptor numbers of the child to ours.
    Everything else is closed in the child: the engine's descriptors are close-on-exec.
    Every signal is set to its default.  Raises OSError naming the program.
    """
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = []
    plan = {0: stdin, 1: stdout, 2: stderr, **(fds or {})}
    spare = []
    try:
        for number, source in plan.items():
            if source < 0:
                flags = os.O_RDONLY if number == 0 else os.O_WRONLY
                actions.append((os.POSIX_SPAWN_OPEN, number, "/dev/null", flags, 0))
            else:
                # a dup2 onto the same number would keep close-on-exec, and a target may
                # be the source of a later one: go through fresh numbers
                copy = os.dup(source)
                while copy <= max(plan):
                    spare.append(copy)
                    copy = os.dup(source)
                spare.append(copy)
                actions.append((os.POSIX_SPAWN_DUP2, copy, number))
        return os.posix_spawn(
            argv[0],
            list(argv),
            dict(env if env is not None else _CLEAN_ENV),
            file_actions=actions,
            setsid=new_session,
            setsigmask=[],
            setsigdef=_DEFAULTED,
        )
    except OSError as error:
        error.filename = error.filename or argv[0]
        raise
    finally:
        for fd in spare:
            os.close(fd)


def python_command(module: str) -> list[str]:
    """What runs ``main()`` of a module of ours in an interpreter of its own.

    Without site and environment: its start is waited for.  Words may follow.
    """
    path = [entry for entry in sys.path if entry]
    code = f"import sys;sys.path[:0]={path!r};from {module} import main;sys.exit(main())"
    return [sys.executable, "-IS", "-c", code]


def exit_code(status: int) -> int:
    """The shell's number for a wait status: 0-255, or 128 + signal."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


class Reaper:
    """Waits for every child of the daemon; one per event loop.

    ``watch(pid)`` gives a future of the exit code.  A child that nobody watches is reaped
    silently; the codes of the last few are kept, so that watching just after the end works.
    """

    _KEPT = 512

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._reaped = 0
        # pid: how many had been reaped with it, exit code
        self._ended: dict[int, tuple[int, int]] = {}

    def install(self) -> None:
        """Begins to listen for SIGCHLD in the running loop."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self.reap)

    def moment(self) -> int:
        """Now, as :meth:`watch` takes it."""
        return self._reaped

    def watch(self, pid: int, since: int = 0) -> asyncio.Future[int]:
        """A future of the exit code of child ``pid`` (128 + signal when killed).

        A child that was started by somebody else (and became ours) began after ``since``:
        what ended before had the same pid by chance.
        """
        future = self._waiting.get(pid)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            order, code = self._ended.pop(pid, (0, 0))
            if order > since:
                future.set_result(code)
            else:
                self._waiting[pid] = future
        return future

    def spawned(self, pid: int) -> int:
        """Forgets what an earlier process with this pid left; call right after spawning."""
        self._ended.pop(pid, None)
        return pid

    async def run(
        self,
        argv: Sequence[str],
        *,
        data: bytes = b"",
        timeout_s: float = 120.0,
        env: Mapping[str, str] | None = None,
        group: bool = False,
    ) -> tuple[int, bytes, bytes]:
        """Runs ``argv`` to its end: exit code, standard output, standard error.

        Raises TimeoutError after killing it; output is bounded to 1 MiB per stream.
        ``group``: in a session of its own, killed with all that it has started, and when
        the caller is cancelled too.
        """
        out_r, out_w = os.pipe()
        err_r, err_w = os.pipe()
        in_r, in_w = os.pipe() if data else (-1, -1)
        try:
            try:
                pid = self.spawned(
                    spawn(argv, stdin=in_r, stdout=out_w, stderr=err_w, env=env, new_session=group)
                )
            finally:
                for fd in (out_w, err_w, in_r):
                    if fd >= 0:
                        os.close(fd)
            future = self.watch(pid)
            feeding, in_w = _feed(in_w, data), -1
            try:
                async with asyncio.timeout(timeout_s):
                    out, err, code = await _communicate(out_r, err_r, feeding, future)
            except (TimeoutError, asyncio.CancelledError) as error:
                reaped = future.done() and not future.cancelled()
                with contextlib.suppress(ProcessLookupError):
                    if group and not reaped:
                        os.killpg(pid, signal.SIGKILL)
                    elif not group and isinstance(error, TimeoutError):
                        os.kill(pid, signal.SIGKILL)
                raise
            return code, out, err
        finally:
            for fd in (out_r, err_r, in_w):
                if fd >= 0:
                    os.close(fd)

    def reap(self) -> None:
        """Collects every child that has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = exit_code(status)
            self._reaped += 1
            future = self._waiting.pop(pid, None)
            if future is None:
                self._ended[pid] = (self._reaped, code)
                if len(self._ended) > self._KEPT:
                    self._ended.pop(next(iter(self._ended)))
            elif not future.done():
                future.set_result(code)


async def _communicate(
    out: int, err: int, feeding: Coroutine[Any, Any, None], future: asyncio.Future[int]
) -> tuple[bytes, bytes, int]:
    """Output, error output and exit code; what a child left behind writes is not awaited."""
    chunks: tuple[list[bytes], list[bytes]] = ([], [])
    drains = [
        asyncio.create_task(_drain(fd, into)) for fd, into in zip((out, err), chunks, strict=True)
    ]
    tasks = [*drains, asyncio.create_task(feeding)]
    try:
        code = await future
        await asyncio.wait(drains, timeout=_DRAIN_S)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return b"".join(chunks[0]), b"".join(chunks[1]), code


async def _feed(fd: int, data: bytes) -> None:
    """Writes ``data`` and closes ``fd``; a reader that does not want it is fine."""
    if fd < 0:
        return
    try:
        await write_all(fd, data)
    finally:
        os.close(fd)


async def _drain(fd: int, chunks: list[bytes], limit: int = 1 << 20) -> None:
    loop = asyncio.get_running_loop()
    os.set_blocking(fd, False)
    size = 0
    done = loop.create_future()

    def readable() -> None:
        nonlocal size
        try:
            chunk = os.read(fd, 65536)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            loop.remove_reader(fd)
            if not done.done():
                done.set_result(None)
        elif size < limit:
            chunks.append(chunk)
            size += len(chunk)

    loop.add_reader(fd, readable)
    try:
        await done
    finally:
        loop.remove_reader(fd)
