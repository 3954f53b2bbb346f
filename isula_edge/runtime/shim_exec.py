"""An exec in a container behind a shim: its streams, its exit code, what can be done to it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.runtime import shim_streams
from isula_edge.runtime.base import ExecProcess
from isula_edge.sys import fds

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from isula_edge.runtime.base import Bundle, ExecSpec
    from isula_edge.runtime.shim_task import Task

__all__ = ["PREFIX", "Exec", "drop_output"]

PREFIX = "exec-"
"""Execs are called so, and their folders in the run directory too."""
_EXIT_UNKNOWN = 255
_DELETE_S = 10.0
_KILLED_S = 30.0
_OPEN_S = 5.0
_STEP_S = 0.02


class Exec:
    """One exec (an :class:`isula_edge.runtime.base.ExecControl`)."""

    def __init__(
        self,
        task: Task,
        bundle: Bundle,
        terminal: bool,
        background: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self.id = PREFIX + os.urandom(8).hex()
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._task, self._container, self._terminal = task, bundle.id, terminal
        self._folder = f"{bundle.run_dir}/{self.id}"
        self._background = background
        self._read = asyncio.Event()

    async def run(self, spec: ExecSpec, process: dict[str, Any]) -> ExecProcess:
        """Starts it; raises what the shim says, after clean-up."""
        fifos = shim_streams.make(self._folder, stdin=spec.stdin, terminal=spec.terminal)
        running = ExecProcess(0, control=self)
        waiting: asyncio.Task[int] | None = None
        try:
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            running.stdout = os.open(fifos.stdout, flags)
            if fifos.stderr:
                running.stderr = os.open(fifos.stderr, flags)
            await self._task.exec(
                self._container,
                self.id,
                process,
                terminal=spec.terminal,
                stdin=fifos.stdin,
                stdout=fifos.stdout,
                stderr=fifos.stderr,
            )
            waiting = asyncio.create_task(self._wait())
            running.pid = await self._task.start(self._container, self.id)
            if fifos.stdin:
                running.stdin = await self._open_input(fifos.stdin, waiting)
            if spec.size:
                self.resize(*spec.size)
        except BaseException:
            for fd in (running.stdin, running.stdout, running.stderr):
                if fd >= 0:
                    os.close(fd)
            if waiting is not None:
                waiting.cancel()
            self._background(self._abandon(fifos))
            raise
        self._background(self._finish(waiting, fifos))
        return running

    async def _open_input(self, path: str, waiting: asyncio.Task[int]) -> int:
        """The engine's end of standard input; -1 when the process never reads it."""
        until = asyncio.get_running_loop().time() + _OPEN_S
        while not waiting.done() and asyncio.get_running_loop().time() < until:
            try:
                return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    break
            # kata opens it some time after Start, and a FIFO tells nobody
            await asyncio.sleep(_STEP_S)
        self.close_input()
        return -1

    async def _abandon(self, fifos: shim_streams.Fifos) -> None:
        """Ends a process of which nobody knows whether it was started."""
        with contextlib.suppress(errors.EngineError):
            await self._task.kill(self._container, signal.SIGKILL, self.id)
            await self._task.wait(self._container, self.id, timeout_s=_KILLED_S)
        await self._forget()
        fifos.remove()

    async def _wait(self) -> int:
        return (await self._task.wait(self._container, self.id)).exit_status

    async def _forget(self) -> None:
        with contextlib.suppress(errors.EngineError):
            await self._task.delete(self._container, self.id, timeout_s=_DELETE_S)

    async def _finish(self, waiting: asyncio.Task[int], fifos: shim_streams.Fifos) -> None:
        code = _EXIT_UNKNOWN
        try:
            code = await waiting
        except errors.EngineError:
            pass
        finally:
            if not self.exited.done():
                self.exited.set_result(code)
        # Delete makes the shim close the FIFOs, read or not
        await self._read.wait()
        await self._forget()
        fifos.remove()

    def resize(self, rows: int, columns: int) -> None:
        """Gives its terminal another size."""
        self._try(self._task.resize(self._container, self.id, width=columns, height=rows))

    def signal(self, number: int) -> None:
        """Sends it a signal; one that has ended is fine."""
        self._try(self._task.kill(self._container, number, self.id))

    def close_input(self) -> None:
        """Says that nothing more comes on its standard input."""
        if not self._terminal:
            self._try(self._task.close_io(self._container, self.id))

    def done(self) -> None:
        """Nothing more is read of its output."""
        self._read.set()

    def leave(self) -> None:
        """End of file, or SIGHUP from a terminal."""
        if self._terminal:
            self.signal(signal.SIGHUP)
        else:
            self.close_input()

    def _try(self, call: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            with contextlib.suppress(errors.EngineError):
                await call

        self._background(run())


async def drop_output(task: Task, bundle: Bundle, exec_id: str) -> None:
    """Looks after an exec whose client went with an engine before this one.

    It gets end of file, what it writes is dropped, and it is forgotten when it has ended.
    """
    place = f"{bundle.run_dir}/{exec_id}"
    paths = [f"{place}/{name}" for name in ("out", "err") if os.path.exists(f"{place}/{name}")]
    readers = [asyncio.create_task(_drop(path)) for path in paths]
    try:
        with contextlib.suppress(errors.EngineError):
            await task.close_io(bundle.id, exec_id)
        with contextlib.suppress(errors.EngineError):
            await task.wait(bundle.id, exec_id)
            await task.delete(bundle.id, exec_id, timeout_s=_DELETE_S)
        # not when this engine ends: the next one needs the paths
        shim_streams.Fifos(f"{place}/in", f"{place}/out", f"{place}/err").remove()
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def _drop(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while True:
            try:
                if not os.read(fd, 65536):
                    return
            except BlockingIOError:
                await fds.readable(fd)
    finally:
        os.close(fd)
