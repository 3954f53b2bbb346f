"""A SPDY session: its streams, and flow control both ways.

The SPDY of Kubernetes (spdystream) neither sends nor heeds WINDOW_UPDATE.  So a peer's
window binds us only after it has shown that it keeps windows, by a WINDOW_UPDATE or by
SETTINGS with an initial size; until then TCP alone slows us down.  Ours is always kept up.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

from isula_cri.streaming import spdy
from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isula_cri.streaming.inbox import Budget
    from isula_cri.streaming.link import Link

__all__ = ["Connection", "Handler", "Stream"]

_FRAME = 32768
_MAX_STREAMS = 1024
_UPDATE = spdy.INITIAL_WINDOW // 2


class Handler(Protocol):
    """Who is told what the peer does; nothing here may wait."""

    def opened(self, stream: Stream) -> bool:
        """A stream of the peer's; False refuses it."""

    def received(self, stream: Stream, data: bytes) -> None:
        """Data, to be counted in the budget, and to be told to :meth:`Stream.taken` later."""

    def ended(self, stream: Stream) -> None:
        """The peer has sent all."""

    def reset(self, stream: Stream) -> None:
        """The peer wants the stream no more, both ways."""


class Stream:
    """One stream of a session; ``headers`` are those that opened it."""

    def __init__(
        self, connection: Connection, number: int, headers: Mapping[str, str], window: int
    ) -> None:
        self._connection = connection
        self.number = number
        self.headers = headers
        self.window = window
        """Bytes that the peer lets us send; below zero when it has lowered its window."""
        self.moved = asyncio.Event()
        self.sent_fin = self.got_fin = self.is_reset = False
        self._taken = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more goes either way."""
        return self.is_reset or (self.sent_fin and self.got_fin)

    async def send(self, data: bytes) -> None:
        """Sends data, when the peer has room for it; nothing after an end or a reset.

        Raises ConnectionError when the peer is gone.
        """
        for at in range(0, len(data), _FRAME):
            part = data[at : at + _FRAME]
            while part and not (self.sent_fin or self.is_reset):
                size = min(len(part), await self._room())
                if not size:
                    break
                self.window -= size
                head = spdy.data_header(self.number, size)
                await self._connection.link.write(head, part[:size])
                part = part[size:]

    async def _room(self) -> int:
        """How many bytes may be sent, at least one; 0 when the stream has ended."""
        while self._connection.keeps_windows and self.window <= 0:
            if self.is_reset or self._connection.is_over:
                return 0
            self.moved.clear()
            await self.moved.wait()
        return self.window if self._connection.keeps_windows else _FRAME

    async def end(self) -> None:
        """Tells the peer that nothing more comes; a second call does nothing."""
        if self.sent_fin or self.is_reset:
            return
        self.sent_fin = True
        self._connection.tidy(self)
        await self._connection.link.write(spdy.data_header(self.number, 0, fin=True))

    async def reset(self, status: int = spdy.CANCEL) -> None:
        """Ends the stream both ways; a second call does nothing."""
        if self.is_over:
            return
        self.is_reset = True
        self._connection.tidy(self)
        await self._connection.link.write(spdy.rst_stream(self.number, status))

    async def taken(self, size: int) -> None:
        """Lets the peer send as many bytes again."""
        self._taken += size
        if self._taken < _UPDATE or self.got_fin or self.is_reset or self._connection.is_over:
            return
        delta, self._taken = self._taken, 0
        with contextlib.suppress(ConnectionError):
            await self._connection.link.write(spdy.window_update(self.number, delta))


class Connection:
    """A session over ``link``; ``budget`` is what ``handler`` counts unread data in."""

    def __init__(self, link: Link, handler: Handler, budget: Budget, *, client: bool = False):
        self.link = link
        self._handler = handler
        self._budget = budget
        self._client = client
        self._encoder, self._decoder = spdy.Encoder(), spdy.Decoder()
        self.streams: dict[int, Stream] = {}
        self.keeps_windows = self.is_over = False
        self._window = spdy.INITIAL_WINDOW
        self._last, self._next = 0, 1 if client else 2

    async def run(self) -> None:
        """Reads until the peer is gone, or sends what is no SPDY."""
        try:
            while data := await self.link.read():
                for frame in self._decoder.feed(data):
                    await self._dispatch(frame)
                if self._budget.full:
                    await self.link.hold(self._budget)
        except ConnectionError:
            pass
        except errors.InvalidArgument:
            with contextlib.suppress(ConnectionError):
                await self.goaway(spdy.GOAWAY_PROTOCOL_ERROR)
        finally:
            self.is_over = True
            for stream in list(self.streams.values()):
                stream.moved.set()

    async def open(self, headers: Mapping[str, str]) -> Stream:
        """A new stream of ours."""
        stream = Stream(self, self._next, dict(headers), self._window)
        self._next += 2
        self.streams[stream.number] = stream
        await self.link.write(self._encoder.syn_stream(stream.number, headers))
        return stream

    async def goaway(self, status: int = spdy.GOAWAY_OK) -> None:
        """Tells the peer that no stream is accepted any more."""
        await self.link.write(spdy.goaway(self._last, status))

    def tidy(self, stream: Stream) -> None:
        """Forgets a stream that is over."""
        if stream.is_over:
            self.streams.pop(stream.number, None)
        stream.moved.set()

    async def _dispatch(self, frame: spdy.Frame) -> None:
        if isinstance(frame, spdy.Data):
            await self._data(frame)
        elif isinstance(frame, spdy.SynStream):
            await self._opened(frame)
        elif isinstance(frame, spdy.SynReply | spdy.Headers):
            if frame.fin and (stream := self.streams.get(frame.stream)):
                self._ended(stream)
        elif isinstance(frame, spdy.RstStream):
            if stream := self.streams.get(frame.stream):
                stream.is_reset = True
                self.tidy(stream)
                self._handler.reset(stream)
        elif isinstance(frame, spdy.WindowUpdate):
            await self._window_update(frame)
        elif isinstance(frame, spdy.Settings):
            self._settings(frame)
        elif isinstance(frame, spdy.Ping) and bool(frame.number % 2) is not self._client:
            await self.link.write(spdy.ping(frame.number))

    async def _data(self, frame: spdy.Data) -> None:
        stream = self.streams.get(frame.stream)
        if stream is None:
            ours = frame.stream % 2 == (1 if self._client else 0)
            if frame.stream > (self._next - 2 if ours else self._last):
                await self.link.write(spdy.rst_stream(frame.stream, spdy.INVALID_STREAM))
            return  # what was on its way when the stream ended
        if stream.got_fin:
            return
        if frame.data:
            self._handler.received(stream, frame.data)
        if frame.fin:
            self._ended(stream)

    def _ended(self, stream: Stream) -> None:
        if not stream.got_fin:
            stream.got_fin = True
            self.tidy(stream)
            self._handler.ended(stream)

    async def _opened(self, frame: spdy.SynStream) -> None:
        number = frame.stream
        if number % 2 == (1 if self._client else 0) or number <= self._last:
            raise errors.InvalidArgument("SPDY: a stream has a wrong number", kind="stream")
        self._last = number
        stream = Stream(self, number, frame.headers, self._window)
        if len(self.streams) >= _MAX_STREAMS or not self._handler.opened(stream):
            await self.link.write(spdy.rst_stream(number, spdy.REFUSED_STREAM))
            return
        self.streams[number] = stream
        await self.link.write(self._encoder.syn_reply(number, {}))
        if frame.fin:
            self._ended(stream)

    async def _window_update(self, frame: spdy.WindowUpdate) -> None:
        self.keeps_windows = True
        if stream := self.streams.get(frame.stream):
            stream.window += frame.delta
            stream.moved.set()
            if stream.window > spdy.MAX_WINDOW:
                await stream.reset(spdy.FLOW_CONTROL_ERROR)
                self._handler.reset(stream)

    def _settings(self, frame: spdy.Settings) -> None:
        size = frame.values.get(spdy.SETTINGS_INITIAL_WINDOW)
        if size is None or size > spdy.MAX_WINDOW:
            return
        self.keeps_windows = True
        for stream in self.streams.values():
            stream.window += size - self._window
            stream.moved.set()
        self._window = size
