"""The client's socket: connections, frames, and one request at a time on each.

A connection that sends what is no frame, or one too large, is answered once and closed;
nobody else notices.  A client that leaves ends what it only waited for; what changes
something is finished first.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import sys
from typing import TYPE_CHECKING, Any

from isula_edge import errors, wire
from isula_edge.daemon.cri import PREFACE
from isula_edge.sys import fds

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable

    Call = Callable[[str, dict[str, Any], "Session"], Awaitable[dict[str, Any]]]
    HandOver = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

__all__ = ["Server", "Session"]

_log = logging.getLogger(__name__)
_PREAMBLE_S = 60.0
_QUEUE = 32
_FINISH_S = 8.0
_HIGH_WATER = 1 << 18
_ENDING = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
_INPUT = {"i": "data", "e": "eof", "w": "resize", "s": "signal"}


class Session:
    """The client's side of one request; see :class:`isula_edge.container.streams.Session`.

    ``interrupted``: a signal came that asks for the end, and nobody reads the input yet.
    """

    _task: asyncio.Task[Any]

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._queue: asyncio.Queue[tuple[str, object] | None] = asyncio.Queue(_QUEUE)
        self._reads = False
        self._gone = False
        self._cancellable = self._relays = False
        self.interrupted = asyncio.Event()

    async def out(self, data: bytes) -> None:
        """Standard output."""
        await self._send({"o": data})

    async def err(self, data: bytes) -> None:
        """Standard error."""
        await self._send({"E": data})

    async def item(self, value: object) -> None:
        """An item: progress, an event, the first answer of a stream."""
        await self._send({"v": value})

    async def _send(self, frame: dict[str, Any]) -> None:
        if self._gone:
            return
        self._writer.write(wire.pack(frame))
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def input(self) -> AsyncIterator[tuple[str, object]]:
        """What the client sends within the request; ends when it is gone."""
        self._reads = True
        while True:
            found = await self._queue.get()
            if found is None:
                self._queue.put_nowait(None)
                return
            yield found

    def only_waiting(self) -> None:
        """From here on the request is cancelled when the client leaves."""
        self._cancellable = True
        if self._gone:
            self._task.cancel()

    # the server's side

    def begin(self, task: asyncio.Task[Any]) -> None:
        """The task that serves the request."""
        self._task = task

    async def feed(self, frame: dict[str, Any]) -> None:
        """A frame of the client's within the request."""
        for key, kind in _INPUT.items():
            if key in frame:
                value = _checked(kind, frame[key])
                if kind == "signal" and value in _ENDING and not self._reads:
                    self.interrupted.set()
                await self._put((kind, value))
                return
        raise wire.WireError(f"unknown frame {sorted(map(str, frame))[:3]}")

    async def _put(self, found: tuple[str, object]) -> None:
        """Waits while the request has enough unread input; ends with request or client."""
        if not self._queue.full():
            self._queue.put_nowait(found)
            return
        put = asyncio.ensure_future(self._queue.put(found))
        with fds.hang_up(self._writer.get_extra_info("socket").fileno()) as gone:
            waiting: set[asyncio.Future[Any]] = {put, self._task, gone}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            left = gone.done()
        put.cancel()
        if left:
            raise ConnectionResetError("the client left")

    @property
    def task(self) -> asyncio.Task[Any]:
        """The task that serves the request."""
        return self._task

    def ends_with_daemon(self) -> None:
        """From here on nothing is waited for when the daemon ends."""
        self._relays = True

    def finish(self) -> None:
        """The daemon ends: input ends, and what only waits or relays does."""
        self.leave()
        if self._relays:
            self._task.cancel()

    def leave(self) -> None:
        """The client is gone."""
        self._gone = True
        while self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(None)
        if self._cancellable:
            self._task.cancel()


def _checked(kind: str, value: object) -> object:
    """What a frame of input carries, or WireError."""
    if kind == "resize":
        if not (
            isinstance(value, list)
            and len(value) == 2
            and all(isinstance(part, int) and not isinstance(part, bool) for part in value)
        ):
            raise wire.WireError("a size is no pair of integers")
        return value[0] & 0xFFFF, value[1] & 0xFFFF
    if kind == "data" and not isinstance(value, bytes):
        raise wire.WireError("input is no byte string")
    if kind == "signal" and not isinstance(value, int):
        raise wire.WireError("a signal is no integer")
    return value


class Server:
    """Serves ``call(method, params, session)`` on listening sockets.

    Connections that speak gRPC go to ``hand_over(first bytes, reader, writer)``.
    """

    def __init__(self, call: Call, hand_over: HandOver | None = None) -> None:
        self._call = call
        self._hand_over = hand_over
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[Any]] = set()
        self._sessions: set[Session] = set()

    async def listen(self, sock: socket.socket) -> None:
        """Begins to accept connections on a bound stream socket."""
        options: dict[str, Any] = {"limit": _HIGH_WATER}
        if sys.version_info >= (3, 13):
            # its file is not asyncio's to delete: it may be the service manager's
            options["cleanup_socket"] = False
        server = await asyncio.start_unix_server(self._accept, sock=sock, **options)
        self._servers.append(server)

    async def close(self) -> None:
        """Ends all connections; requests that change something get some seconds to finish."""
        for server in self._servers:
            server.close()
        busy = [session.task for session in self._sessions]
        for session in list(self._sessions):
            session.finish()
        if busy:
            await asyncio.wait(busy, timeout=_FINISH_S)
            await asyncio.sleep(0)
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
        writer.transport.set_write_buffer_limits(_HIGH_WATER)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            pass
        except asyncio.CancelledError:
            _log.debug("a connection was ended with the engine")
        except wire.WireError as error:
            _log.warning("a client sent what is no request: %s", error)
            refusal = errors.InvalidArgument(f"malformed request: {error}", kind="wire")
            with contextlib.suppress(ConnectionError):
                writer.write(wire.pack({"x": errors.to_wire(refusal)}))
                await writer.drain()
        finally:
            if task is not None:
                self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_PREAMBLE_S):
            preamble = await reader.readexactly(len(wire.PREAMBLE))
        if preamble != wire.PREAMBLE:
            if preamble == PREFACE[: len(preamble)] and self._hand_over is not None:
                await self._hand_over(preamble, reader, writer)
                return
            if not preamble.startswith(wire.PREAMBLE_MAGIC):
                raise wire.WireError("the connection does not begin as one of isula's")
            version = int.from_bytes(preamble[-2:], "big")
            raise wire.WireError(f"the client speaks version {version}, this engine version 1")
        reading: asyncio.Task[dict[str, Any]] | None = None
        try:
            while True:
                reading = reading or asyncio.create_task(_frame(reader))
                frame = await reading
                reading = None
                if "m" in frame:
                    reading = await self._request(frame, reader, writer)
                elif not any(key in frame for key in _INPUT):
                    raise wire.WireError("a request has no method")
        finally:
            if reading is not None:
                reading.cancel()

    async def _request(
        self, frame: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> asyncio.Task[dict[str, Any]]:
        """Serves one request; the task that reads the next frame."""
        method, params = frame["m"], frame.get("p", {})
        if not isinstance(method, str) or not isinstance(params, dict):
            raise wire.WireError("method and params have wrong types")
        session = Session(writer)
        task = asyncio.create_task(self._answer(method, params, session))
        session.begin(task)
        self._sessions.add(session)
        task.add_done_callback(lambda _: self._sessions.discard(session))
        reading = asyncio.create_task(_frame(reader))
        try:
            while True:
                waiting: set[asyncio.Future[Any]] = {task, reading}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if reading.done() and not task.done():
                    try:
                        following = reading.result()
                        if "m" in following:
                            raise wire.WireError("a request came before the answer to the last")
                        await session.feed(following)
                    except (ConnectionError, asyncio.IncompleteReadError, wire.WireError):
                        session.leave()
                        await asyncio.wait({task})
                        raise
                    reading = asyncio.create_task(_frame(reader))
                if task.done():
                    writer.write(_packed(_result(task)))
                    await writer.drain()
                    return reading
        except BaseException:
            reading.cancel()
            if not task.done():
                session.only_waiting()
                session.leave()
                await asyncio.wait({task})
            raise

    async def _answer(
        self, method: str, params: dict[str, Any], session: Session
    ) -> dict[str, Any]:
        try:
            return {"r": await self._call(method, params, session)}
        except errors.EngineError as error:
            return {"x": errors.to_wire(error)}
        except OSError as error:
            return {"x": errors.to_wire(_system_error(error))}
        except Exception as error:  # noqa: BLE001  # a fault of ours ends its request alone
            _log.exception("%s failed", method)
            text = f"{type(error).__name__}: {error}"
            return {"x": errors.to_wire(errors.Internal(text, hint="see the log of isulad"))}


def _system_error(error: OSError) -> errors.EngineError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return errors.NoSpace(f"no space left on device: {error.filename or ''}".rstrip(": "))
    _log.error("a request failed", exc_info=error)
    return errors.Internal(str(error), hint="see the log of isulad")


def _result(task: asyncio.Task[dict[str, Any]]) -> dict[str, Any]:
    if task.cancelled():
        return {"x": errors.to_wire(errors.Aborted("the request was cancelled"))}
    return task.result()


def _packed(answer: dict[str, Any]) -> bytes:
    """The answer's frame, or that of an error when it cannot be one."""
    try:
        frame = wire.pack(answer)
        if len(frame) - 4 <= wire.MAX_ANSWER:
            return frame
        text = f"the answer has {len(frame)} bytes, the limit is {wire.MAX_ANSWER}"
    except (TypeError, ValueError) as error:
        _log.exception("an answer cannot be encoded")
        text = f"the answer cannot be encoded: {error}"
    return wire.pack({"x": errors.to_wire(errors.Internal(text, hint="see the log of isulad"))})


async def _frame(reader: asyncio.StreamReader) -> dict[str, Any]:
    """The next frame; WireError for one that is too large or no map."""
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > wire.MAX_REQUEST:
        raise wire.WireError(f"a frame of {size} bytes, the limit is {wire.MAX_REQUEST}")
    value = wire.decode(await reader.readexactly(size))
    if not isinstance(value, dict):
        raise wire.WireError("a frame is no map")
    return value
