"""Clients of the streaming server, as kubectl and crictl are: SPDY and WebSocket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import urllib.parse
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from isula_cri.streaming import Streaming
from isula_cri.streaming.connection import Connection, Stream
from isula_cri.streaming.inbox import Budget
from isula_cri.streaming.link import TcpLink
from isula_cri.streaming.websocket import Tunnel, WebSocket

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

    from isula_cri.streaming import Backend

    Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

__all__ = ["SpdyClient", "SpdyHandler", "WebSocketClient", "eventually", "raw", "shut", "streaming"]

_IDLE_S = 3600.0


@contextlib.asynccontextmanager
async def streaming(
    backend: Backend, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Streaming]:
    """A server that runs; the whole block must end within a minute."""
    made = Streaming(backend, tls=tls)
    await made.start()
    try:
        async with asyncio.timeout(60):
            yield made
    finally:
        await made.close()


async def raw(
    url: str, lines: Iterable[str], *, method: str = "POST", tls: ssl.SSLContext | None = None
) -> tuple[str, Streams]:
    """Sends the head of a request: the head of the answer, and what the connection is then."""
    place = urllib.parse.urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port, ssl=tls)
    target = place.path + (f"?{place.query}" if place.query else "")
    head = [f"{method} {target} HTTP/1.1", f"Host: {place.netloc}", *lines, "", ""]
    writer.write("\r\n".join(head).encode())
    answer = b""
    with contextlib.suppress(asyncio.IncompleteReadError):
        answer = await reader.readuntil(b"\r\n\r\n")
    return answer.decode(), (reader, writer)


async def shut(writer: asyncio.StreamWriter) -> None:
    """Closes a connection, however its other end is."""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def eventually(true: Callable[[], bool]) -> None:
    """Lets the others work until ``true``; the test's time-out bounds it."""
    while not true():  # noqa: ASYNC110 - what is waited for tells nobody
        await asyncio.sleep(0.001)


def _header(head: str, name: str) -> str:
    for line in head.split("\r\n"):
        if line.lower().startswith(name + ":"):
            return line.partition(":")[2].strip()
    return ""


@dataclass
class SpdyHandler:
    """Keeps what comes: bytes, or only their number when ``counts``."""

    counts: bool = False
    data: dict[int, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    sizes: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    over: set[int] = field(default_factory=set)
    resets: set[int] = field(default_factory=set)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def opened(self, stream: Stream) -> bool:
        return True

    def received(self, stream: Stream, data: bytes) -> None:
        self.sizes[stream.number] += len(data)
        if not self.counts:
            self.data[stream.number] += data
        self.moved.set()

    def ended(self, stream: Stream) -> None:
        self.over.add(stream.number)
        self.moved.set()

    def reset(self, stream: Stream) -> None:
        self.over.add(stream.number)
        self.resets.add(stream.number)
        self.moved.set()

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():
            self.moved.clear()
            await self.moved.wait()


class _Client:
    tcp: TcpLink

    @contextlib.contextmanager
    def tcp_paused(self) -> Iterator[None]:
        """Reads nothing of its socket within the block."""
        transport = self.tcp._writer.transport
        transport.pause_reading()  # type: ignore[attr-defined]
        try:
            yield
        finally:
            transport.resume_reading()  # type: ignore[attr-defined]


class SpdyClient(_Client):
    """A SPDY session with the server, over TCP or through a WebSocket."""

    def __init__(self, link: TcpLink | Tunnel, protocol: str, tcp: TcpLink) -> None:
        self.protocol = protocol
        self.tcp = tcp
        self.handler = SpdyHandler()
        self.connection = Connection(link, self.handler, Budget(), client=True)
        self.reading = asyncio.create_task(self._read())

    @classmethod
    async def connect(
        cls, url: str, protocols: Sequence[str], tls: ssl.SSLContext | None = None
    ) -> SpdyClient:
        lines = ["Connection: Upgrade", "Upgrade: SPDY/3.1", "Content-Length: 0"]
        lines += [f"X-Stream-Protocol-Version: {name}" for name in protocols]
        head, streams = await raw(url, lines, tls=tls)
        assert head.startswith("HTTP/1.1 101 "), head
        assert _header(head, "upgrade") == "SPDY/3.1"
        link = TcpLink(*streams, idle_s=_IDLE_S)
        return cls(link, _header(head, "x-stream-protocol-version"), link)

    @classmethod
    async def tunnel(cls, url: str, protocol: str) -> SpdyClient:
        websocket = await WebSocketClient.connect(url, [protocol])
        return cls(Tunnel(websocket.websocket), websocket.protocol, websocket.tcp)

    async def _read(self) -> None:
        await self.connection.run()
        self.handler.moved.set()

    async def open(self, *names: str, **headers: str) -> list[Stream]:
        return [await self.connection.open({"streamType": name, **headers}) for name in names]

    def got(self, stream: Stream) -> bytes:
        return bytes(self.handler.data[stream.number])

    async def all_of(self, stream: Stream) -> bytes:
        """What the server sends on a stream until its end."""
        over = self.handler.over
        await self.handler.until(lambda: stream.number in over or self.reading.done())
        return self.got(stream)

    async def close(self) -> None:
        self.reading.cancel()
        await asyncio.gather(self.reading, return_exceptions=True)
        await self.tcp.close()


class WebSocketClient(_Client):
    """A WebSocket to the server; what it reads is kept by channel."""

    def __init__(self, tcp: TcpLink, protocol: str) -> None:
        self.tcp = tcp
        self.protocol = protocol
        self.websocket = WebSocket(tcp, client=True)

    @classmethod
    async def connect(cls, url: str, protocols: Sequence[str]) -> WebSocketClient:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            "Connection: Upgrade",
            "Upgrade: websocket",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        ]
        if protocols:
            lines.append(f"Sec-WebSocket-Protocol: {', '.join(protocols)}")
        head, streams = await raw(url, lines, method="GET")
        assert head.startswith("HTTP/1.1 101 "), head
        assert _header(head, "sec-websocket-accept")
        return cls(TcpLink(*streams, idle_s=_IDLE_S), _header(head, "sec-websocket-protocol"))

    async def send(self, channel: int, data: bytes) -> None:
        await self.websocket.send(bytes([channel]) + data)

    async def channels(self) -> dict[int, bytes]:
        """All that comes on each channel until the server closes."""
        found: dict[int, bytes] = defaultdict(bytes)
        message = b""
        while (pieces := await self.websocket.read()) is not None:
            for piece, last in pieces:
                message += piece
                if last:
                    found[message[0]] += message[1:]
                    message = b""
        return found

    async def close(self) -> None:
        await self.tcp.close()
