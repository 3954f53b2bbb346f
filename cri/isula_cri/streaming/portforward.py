"""Port forwarding: pairs of streams to ports inside a pod's network namespace."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

from isula_cri.streaming.connection import Connection
from isula_cri.streaming.inbox import Budget, Inbox
from isula_cri.streaming.link import CHUNK
from isula_cri.streaming.websocket import ChannelReader
from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence

    from isula_cri.streaming.connection import Stream
    from isula_cri.streaming.link import Link
    from isula_cri.streaming.websocket import WebSocket

    Connect = Callable[[int], Awaitable[socket.socket]]

__all__ = [
    "PROTOCOL",
    "TUNNEL",
    "WEBSOCKET_PROTOCOLS",
    "Forwarding",
    "forward_channels",
    "ports_of",
]

PROTOCOL = "portforward.k8s.io"
TUNNEL = f"SPDY/3.1+{PROTOCOL}"
WEBSOCKET_PROTOCOLS = ("v4.channel.k8s.io", TUNNEL)
_MAX_PAIRS = 256
_MAX_CHANNELS = 256
_GRACE_S = 10.0
_LAST_S = 1.0
"""How long a client may go on to send when the pod has sent all."""


class _Pair:
    """A data stream and its error stream: one connection to a port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.data: Stream | None = None
        self.error: Stream | None = None
        self.inbox: Inbox | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.gone = asyncio.Event()


class Forwarding:
    """All the pairs of one SPDY session.  ``connect`` opens a port inside the pod."""

    def __init__(self, link: Link, connect: Connect, creation_s: float) -> None:
        self._connect = connect
        self._creation_s = creation_s
        self.budget = Budget()
        self._connection = Connection(link, self, self.budget)
        self._waiting: dict[str, _Pair] = {}
        self._by_data: dict[int, _Pair] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serves until the client is gone."""
        try:
            await self._connection.run()
        finally:
            for pair in self._waiting.values():
                if pair.timer is not None:
                    pair.timer.cancel()
            await _cancel(self._tasks)

    # the connection's side

    def opened(self, stream: Stream) -> bool:
        """Takes a stream that belongs to a pair; the second one begins its connection."""
        kind, port = stream.headers.get("streamtype", ""), _port(stream.headers.get("port", ""))
        if kind not in {"error", "data"} or not port:
            return False
        # a client that gives no id opens the error stream first, and the data stream next
        first = stream.number if kind == "error" else stream.number - 2
        key = stream.headers.get("requestid") or str(first)
        pair = self._waiting.get(key) or self._new_pair(key, port)
        if pair is None or getattr(pair, kind) is not None:
            return False
        if kind == "error":
            pair.error = stream
        else:
            pair.data, pair.port = stream, port
            pair.inbox = Inbox(self.budget, stream.taken)
            self._by_data[stream.number] = pair
        if pair.data is not None and pair.error is not None and pair.inbox is not None:
            self._end_waiting(key)
            self._spawn(self._forward(pair, pair.data, pair.error, pair.inbox))
        return True

    def _new_pair(self, key: str, port: int) -> _Pair | None:
        if len(self._waiting) + len(self._tasks) >= _MAX_PAIRS:
            return None
        pair = self._waiting[key] = _Pair(port)
        loop = asyncio.get_running_loop()
        pair.timer = loop.call_later(
            self._creation_s, lambda: self._spawn(self._late(self._end_waiting(key)))
        )
        return pair

    def _end_waiting(self, key: str) -> _Pair:
        pair = self._waiting.pop(key)
        if pair.timer is not None:
            pair.timer.cancel()
        return pair

    def received(self, stream: Stream, data: bytes) -> None:
        """Data for the port."""
        pair = self._by_data.get(stream.number)
        if pair is not None and pair.inbox is not None:
            pair.inbox.data(data)

    def ended(self, stream: Stream) -> None:
        """The client has sent all."""
        pair = self._by_data.get(stream.number)
        if pair is not None and pair.inbox is not None:
            pair.inbox.end()

    def reset(self, stream: Stream) -> None:
        """The client wants the connection no more."""
        if pair := self._by_data.get(stream.number):
            pair.gone.set()

    # the pod's side

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _late(self, pair: _Pair) -> None:
        """Ends a pair whose second stream has not come."""
        with contextlib.suppress(ConnectionError):
            if pair.error is not None:
                await pair.error.send(b"timed out waiting for streams")
                await pair.error.end()
            if pair.data is not None:
                await pair.data.reset()
        self._forget(pair)

    def _forget(self, pair: _Pair) -> None:
        if pair.inbox is not None:
            pair.inbox.drop()
        if pair.data is not None:
            self._by_data.pop(pair.data.number, None)

    async def _forward(self, pair: _Pair, data: Stream, error: Stream, inbox: Inbox) -> None:
        with contextlib.suppress(ConnectionError):
            try:
                text = await self._run_pair(pair, data, inbox)
            finally:
                self._forget(pair)
            if text:
                await error.send(text.encode("utf-8", "backslashreplace"))
            await error.end()
            # the client sees the end of the data last, with the reason there already
            await (data.reset() if text or not data.got_fin else data.end())

    async def _run_pair(self, pair: _Pair, data: Stream, inbox: Inbox) -> str:
        """Why the port could not be reached, or nothing."""
        try:
            sock = await self._connect(pair.port)
        except (errors.EngineError, OSError) as failure:
            return f"error forwarding port {pair.port}: {failure}"
        await _relay(sock, inbox, data.send, data.end, pair.gone)
        return ""


async def forward_channels(
    websocket: WebSocket, budget: Budget, ports: Sequence[int], connect: Connect
) -> None:
    """Serves the old form until client or ports are gone: two channels for each port.

    Channel 2i has the data of port i, 2i+1 its error; each begins with the port's number.
    """
    inboxes = [Inbox(budget) for _ in ports[: _MAX_CHANNELS // 2]]
    for index, port in enumerate(ports[: len(inboxes)]):
        for channel in (2 * index, 2 * index + 1):
            await websocket.send(bytes([channel]) + port.to_bytes(2, "little"))
    forwards = [
        asyncio.create_task(_forward_channel(websocket, 2 * index, inbox, port, connect))
        for index, (inbox, port) in enumerate(zip(inboxes, ports, strict=False))
    ]
    reading = asyncio.create_task(_read_channels(websocket, budget, inboxes))
    waiting: set[asyncio.Future[Any]] = {
        reading,
        asyncio.gather(*forwards, return_exceptions=True),
    }
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            await websocket.close()
            await asyncio.wait({reading}, timeout=_GRACE_S)
    finally:
        await _cancel({reading, *forwards})


async def _read_channels(websocket: WebSocket, budget: Budget, inboxes: list[Inbox]) -> None:
    reader = ChannelReader()
    with contextlib.suppress(ConnectionError):
        while (pieces := await websocket.read()) is not None:
            for piece, last in pieces:
                channel, data = reader.take(piece, last)
                if channel % 2 == 0 and 0 <= channel < 2 * len(inboxes) and data:
                    inboxes[channel // 2].data(data)
            if budget.full:
                await websocket.link.hold(budget)


async def _forward_channel(
    websocket: WebSocket, channel: int, inbox: Inbox, port: int, connect: Connect
) -> None:
    over = asyncio.Event()

    async def send(data: bytes) -> None:
        await websocket.send(bytes([channel]) + data)

    async def end() -> None:
        over.set()  # there is no half close

    with contextlib.suppress(ConnectionError):
        try:
            await _relay(await connect(port), inbox, send, end, over)
        except (errors.EngineError, OSError) as failure:
            text = f"error forwarding port {port}: {failure}"
            await websocket.send(bytes([channel + 1]) + text.encode("utf-8", "backslashreplace"))
        finally:
            inbox.drop()


async def _relay(
    sock: socket.socket,
    inbox: Inbox,
    send: Callable[[bytes], Awaitable[None]],
    end: Callable[[], Awaitable[None]],
    gone: asyncio.Event,
) -> None:
    """Copies both ways until both ends have sent all, or the client is gone; closes ``sock``.

    A client may wait for the end of the connection before it says that it has sent all, so
    when the pod has, the client has a moment for what is under way.
    """
    up = asyncio.create_task(_up(sock, inbox))
    down = asyncio.create_task(_down(sock, send, end))
    left = asyncio.create_task(gone.wait())
    try:
        await asyncio.wait({down, left}, return_when=asyncio.FIRST_COMPLETED)
        if not left.done():
            waiting = {up, left}
            await asyncio.wait(waiting, timeout=_LAST_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # the loop may not watch the socket any more when its number is given away
        await _cancel({up, down, left})
        sock.close()


async def _up(sock: socket.socket, inbox: Inbox) -> None:
    loop = asyncio.get_running_loop()
    try:
        while (found := await inbox.get()) is not None:
            if isinstance(found[1], bytes):
                await loop.sock_sendall(sock, found[1])
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        inbox.drop()  # it takes no more, but may still send


async def _down(
    sock: socket.socket,
    send: Callable[[bytes], Awaitable[None]],
    end: Callable[[], Awaitable[None]],
) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = await loop.sock_recv(sock, CHUNK)
        except OSError:
            data = b""
        if not data:
            break
        await send(data)
    await end()


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    waiting = list(tasks)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


def ports_of(query: Mapping[str, list[str]]) -> tuple[int, ...]:
    """The ports that a URL names, those that are none left out."""
    words = [word for value in query.get("port", ()) for word in value.split(",")]
    return tuple(port for port in map(_port, words) if port)


def _port(text: str) -> int:
    """The number of a port, 0 if it is none."""
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536 else 0
