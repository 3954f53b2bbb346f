"""conmon: the small process per container that keeps stdio, writes the log and the exit code.

conmon is a child subreaper, so what the runtime leaves behind becomes its child, and it
goes on when the daemon dies.  It writes the log in the k8s-file format (time stamp, stream,
P or F, text), the exit status of its child to ``exits/<id>``, and offers an attach socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.sys import process, trees

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isula_edge.runtime.base import Bundle
    from isula_edge.sys.process import Identity, Reaper

__all__ = [
    "STDERR",
    "STDOUT",
    "Supervisor",
    "attach_path",
    "ended",
    "exit_file",
    "identity",
    "reopen_log",
    "resize",
]

STDOUT = 2
"""First byte of an attach packet that carries standard output."""
STDERR = 3
_START_TIMEOUT_S = 120.0
_MAX_ANSWER = 1 << 20
_MAX_WORDS = 1 << 16
_FORK_S = 5.0


def exit_file(run_dir: str) -> str:
    """Where the exit status of the container with this run directory appears."""
    state, container = os.path.dirname(os.path.dirname(run_dir)), os.path.basename(run_dir)
    return f"{state}/exits/{container}"


def attach_path(bundle: Bundle) -> str:
    """The supervisor's attach socket (SOCK_SEQPACKET)."""
    return f"{bundle.run_dir}/attach"


def resize(bundle: Bundle, rows: int, columns: int) -> None:
    """Tells the supervisor the new size of its terminal; a supervisor that is gone is fine."""
    _tell(bundle, "winsz", f"{rows} {columns}\n")


def reopen_log(bundle: Bundle) -> bool:
    """Tells the supervisor to put an empty file at the log's path; False without one.

    It writes to a file beside it, ``.tmp`` appended, and then renames that.
    """
    return _tell(bundle, "ctl", "2 0 0\n")


def identity(bundle: Bundle) -> Identity | None:
    """The running supervisor of ``bundle``."""
    try:
        with open(f"{bundle.run_dir}/conmon.pid", encoding="ascii") as file:
            return process.identify(int(file.read()))
    except (OSError, ValueError):
        return None


def ended(bundle: Bundle) -> asyncio.Future[None]:
    """A future that ends with the supervisor: nobody reads its FIFO any more then."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    try:
        fd = os.open(f"{bundle.run_dir}/ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        future.set_result(None)
        return future

    def failed() -> None:
        loop.remove_reader(fd)
        if not future.done():
            future.set_result(None)

    def close(_: object) -> None:
        loop.remove_reader(fd)
        os.close(fd)

    # of the end that is written to, only the error is ever reported as readable
    loop.add_reader(fd, failed)
    future.add_done_callback(close)
    return future


def _tell(bundle: Bundle, fifo: str, line: str) -> bool:
    """Whether there was a supervisor to tell ``line``."""
    try:
        fd = os.open(f"{bundle.run_dir}/{fifo}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, line.encode())
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


class Supervisor:
    """Starts conmon for one bundle and hears how the runtime's ``create`` went."""

    def __init__(self, program: str, reaper: Reaper) -> None:
        self.program = program
        self._reaper = reaper

    def argv(self, bundle: Bundle, runtime: str, runtime_args: Sequence[str] = ()) -> list[str]:
        """conmon's command line; InvalidArgument for a log that it would write elsewhere."""
        if ":" in bundle.log_path:
            raise errors.InvalidArgument(
                f"the log {bundle.log_path} cannot be written: conmon ends a path at a colon",
                kind="path",
                ref=bundle.log_path,
                hint="use paths without a colon for logs and for the engine's own directories",
            )
        argv = [
            self.program, "--api-version", "1",
            "-c", bundle.id, "-u", bundle.id, "-n", bundle.name,
            "-r", runtime, "-b", bundle.run_dir,
            "-p", f"{bundle.run_dir}/pidfile",
            "--conmon-pidfile", f"{bundle.run_dir}/conmon.pid",
            "--exit-dir", os.path.dirname(exit_file(bundle.run_dir)),
            "--full-attach", "--no-sync-log", "--log-level", "error",
            "-l", f"k8s-file:{bundle.log_path}",
        ]  # fmt: skip
        if bundle.log_max_bytes:
            argv += ["--log-size-max", str(bundle.log_max_bytes)]
        if bundle.terminal:
            argv.append("-t")
        if bundle.stdin_open:
            argv += ["-i", "--leave-stdin-open"] if bundle.stdin_stays else ["-i"]
        argv += [f"--runtime-arg={word}" for word in runtime_args]
        return argv

    async def launch(
        self,
        bundle: Bundle,
        runtime: str,
        runtime_args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        timeout_s: float = _START_TIMEOUT_S,
    ) -> int:
        """Starts conmon; the pid that the runtime's ``create`` wrote to its pid file.

        Raises Internal with the runtime's own words when ``create`` failed, DeadlineExceeded
        when it took too long: it is killed then with all that it has started, and also when
        the caller is cancelled.
        """
        pid, read_fd = self._spawn(bundle, self.argv(bundle, runtime, runtime_args), env or {})
        ended = self._reaper.watch(self._reaper.spawned(pid))
        try:
            answer = await asyncio.wait_for(_sync_line(read_fd), timeout_s)
        except TimeoutError as error:
            await self._abandon(bundle, pid, ended)
            raise errors.DeadlineExceeded(
                f"{runtime} create did not end within {timeout_s:g} s and was killed",
                kind="runtime",
                ref=runtime,
            ) from error
        except asyncio.CancelledError:
            await self._abandon(bundle, pid, ended)
            raise
        finally:
            os.close(read_fd)
        pid = int(answer["pid"])
        if pid > 0:
            return pid
        raise errors.Internal(
            _runtime_words(bundle, str(answer.get("message", ""))), kind="runtime", ref=runtime
        )

    def _spawn(
        self, bundle: Bundle, argv: Sequence[str], env: Mapping[str, str]
    ) -> tuple[int, int]:
        """The pid of conmon's first process, and the end of the pipe on which it answers."""
        log_fd = os.open(
            f"{bundle.run_dir}/conmon.log",
            os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC,
            0o600,
        )
        try:
            read_fd, write_fd = os.pipe()
        except OSError:
            os.close(log_fd)
            raise
        number = 4
        try:
            pid = process.spawn(
                argv,
                stdout=log_fd,
                stderr=log_fd,
                fds={number: write_fd},
                env={
                    **env,
                    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "_OCI_SYNCPIPE": str(number),
                },
                new_session=True,
            )
        except OSError as error:
            os.close(read_fd)
            raise errors.Unavailable(
                f"cannot start the supervisor {self.program}: {error.strerror}",
                kind="program",
                ref=self.program,
                hint="install conmon",
            ) from error
        finally:
            os.close(write_fd)
            os.close(log_fd)
        return pid, read_fd

    async def _abandon(self, bundle: Bundle, pid: int, ended: asyncio.Future[int]) -> None:
        """Kills a supervisor that was started as ``pid``, and everything below it."""
        with contextlib.suppress(TimeoutError):
            # it ends as soon as it has written the pid of the one that stays
            await asyncio.wait_for(asyncio.shield(ended), _FORK_S)
        if not ended.done():
            os.kill(pid, signal.SIGKILL)
        found = identity(bundle)
        if found is not None:
            await trees.end_tree(found)

    def identity(self, bundle: Bundle) -> Identity | None:
        """The running supervisor of ``bundle``."""
        return identity(bundle)

    @staticmethod
    def connect(bundle: Bundle) -> socket.socket:
        """A non-blocking connection to the attach socket."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            path = attach_path(bundle)
            if len(path) < 108:
                sock.connect(path)
            else:
                # sun_path holds 108 bytes: go through a descriptor of the directory
                fd = os.open(bundle.run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    sock.connect(f"/proc/self/fd/{fd}/attach")
                finally:
                    os.close(fd)
        except OSError as error:
            sock.close()
            raise errors.FailedPrecondition(
                f"container {bundle.name} cannot be attached to: {error.strerror}",
                kind="container",
                ref=bundle.id,
            ) from error
        return sock


async def _sync_line(fd: int) -> dict[str, int | str]:
    """conmon's answer on the sync pipe: {"data": pid} or {"data": -1, "message": text}."""
    loop = asyncio.get_running_loop()
    os.set_blocking(fd, False)
    data = b""
    done: asyncio.Future[None] = loop.create_future()

    def readable() -> None:
        nonlocal data
        try:
            chunk = os.read(fd, 65536)
        except BlockingIOError:
            return
        data += chunk
        if (not chunk or b"\n" in data or len(data) > _MAX_ANSWER) and not done.done():
            done.set_result(None)

    loop.add_reader(fd, readable)
    try:
        await done
    finally:
        loop.remove_reader(fd)
    try:
        answer = json.loads(data.splitlines()[0])
        return {"pid": int(answer["data"]), "message": str(answer.get("message", ""))}
    except (IndexError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return {"pid": -1, "message": data.decode(errors="replace")}


def _runtime_words(bundle: Bundle, message: str) -> str:
    """The most telling text about a failed create."""
    if message.strip():
        return message.strip()
    with (
        contextlib.suppress(OSError),
        open(f"{bundle.run_dir}/conmon.log", "rb") as file,
    ):
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _MAX_WORDS, 0))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        if lines:
            return lines[-1]
    return "the runtime could not create the container"
