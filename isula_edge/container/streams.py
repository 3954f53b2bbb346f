"""Copying between a client's session and a container's or an exec's standard streams."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import signal
import termios
from typing import TYPE_CHECKING, Any, Protocol

from isula_edge.runtime.supervisor import STDERR, STDOUT, Supervisor, resize
from isula_edge.runtime.terminal import set_size
from isula_edge.sys import fds, process

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable

    from isula_edge.runtime.base import Bundle, ExecControl, ExecProcess, Guest
    from isula_edge.sys.process import Identity

__all__ = ["Attachment", "Session", "relay_exec"]

_CHUNK = 65536
_DRAIN_S = 1.0
"""How long output is awaited after an exec's process has ended: a child that it left
behind may hold the pipe for ever (case A26)."""


class Session(Protocol):
    """The client's side of a stream."""

    async def out(self, data: bytes) -> None:
        """Standard output; returns when the client has taken enough of it."""

    async def err(self, data: bytes) -> None:
        """Standard error."""

    def input(self) -> AsyncIterator[tuple[str, object]]:
        """("data", bytes), ("eof", None), ("resize", (rows, columns)), ("signal", number).

        Ends when the client is gone.
        """


class Attachment:
    """A connection to a container's supervisor, made before the container starts."""

    def __init__(self, bundle: Bundle, guest: Guest | None = None) -> None:
        self._bundle, self._guest = bundle, guest
        self._socket: socket.socket = Supervisor.connect(bundle)

    def resize(self, rows: int, columns: int) -> None:
        """Tells the container's terminal its size."""
        if self._guest is None:
            resize(self._bundle, rows, columns)
        elif self._bundle.terminal:
            self._guest.resize(self._bundle, rows, columns)

    def close(self) -> None:
        """Ends the connection; the container goes on."""
        self._socket.close()

    async def relay(
        self, session: Session, stdin: bool, deliver: Callable[[int], None] | None = None
    ) -> None:
        """Copies until the supervisor closes (the container ended) or the client leaves."""
        loop = asyncio.get_running_loop()
        feeder = asyncio.create_task(self._feed(session, stdin, deliver))
        receive = asyncio.create_task(self._receive(session, loop))
        try:
            await asyncio.wait({receive, feeder}, return_when=asyncio.FIRST_COMPLETED)
            for task in (receive, feeder):
                if task.done():
                    task.result()
        finally:
            receive.cancel()
            feeder.cancel()
            # the loop may not watch the socket any more when its number is given away
            await asyncio.gather(receive, feeder, return_exceptions=True)
            self.close()

    async def _receive(self, session: Session, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            try:
                packet = await loop.sock_recv(self._socket, _CHUNK)
            except ConnectionError:
                return
            if not packet:
                return
            if packet[0] == STDOUT:
                await session.out(packet[1:])
            elif packet[0] == STDERR:
                await session.err(packet[1:])

    async def _feed(
        self, session: Session, stdin: bool, deliver: Callable[[int], None] | None
    ) -> None:
        """Copies the client's input until the client is gone."""
        import socket

        loop = asyncio.get_running_loop()
        async for kind, value in session.input():
            if kind == "data" and stdin and isinstance(value, bytes):
                for start in range(0, len(value), 8192):
                    with contextlib.suppress(ConnectionError):
                        await loop.sock_sendall(self._socket, value[start : start + 8192])
            elif kind == "eof" and stdin:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_WR)
            elif kind == "resize" and isinstance(value, tuple):
                self.resize(*value)
            elif kind == "signal" and deliver is not None and isinstance(value, int):
                deliver(value)


async def relay_exec(
    session: Session, running: ExecProcess, exited: asyncio.Future[int], identity: Identity | None
) -> int:
    """Copies an exec's streams until its process ends; its exit code.

    A client that leaves ends the copying; the process then gets end of file or SIGPIPE.
    """
    copies = [
        _Copy(fd, send)
        for fd, send in (
            (running.master, session.out),
            (running.stdout, session.out),
            (running.stderr, session.err),
        )
        if fd >= 0
    ]
    readers = [asyncio.create_task(copy.run()) for copy in copies]
    feeder = asyncio.create_task(_feed_exec(session, running, identity))
    waiting: set[asyncio.Future[Any]] = {exited, feeder}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not exited.done():
            if running.control is not None:
                return await _left(running, running.control, copies, readers, exited)
            # the client is gone: nobody reads, close our ends and wait for the process
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
            running_close(running)
            if running.master < 0 or identity is None:
                return await exited
            process.signal_process(identity, signal.SIGHUP)
            return await exited
        code = exited.result()
        await _drain(copies, readers, patient=running.control is not None)
        return code
    finally:
        if running.control is not None:
            running.control.done()
        tasks: list[asyncio.Task[Any]] = [*readers, feeder]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        running_close(running)


async def _left(
    running: ExecProcess,
    control: ExecControl,
    copies: list[_Copy],
    readers: list[asyncio.Task[None]],
    exited: asyncio.Future[int],
) -> int:
    """The client is gone, and a pipe's other end is the runtime's, which would not end by it.

    So the process gets end of file, or SIGHUP from its terminal, and what it writes is dropped.
    """
    if running.stdin >= 0:
        os.close(running.stdin)
        running.stdin = -1
    control.leave()
    for task in readers:
        task.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    for copy in copies:
        copy.drop()
    readers[:] = [asyncio.create_task(copy.run()) for copy in copies]
    return await exited


async def _drain(
    copies: list[_Copy], readers: list[asyncio.Task[None]], *, patient: bool = False
) -> None:
    """Waits for end of file for a second, and for all that was written before, if longer.

    ``patient``: a second begins anew whenever something came, since some may be in pipes that
    the engine does not see.
    """
    goals = [copy.known() for copy in copies]
    sent = -1
    while pending := {task for task in readers if not task.done()}:
        await asyncio.wait(pending, timeout=_DRAIN_S)
        now = sum(copy.sent for copy in copies)
        if not patient or now == sent:
            break
        sent = now
    for copy, goal, task in zip(copies, goals, readers, strict=True):
        while not task.done() and copy.sent < goal:
            step = asyncio.ensure_future(copy.moved.wait())
            copy.moved.clear()
            waiting: set[asyncio.Future[Any]] = {step, task}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            step.cancel()


def running_close(running: ExecProcess) -> None:
    """Closes the daemon's ends of the streams."""
    for name in ("stdin", "stdout", "stderr", "master"):
        fd = getattr(running, name)
        if fd >= 0:
            setattr(running, name, -1)
            os.close(fd)


class _Copy:
    """Reads ``fd`` to its end and sends what it reads; ``sent`` are the bytes so far."""

    def __init__(self, fd: int, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._fd, self._send = fd, send
        self._read = self.sent = 0
        self.moved = asyncio.Event()
        os.set_blocking(fd, False)

    def drop(self) -> None:
        """From now on, what is read is dropped."""
        self._send = _nowhere

    def known(self) -> int:
        """How many bytes have been written by now, sent or not."""
        waiting = array.array("i", [0])
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._fd, termios.FIONREAD, waiting)
        return self._read + waiting[0]

    async def run(self) -> None:
        """Copies until end of file."""
        while True:
            try:
                data = os.read(self._fd, _CHUNK)
            except BlockingIOError:
                await fds.readable(self._fd)
                continue
            except OSError:
                return  # EIO: the last slave of a terminal is closed
            if not data:
                return
            self._read += len(data)
            await self._send(data)
            self.sent += len(data)
            self.moved.set()


async def _nowhere(data: bytes) -> None:
    """Nobody is there any more."""


async def _feed_exec(session: Session, running: ExecProcess, identity: Identity | None) -> None:
    async for kind, value in session.input():
        target = running.master if running.master >= 0 else running.stdin
        if kind == "data" and isinstance(value, bytes) and target >= 0:
            await fds.write_all(target, value)
        elif kind == "eof" and running.stdin >= 0:
            os.close(running.stdin)
            running.stdin = -1
            if running.control is not None:
                running.control.close_input()
        elif kind == "resize" and isinstance(value, tuple):
            if running.control is not None:
                running.control.resize(*value)
            elif running.master >= 0:
                set_size(running.master, *value)
        elif kind == "signal" and isinstance(value, int):
            if running.control is not None:
                running.control.signal(value)
            elif identity is not None:
                process.signal_process(identity, value)
