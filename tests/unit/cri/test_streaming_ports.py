"""Port forwarding: pairs of streams, the tunnel through a WebSocket, and the old channels."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from isula_cri import messages
from isula_cri.streaming import portforward
from isula_cri.streaming.inbox import Budget
from isula_cri.streaming.portforward import ports_of
from tests.fakes.local_commands import MISSING, LocalCommands
from tests.fakes.streaming_clients import (
    SpdyClient,
    WebSocketClient,
    eventually,
    raw,
    shut,
    streaming,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from isula_cri.streaming import Streaming
    from isula_cri.streaming.connection import Stream

    Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PROTOCOL = "portforward.k8s.io"
TUNNEL = f"SPDY/3.1+{PROTOCOL}"
CHANNELS = "v4.channel.k8s.io"
CLOSED = 1
"""A port that nothing listens on."""


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends back all that comes, and says so after the client's end."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b"END")


async def first_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends all and ends before it reads."""
    writer.write(b"hello")
    writer.write_eof()
    received = await reader.read(-1)
    FINISHED.append(received)


FINISHED: list[bytes] = []


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Neither reads nor sends until the other side is gone."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(3600)
    del reader


@contextlib.asynccontextmanager
async def inside(serve: Serve) -> AsyncIterator[int]:
    """A server inside the pod: its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def url_of(server: Streaming, *ports: int, ref: str = "pod") -> str:
    request = messages.PortForwardRequest(pod_sandbox_id=ref, port=ports)
    return server.url("portforward", request)


async def pair(client: SpdyClient, port: int, request_id: str = "0") -> tuple[Stream, Stream]:
    headers = {"port": str(port), "requestID": request_id}
    [error] = await client.open("error", **headers)
    await error.end()
    [data] = await client.open("data", **headers)
    return data, error


async def dial(server: Streaming, kind: str, ref: str = "pod") -> SpdyClient:
    url = url_of(server, ref=ref)
    if kind == TUNNEL:
        client = await SpdyClient.tunnel(url, TUNNEL)
    else:
        client = await SpdyClient.connect(url, [PROTOCOL])
    assert client.protocol == kind
    return client


@pytest.mark.parametrize("kind", [PROTOCOL, TUNNEL])
def test_many_pairs_at_once_with_a_half_close_each(kind: str) -> None:
    async def one(client: SpdyClient, port: int, number: int) -> None:
        content = bytes([number]) * (100_000 + number)
        data, error = await pair(client, port, str(number))
        await data.send(content)
        await data.end()
        assert await client.all_of(data) == content + b"END"
        assert await client.all_of(error) == b""
        assert not {data.number, error.number} & client.handler.resets

    async def work() -> None:
        async with streaming(LocalCommands()) as server, inside(echo) as port:
            client = await dial(server, kind)
            await asyncio.gather(*(one(client, port, number) for number in range(60)))
            assert not client.connection.streams
            await client.close()

    asyncio.run(work())


def test_the_pods_side_may_end_first() -> None:
    async def work() -> None:
        FINISHED.clear()
        async with streaming(LocalCommands()) as server, inside(first_the_end) as port:
            client = await dial(server, PROTOCOL)
            data, error = await pair(client, port)
            assert await client.all_of(data) == b"hello"
            assert error.number not in client.handler.over
            await data.send(b"still ")
            await data.send(b"here")
            await data.end()
            assert await client.all_of(error) == b""
            await eventually(lambda: bool(FINISHED))
            assert FINISHED == [b"still here"]
            await client.close()

    asyncio.run(work())


@pytest.mark.parametrize("ref", ["pod", MISSING])
def test_a_port_that_cannot_be_reached_is_told_on_the_error_stream(ref: str) -> None:
    async def work() -> None:
        async with streaming(LocalCommands()) as server, inside(echo) as port:
            client = await dial(server, PROTOCOL, ref)
            data, error = await pair(client, CLOSED)
            text = (await client.all_of(error)).decode()
            assert text.startswith("error forwarding port 1: ")
            assert ("No such pod" in text) is (ref == MISSING)
            assert await client.all_of(data) == b""
            if ref != MISSING:
                data, _ = await pair(client, port, "1")
                await data.end()
                assert await client.all_of(data) == b"END"
            await client.close()

    asyncio.run(work())


@pytest.mark.parametrize(
    "headers",
    [
        {"streamType": "data"},
        {"streamType": "data", "port": "0"},
        {"streamType": "data", "port": "65536"},
        {"streamType": "data", "port": "-1"},
        {"streamType": "data", "port": "²"},
        {"streamType": "stdin", "port": "80"},
        {"port": "80"},
    ],
)
def test_streams_with_wrong_headers_are_refused(headers: dict[str, str]) -> None:
    async def work() -> None:
        async with streaming(LocalCommands()) as server, inside(echo) as port:
            client = await dial(server, PROTOCOL)
            stream = await client.connection.open(headers)
            await client.handler.until(lambda: stream.number in client.handler.resets)
            data, _ = await pair(client, port)
            await data.end()
            assert await client.all_of(data) == b"END"
            await client.close()

    asyncio.run(work())


def test_a_session_has_256_pairs_at_most() -> None:
    async def work() -> None:
        async with streaming(LocalCommands()) as server:
            client = await dial(server, PROTOCOL)
            for number in range(257):
                [error] = await client.open("error", port="80", requestID=str(number))
            await client.handler.until(lambda: bool(client.handler.resets))
            assert client.handler.resets == {error.number}
            await client.close()

    asyncio.run(work())


def test_streams_without_an_id_are_pairs_by_their_numbers() -> None:
    async def work() -> None:
        async with streaming(LocalCommands()) as server, inside(echo) as port:
            client = await dial(server, PROTOCOL)
            for _ in range(3):
                _, data = await client.open("error", "data", port=str(port))
                await data.end()
                assert await client.all_of(data) == b"END"
            await client.close()

    asyncio.run(work())


def test_a_second_stream_that_does_not_come_ends_the_first() -> None:
    async def work() -> None:
        async with streaming(LocalCommands()) as server:
            server.creation_s = 0.05
            client = await dial(server, PROTOCOL)
            [error] = await client.open("error", port="80", requestID="a")
            [data] = await client.open("data", port="80", requestID="b")
            assert await client.all_of(error) == b"timed out waiting for streams"
            await client.handler.until(lambda: data.number in client.handler.resets)
            await client.close()

    asyncio.run(work())


def test_a_reset_of_the_client_ends_the_connection_inside_the_pod() -> None:
    async def work() -> None:
        ended = asyncio.Event()

        async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"x")
            await reader.read()
            ended.set()

        async with streaming(LocalCommands()) as server, inside(watch) as port:
            client = await dial(server, PROTOCOL)
            data, error = await pair(client, port)
            await client.handler.until(lambda: client.got(data) == b"x")
            await data.reset()
            await ended.wait()
            assert await client.all_of(error) == b""
            await client.close()

    asyncio.run(work())


@pytest.mark.parametrize("kind", [PROTOCOL, TUNNEL])
def test_a_client_that_leaves_ends_every_connection(kind: str) -> None:
    async def work() -> None:
        ended: list[int] = []

        async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"x")
            await reader.read()
            ended.append(1)

        async with streaming(LocalCommands()) as server, inside(watch) as port:
            client = await dial(server, kind)
            pairs = [await pair(client, port, str(number)) for number in range(5)]
            for data, _ in pairs:
                await client.handler.until(lambda data=data: client.got(data) == b"x")  # type: ignore[misc]
            await client.close()
            await eventually(lambda: len(ended) == 5 and not server._sessions)

    asyncio.run(work())


def test_a_port_that_takes_nothing_stops_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    budgets: list[Budget] = []

    class Known(Budget):
        def __init__(self) -> None:
            super().__init__()
            budgets.append(self)

    monkeypatch.setattr(portforward, "Budget", Known)

    async def work() -> None:
        async with streaming(LocalCommands()) as server, inside(silent) as port:
            client = await dial(server, PROTOCOL)
            pairs = [await pair(client, port, str(number)) for number in range(8)]
            sending = [asyncio.create_task(data.send(b"x" * 50_000_000)) for data, _ in pairs]
            await eventually(lambda: budgets[0].full)
            assert budgets[0].peak < 400_000
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)
            await client.close()
            await eventually(lambda: not server._sessions)
            assert budgets[0].used == 0

    asyncio.run(work())


def test_the_old_form_has_two_channels_for_each_port() -> None:
    async def work() -> None:
        async with streaming(LocalCommands()) as server, inside(echo) as port:
            url = url_of(server, port, CLOSED)
            client = await WebSocketClient.connect(url, [CHANNELS])
            assert client.protocol == CHANNELS
            await client.send(0, b"ping")
            await client.send(1, b"nothing reads this")
            await client.send(9, b"nor this")
            number = port.to_bytes(2, "little")
            expected = {0: number + b"ping", 1: number, 2: b"\1\0"}
            got: dict[int, bytes] = {0: b"", 1: b"", 2: b"", 3: b""}
            while got[0] != expected[0] or b"error forwarding port 1" not in got[3]:
                for piece, last in await client.websocket.read() or ():
                    assert last
                    got[piece[0]] += piece[1:]
            assert {**got, 3: b""} == {**expected, 3: b""}
            assert got[3].startswith(b"\1\0")
            await client.websocket.close()
            await eventually(lambda: not server._sessions)
            await client.close()

    asyncio.run(work())


def test_the_old_form_ends_when_all_ports_have_ended() -> None:
    async def work() -> None:
        async with streaming(LocalCommands()) as server, inside(first_the_end) as port:
            client = await WebSocketClient.connect(url_of(server) + f"?port={port},{CLOSED}", [])
            found = await client.channels()
            assert found[0] == port.to_bytes(2, "little") + b"hello"
            assert b"error forwarding port 1" in found[3]
            await client.close()

    asyncio.run(work())


def test_the_old_form_needs_ports() -> None:
    async def work() -> None:
        async with streaming(LocalCommands()) as server:
            lines = [
                "Connection: Upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
                "Sec-WebSocket-Version: 13",
            ]
            head, (_, writer) = await raw(url_of(server) + "?port=x", lines, method="GET")
            assert head.startswith("HTTP/1.1 400 ")
            await shut(writer)

    asyncio.run(work())


def test_ports_of_a_url() -> None:
    assert ports_of({"port": ["80,443", "8080"]}) == (80, 443, 8080)
    assert ports_of({"port": ["", "x", "0", "99999999999999999999"], "other": ["1"]}) == ()
