"""SPDY sessions: streams, their ends, and flow control both ways."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from isula_cri.streaming import spdy
from isula_cri.streaming.connection import Connection, Stream
from isula_cri.streaming.inbox import Budget, Inbox
from tests.fakes.streaming_clients import SpdyHandler, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class MemoryLink:
    """What is read is what a test puts in; what is written is decoded."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self.decoder = spdy.Decoder()
        self.frames: list[spdy.Frame] = []
        self.wrote = asyncio.Event()
        self.holds = 0

    async def read(self) -> bytes:
        return await self.incoming.get()

    async def write(self, *parts: bytes) -> None:
        self.frames += self.decoder.feed(b"".join(parts))
        self.wrote.set()

    async def hold(self, budget: Budget) -> None:
        self.holds += 1
        await budget.room()

    async def until(self, *frames: spdy.Frame) -> None:
        while not all(frame in self.frames for frame in frames):
            self.wrote.clear()
            await self.wrote.wait()

    def sent(self, stream: int) -> bytes:
        data = (frame for frame in self.frames if isinstance(frame, spdy.Data))
        return b"".join(frame.data for frame in data if frame.stream == stream)


class Peer:
    """A server's session and the client's bytes for it."""

    def __init__(self, handler: SpdyHandler | None = None) -> None:
        self.link = MemoryLink()
        self.handler = handler or SpdyHandler()
        self.budget = Budget()
        self.connection = Connection(self.link, self.handler, self.budget)
        self.encoder = spdy.Encoder()

    def say(self, *data: bytes) -> None:
        self.link.incoming.put_nowait(b"".join(data))

    async def stream(self, number: int = 1) -> Stream:
        self.say(self.encoder.syn_stream(number, {"a": "b"}))
        await self.link.until(spdy.SynReply(number, {}))
        return self.connection.streams[number]


@contextlib.asynccontextmanager
async def session(handler: SpdyHandler | None = None) -> AsyncIterator[Peer]:
    peer = Peer(handler)
    task = asyncio.create_task(peer.connection.run())
    try:
        async with asyncio.timeout(30):
            yield peer
            peer.say(b"")
            await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_pings_of_the_client_are_answered_and_ours_are_not() -> None:
    async def work() -> None:
        async with session() as peer:
            peer.say(spdy.ping(2), spdy.ping(1))
            await peer.link.until(spdy.Ping(1))
            assert peer.link.frames == [spdy.Ping(1)]

    asyncio.run(work())


def test_both_sides_end_a_stream_and_it_is_forgotten() -> None:
    async def work() -> None:
        async with session() as peer:
            stream = await peer.stream()
            await stream.send(b"abc")
            await stream.end()
            await stream.end()
            await stream.send(b"not sent")
            assert peer.link.frames[1:] == [spdy.Data(1, b"abc"), spdy.Data(1, b"", True)]
            assert peer.connection.streams == {1: stream}
            peer.say(spdy.data_header(1, 2, fin=True), b"xy")
            await peer.handler.until(lambda: 1 in peer.handler.over)
            assert bytes(peer.handler.data[1]) == b"xy"
            assert not peer.connection.streams

    asyncio.run(work())


def test_a_reset_ends_both_ways() -> None:
    async def work() -> None:
        async with session() as peer:
            first, second = await peer.stream(1), await peer.stream(3)
            peer.say(spdy.rst_stream(1, spdy.CANCEL))
            await peer.handler.until(lambda: 1 in peer.handler.resets)
            await first.send(b"lost")
            await second.reset()
            assert not peer.connection.streams
            assert peer.link.frames[2:] == [spdy.RstStream(3, spdy.CANCEL)]

    asyncio.run(work())


def test_data_for_a_stream_that_was_never_opened_is_answered_with_a_reset() -> None:
    async def work() -> None:
        async with session() as peer:
            stream = await peer.stream(5)
            await stream.reset()
            peer.say(spdy.data_header(5, 1), b"x", spdy.data_header(9, 1), b"x")
            await peer.link.until(spdy.RstStream(9, spdy.INVALID_STREAM))
            assert not peer.handler.data

    asyncio.run(work())


@pytest.mark.parametrize("numbers", [(2,), (1, 1), (3, 1)])
def test_a_stream_with_a_wrong_number_ends_the_session(numbers: tuple[int, ...]) -> None:
    async def work() -> None:
        async with session() as peer:
            peer.say(*(peer.encoder.syn_stream(number, {}) for number in numbers))
            last = max((number for number in numbers[:-1]), default=0)
            await peer.link.until(spdy.GoAway(last, spdy.GOAWAY_PROTOCOL_ERROR))

    asyncio.run(work())


def test_a_client_without_flow_control_gets_all_at_once() -> None:
    """The SPDY of Kubernetes' clients never sends WINDOW_UPDATE."""

    async def work() -> None:
        async with session() as peer:
            await (await peer.stream()).send(b"x" * 1_000_000)
            assert len(peer.link.sent(1)) == 1_000_000

    asyncio.run(work())


def test_a_window_that_the_client_keeps_is_kept() -> None:
    async def work() -> None:
        async with session() as peer:
            peer.say(spdy.settings({spdy.SETTINGS_INITIAL_WINDOW: 1000}))
            stream = await peer.stream()
            sending = asyncio.create_task(stream.send(bytes(range(256)) * 16))
            await peer.link.until(spdy.Data(1, (bytes(range(256)) * 4)[:1000]))
            peer.say(spdy.window_update(1, 96))
            await peer.link.until(spdy.Data(1, (bytes(range(256)) * 5)[1000:1096]))
            peer.say(spdy.settings({spdy.SETTINGS_INITIAL_WINDOW: 900}), spdy.ping(1))
            await peer.link.until(spdy.Ping(1))
            assert len(peer.link.sent(1)) == 1096
            assert stream.window == -100
            peer.say(spdy.window_update(1, 3100))
            await sending
            assert peer.link.sent(1) == bytes(range(256)) * 16

    asyncio.run(work())


def test_a_window_beyond_all_bounds_ends_its_stream() -> None:
    async def work() -> None:
        async with session() as peer:
            await peer.stream()
            peer.say(spdy.window_update(1, spdy.MAX_WINDOW))
            await peer.link.until(spdy.RstStream(1, spdy.FLOW_CONTROL_ERROR))
            assert peer.handler.resets == {1}

    asyncio.run(work())


def test_who_waits_for_a_window_ends_with_the_session() -> None:
    async def work() -> None:
        async with session() as peer:
            peer.say(spdy.settings({spdy.SETTINGS_INITIAL_WINDOW: 0}))
            sending = asyncio.create_task((await peer.stream()).send(b"x"))
            peer.say(b"")
            await sending
            assert peer.link.sent(1) == b""

    asyncio.run(work())


class Unread(SpdyHandler):
    """Puts data into an inbox, as the server does."""

    inbox: Inbox
    budget: Budget

    def received(self, stream: Stream, data: bytes) -> None:
        super().received(stream, data)
        if not hasattr(self, "inbox"):
            self.inbox = Inbox(self.budget, stream.taken)
        self.inbox.data(data)


def test_what_is_taken_may_be_sent_again_and_what_is_not_stops_the_connection() -> None:
    async def work() -> None:
        handler = Unread(counts=True)
        async with session(handler) as peer:
            handler.budget = peer.budget
            await peer.stream()
            for _ in range(20):
                peer.say(spdy.data_header(1, 65536), b"x" * 65536)
            await handler.until(lambda: handler.sizes[1] >= 4 * 65536)
            assert peer.budget.full
            await eventually(lambda: peer.link.holds > 0)
            assert handler.sizes[1] == 4 * 65536
            for _ in range(20):
                assert await handler.inbox.get() == ("data", b"x" * 65536)
            assert peer.budget.used == 0
            assert peer.budget.peak == 4 * 65536
            assert peer.link.frames.count(spdy.WindowUpdate(1, 65536)) == 20

    asyncio.run(work())
