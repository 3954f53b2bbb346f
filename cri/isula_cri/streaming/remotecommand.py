"""Exec and attach: the channels of a client's session, over SPDY or a WebSocket.

v1 has no half close of stdin, v2 has; v3 brings the terminal's size, v4 the exit code as a
status; v5 is v4 with a half close over WebSockets too.

Source: k8s.io/apimachinery and k8s.io/client-go, package remotecommand.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from typing import TYPE_CHECKING, Protocol

from isula_cri.streaming.connection import Connection
from isula_cri.streaming.inbox import Budget, Inbox
from isula_cri.streaming.sizes import Sizes
from isula_cri.streaming.websocket import ChannelReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from isula_cri.streaming.connection import Stream
    from isula_cri.streaming.link import Link
    from isula_cri.streaming.requests import Wanted
    from isula_cri.streaming.status import Status
    from isula_cri.streaming.websocket import WebSocket

__all__ = [
    "SPDY_PROTOCOLS",
    "WEBSOCKET_PROTOCOLS",
    "Channels",
    "Session",
    "SpdyChannels",
    "WebSocketChannels",
]

V1, V2, V3, V4, V5 = (
    "channel.k8s.io",
    "v2.channel.k8s.io",
    "v3.channel.k8s.io",
    "v4.channel.k8s.io",
    "v5.channel.k8s.io",
)
_BASE64, _V4_BASE64 = "base64.channel.k8s.io", "v4.base64.channel.k8s.io"
SPDY_PROTOCOLS = (V5, V4, V3, V2, V1)
WEBSOCKET_PROTOCOLS = (V5, V4, V1, _V4_BASE64, _BASE64)
_NUMBERS = {"stdin": 0, "stdout": 1, "stderr": 2, "error": 3, "resize": 4}
_STDIN, _RESIZE, _CLOSE = 0, 4, 255


class Channels(Protocol):
    """The client's side of a session, whatever carries it."""

    budget: Budget
    inbox: Inbox
    """stdin, its end, and resizes."""
    ready: asyncio.Event
    """Set when the client has opened all that it must."""

    async def run(self) -> None:
        """Reads until the client is gone."""

    async def send(self, name: str, data: bytes) -> None:
        """Sends on "stdout", "stderr" …; ConnectionError when the client is gone."""

    async def finish(self, status: Status) -> None:
        """Tells the client that all has been sent, and how it ended; ConnectionError."""


class Session:
    """What the engine's exec and attach see: see :class:`isula_edge.container.streams.Session`."""

    def __init__(self, channels: Channels, wanted: Wanted) -> None:
        self._channels = channels
        self._wanted = wanted
        self._gone = False

    async def out(self, data: bytes) -> None:
        """Standard output; returns when the client has taken enough of it, or is gone."""
        if self._wanted.stdout:
            await self._send("stdout", data)

    async def err(self, data: bytes) -> None:
        """Standard error."""
        if self._wanted.stderr:
            await self._send("stderr", data)

    async def _send(self, name: str, data: bytes) -> None:
        if self._gone or not data:
            return
        try:
            await self._channels.send(name, data)
        except ConnectionError:
            self.leave()

    async def input(self) -> AsyncIterator[tuple[str, object]]:
        """("data", bytes), ("eof", None), ("resize", (rows, columns)) until the client is gone."""
        while (found := await self._channels.inbox.get()) is not None:
            yield found

    def leave(self) -> None:
        """The client is gone: input ends, output is dropped."""
        self._gone = True
        self._channels.inbox.end()


class _Common:
    """What both kinds of channels do with what the client sends."""

    def __init__(self, wanted: Wanted, protocol: str) -> None:
        self.wanted = wanted
        self.version = protocol or V1
        self.budget = Budget()
        self.inbox = Inbox(self.budget)
        self.ready = asyncio.Event()
        self._sizes = Sizes()
        self._stdin_ended = False

    def stdin(self, data: bytes) -> None:
        """Data for the command."""
        if self.wanted.stdin and not self._stdin_ended:
            self.inbox.data(data)

    def end_stdin(self) -> None:
        """The client has no more data."""
        if self.wanted.stdin and not self._stdin_ended:
            self._stdin_ended = True
            self.inbox.event("eof", None)

    def resize(self, data: bytes) -> None:
        """A piece of the terminal's new size."""
        for size in self._sizes.feed(data):
            self.inbox.event("resize", size)

    def outcome(self, status: Status) -> bytes:
        """What the error channel says."""
        return status.json() if self.version in {V4, V5, _V4_BASE64} else status.text()


class SpdyChannels(_Common):
    """Streams that the client opens, with their names in the header streamType."""

    def __init__(self, link: Link, wanted: Wanted, protocol: str) -> None:
        super().__init__(wanted, protocol)
        self._connection = Connection(link, self, self.budget)
        self._streams: dict[str, Stream] = {}
        self.inbox = Inbox(self.budget, self._taken)
        self._expected = {"error"}
        self._expected |= {name for name in ("stdin", "stdout", "stderr") if getattr(wanted, name)}
        if wanted.tty and self.version not in {V1, V2}:
            self._expected.add("resize")

    # the connection's side

    def opened(self, stream: Stream) -> bool:
        """Takes each of the known streams once."""
        name = stream.headers.get("streamtype", "")
        if name not in _NUMBERS or name in self._streams:
            return False
        self._streams[name] = stream
        if self._streams.keys() >= self._expected:
            self.ready.set()
        return True

    def received(self, stream: Stream, data: bytes) -> None:
        """Data of the client's."""
        if stream is self._streams.get("stdin"):
            self.stdin(data)
        elif stream is self._streams.get("resize"):
            self.resize(data)

    def ended(self, stream: Stream) -> None:
        """A half close, which v1 does not know."""
        if stream is self._streams.get("stdin") and self.version != V1:
            self.end_stdin()

    def reset(self, stream: Stream) -> None:
        """As the end, in every version."""
        if stream is self._streams.get("stdin"):
            self.end_stdin()

    async def _taken(self, size: int) -> None:
        if stream := self._streams.get("stdin"):
            await stream.taken(size)

    # the session's side

    async def run(self) -> None:
        """Reads until the client is gone."""
        await self._connection.run()

    async def send(self, name: str, data: bytes) -> None:
        """Sends on a stream; ConnectionError when the client is gone."""
        if self._connection.is_over:
            raise ConnectionResetError("the client left")
        await self._streams[name].send(data)

    async def finish(self, status: Status) -> None:
        """Ends all streams, that of the status last; ConnectionError."""
        for name in ("stdin", "stdout", "stderr", "resize"):
            if stream := self._streams.get(name):
                await stream.end()
        if (stream := self._streams.get("stdin")) and not stream.got_fin:
            await stream.reset()  # a client that waits for room need wait no more
        if "error" in self._streams:
            if outcome := self.outcome(status):
                await self._streams["error"].send(outcome)
            await self._streams["error"].end()
        await self._connection.goaway()


class WebSocketChannels(_Common):
    """Messages whose first byte is the channel."""

    def __init__(self, websocket: WebSocket, wanted: Wanted, protocol: str) -> None:
        super().__init__(wanted, protocol)
        self._websocket = websocket
        self._base64 = self.version in {_BASE64, _V4_BASE64}
        self._reader = ChannelReader(ord("0") if self._base64 else 0)
        self._part = b""
        self.ready.set()

    async def run(self) -> None:
        """Reads until the client is gone or closes the WebSocket."""
        # an empty message tells the client at once that the session has begun
        with contextlib.suppress(ConnectionError):
            await self.send("stdout" if self.wanted.stdout else "error", b"")
            while (pieces := await self._websocket.read()) is not None:
                for data, last in pieces:
                    self._piece(data, last)
                if self.budget.full:
                    await self._websocket.link.hold(self.budget)

    def _piece(self, data: bytes, last: bool) -> None:
        channel, data = self._reader.take(data, last)
        if channel == _CLOSE and self.version == V5:
            self._part = (self._part + data)[:2]
            if last and self._part == bytes([_STDIN]):
                self.end_stdin()
        elif channel in {_STDIN, _RESIZE}:
            content = self._decoded(data, last) if self._base64 else data
            if channel == _RESIZE:
                self.resize(content)
            elif content:
                self.stdin(content)
        if last:
            self._part = b""

    def _decoded(self, data: bytes, last: bool) -> bytes:
        """Whole groups of four; what is no base64 is dropped."""
        data = self._part + data
        whole = len(data) if last else len(data) // 4 * 4
        self._part = data[whole:]
        try:
            return base64.b64decode(data[:whole], validate=True)
        except binascii.Error:
            return b""

    async def send(self, name: str, data: bytes) -> None:
        """Sends a message; ConnectionError when the client is gone."""
        number = _NUMBERS[name]
        if self._base64:
            await self._websocket.send(b"%d" % number + base64.b64encode(data), text=True)
        else:
            await self._websocket.send(bytes([number]) + data)

    async def finish(self, status: Status) -> None:
        """Sends the status, and closes the WebSocket; ConnectionError."""
        if outcome := self.outcome(status):
            await self.send("error", outcome)
        await self._websocket.close()
