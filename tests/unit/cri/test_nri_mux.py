"""Connections over one socket: the bytes, what a plugin in Go can read, and hostile bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isula_cri.nri.mux import MAX_PAYLOAD, PLUGIN, RUNTIME, Mux, frames

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def mux() -> AsyncIterator[tuple[Mux, asyncio.Task[None], Streams]]:
    """A mux that runs, and the other end of its socket."""
    ours, theirs = socket.socketpair()
    made = Mux(*await asyncio.open_unix_connection(sock=ours), (PLUGIN, RUNTIME))
    task = asyncio.create_task(made.run())
    other = await asyncio.open_unix_connection(sock=theirs)
    try:
        async with asyncio.timeout(30):
            yield made, task, other
    finally:
        other[1].close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_short_message_is_one_frame() -> None:
    assert frames(2, b"abc") == b"\0\0\0\x02\0\0\0\x03abc"


@pytest.mark.parametrize("size", [4096, 4097, 10_000, MAX_PAYLOAD])
def test_the_frames_of_a_long_message_fit_a_reader_in_go(size: int) -> None:
    """Its buffer is 4096 bytes while it reads a header, and it keeps 256 unread frames."""
    message = bytes(range(256)) * (size // 256 + 1)
    data, parts = frames(1, message[:size]), []
    while data:
        number, length = struct.unpack(">II", data[:8])
        assert number == 1
        parts.append(data[8 : 8 + length])
        data = data[8 + length :]
    assert b"".join(parts) == message[:size]
    assert len(parts[0]) <= 4096
    assert len(parts) <= 2


def test_connections_do_not_mix() -> None:
    async def work() -> None:
        async with mux() as (made, task, (reader, writer)):
            parts = ((1, b"a"), (2, b"x"), (7, b"?"), (1, b"bc"), (2, b""), (2, b"yz"))
            for number, data in parts:
                writer.write(struct.pack(">II", number, len(data)) + data)
            assert await made.channels[PLUGIN].readexactly(3) == b"abc"
            assert await made.channels[RUNTIME].readexactly(3) == b"xyz"
            made.channels[RUNTIME].write(b"out")
            await made.channels[RUNTIME].drain()
            assert await reader.readexactly(11) == b"\0\0\0\x02\0\0\0\x03out"
            writer.close()
            await task
            for channel in made.channels.values():
                with pytest.raises(asyncio.IncompleteReadError):
                    await channel.readexactly(1)

    asyncio.run(work())


def test_a_frame_that_is_too_large_ends_all() -> None:
    async def work() -> None:
        async with mux() as (made, task, (reader, writer)):
            writer.write(struct.pack(">II", 1, MAX_PAYLOAD + 1) + b"data")
            await task
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            assert made.channels[PLUGIN].received.at_eof()

    asyncio.run(work())


def test_closing_a_connection_closes_the_socket() -> None:
    async def work() -> None:
        async with mux() as (made, task, (reader, _)):
            made.channels[PLUGIN].close()
            assert await reader.read() == b""
            await task

    asyncio.run(work())


@given(st.binary(max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_bytes_end_without_an_error(data: bytes) -> None:
    async def work() -> Any:
        async with mux() as (_, task, (_, writer)):
            writer.write(data)
            writer.write_eof()
            return await task

    assert asyncio.run(work()) is None
