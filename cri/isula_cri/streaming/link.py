"""A client's connection as a sequence of bytes both ways."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any, Protocol

from isula_edge.sys import fds

if TYPE_CHECKING:
    from asyncio.trsock import TransportSocket

    from isula_cri.streaming.inbox import Budget

__all__ = ["CHUNK", "Link", "TcpLink", "abort"]

CHUNK = 65536
_WRITE_BUFFER = 2 * CHUNK
_KERNEL_BUFFER = 256 << 10
"""Left alone, the kernel would let each buffer of a slow connection grow to megabytes."""


class Link(Protocol):
    """Where a SPDY session runs: a TCP connection, or the messages of a WebSocket."""

    async def read(self) -> bytes:
        """The next bytes; empty when the client is gone."""

    async def write(self, *parts: bytes) -> None:
        """Sends ``parts`` as one, in the order of the calls; returns when there is room for more.

        Raises ConnectionError when the client is gone.
        """

    async def hold(self, budget: Budget) -> None:
        """Waits until the budget has room; ConnectionError when the client leaves before."""


def abort(writer: asyncio.StreamWriter, sock: TransportSocket) -> None:
    """Ends a connection at once, if it has not ended: asyncio's own abort fails then."""
    if sock.fileno() >= 0:
        writer.transport.abort()


class TcpLink:
    """A :class:`Link` over a socket, perhaps with TLS.  It ends after ``idle_s`` of silence."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        before: bytes = b"",
        idle_s: float,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._before = before
        self._loop = asyncio.get_running_loop()
        self._idle_s = idle_s
        self._last = self._loop.time()
        self._timer = self._loop.call_later(idle_s, self._check_idle)
        writer.transport.set_write_buffer_limits(high=_WRITE_BUFFER)
        # asked for once: a TLS connection that has ended does not know it any more
        self._sock: TransportSocket = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):  # it is gone already, which the next read tells
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                self._sock.setsockopt(socket.SOL_SOCKET, option, _KERNEL_BUFFER)

    async def read(self) -> bytes:
        """The next bytes; empty when the client is gone."""
        if self._before:
            data, self._before = self._before, b""
            return data
        try:
            data = await self._reader.read(CHUNK)
        except OSError:
            return b""
        self._last = self._loop.time()
        return data

    async def write(self, *parts: bytes) -> None:
        """Sends ``parts`` as one; returns when there is room for more; ConnectionError."""
        self._writer.writelines(parts)
        try:
            await self._writer.drain()
        except OSError as error:
            raise ConnectionResetError("the client left") from error
        self._last = self._loop.time()
        # a command that writes as fast as its client reads must not keep the loop for itself
        await asyncio.sleep(0)

    async def hold(self, budget: Budget) -> None:
        """Waits until the budget has room; ConnectionError when the client leaves before."""
        if self._sock.fileno() < 0:
            raise ConnectionResetError("the client left")
        room = asyncio.ensure_future(budget.room())
        with fds.hang_up(self._sock.fileno()) as gone:
            waiting: set[asyncio.Future[Any]] = {room, gone}
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                room.cancel()
            if gone.done() and budget.full:
                raise ConnectionResetError("the client left")
        self._last = self._loop.time()

    async def flush(self) -> None:
        """Waits until the kernel has all that was written; ConnectionError."""
        self._writer.transport.set_write_buffer_limits(high=0)
        await self.write()

    async def close(self) -> None:
        """Sends what is left for a moment, then ends the connection."""
        self._timer.cancel()
        if not self._writer.is_closing():
            self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                await self._writer.wait_closed()
        abort(self._writer, self._sock)

    def abort(self) -> None:
        """Ends the connection at once, also for who holds."""
        self._timer.cancel()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        abort(self._writer, self._sock)

    def _check_idle(self) -> None:
        left = self._last + self._idle_s - self._loop.time()
        if left <= 0:
            self.abort()
        else:
            self._timer = self._loop.call_later(left, self._check_idle)
