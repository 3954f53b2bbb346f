"""Hostile bytes never hang or break the streaming server, nor who uses it besides."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isula_cri import messages
from isula_cri.streaming import spdy
from isula_cri.streaming.portforward import TUNNEL
from isula_cri.streaming.sizes import Sizes
from tests.fakes.local_commands import LocalCommands
from tests.fakes.streaming_clients import eventually, raw, shut, streaming

if TYPE_CHECKING:
    from isula_cri.streaming import Streaming

SPDY = ("Connection: Upgrade", "Upgrade: SPDY/3.1")
WEBSOCKET = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Version: 13",
)
BYTES = st.binary(max_size=80)
_ENCODED = spdy.Encoder()
NAMES = "error stdin stdout stderr resize data".split()
OPENING = b"".join(
    _ENCODED.syn_stream(number, {"streamType": name, "port": "1", "requestID": "a"})
    for number, name in zip(range(1, 13, 2), NAMES, strict=True)
)
SPDY_FRAMES = st.builds(
    lambda kind, flags, body: struct.pack(">HHI", 0x8003, kind, flags << 24 | len(body)) + body,
    st.integers(0, 10),
    st.integers(0, 3),
    st.one_of(
        st.binary(max_size=12),
        st.builds(struct.pack, st.just(">II"), st.integers(0, 20), st.integers(0, 2**32 - 1)),
    ),
)
SPDY_DATA = st.builds(
    lambda stream, fin, body: spdy.data_header(stream, len(body), fin=fin) + body,
    st.integers(0, 13),
    st.booleans(),
    BYTES,
)
WEBSOCKET_FRAMES = st.builds(
    lambda first, masked, body: bytes([first, masked << 7 | len(body)]) + bytes(4 * masked) + body,
    st.integers(0, 255),
    st.booleans(),
    BYTES,
)
KINDS = st.sampled_from(["exec", "attach", "portforward"])


def url_of(server: Streaming, kind: str) -> str:
    if kind == "portforward":
        request = messages.PortForwardRequest(pod_sandbox_id="pod", port=[1])
    elif kind == "attach":
        request = messages.AttachRequest(container_id="a", stdin=True, stdout=True)
    else:
        flags = {"stdin": True, "stdout": True, "stderr": True}
        request = messages.ExecRequest(container_id="a", cmd=["cat"], **flags)
    return server.url(kind, request)


async def throw(kind: str, lines: tuple[str, ...], method: str, data: bytes) -> None:
    async with streaming(LocalCommands()) as server:
        head, (reader, writer) = await raw(url_of(server, kind), lines, method=method)
        assert " 101 " in head
        writer.write(data)
        writer.write_eof()
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass  # it hung up while there were bytes
        await shut(writer)
        await eventually(lambda: not server._sessions)
        # and it goes on
        head, (_, writer) = await raw(url_of(server, kind), lines, method=method)
        assert " 101 " in head
        await shut(writer)


@settings(max_examples=60, deadline=None)
@given(KINDS, st.lists(st.one_of(BYTES, SPDY_FRAMES, SPDY_DATA), max_size=8), st.booleans())
def test_spdy_garbage(kind: str, frames: list[bytes], opened: bool) -> None:
    data = (OPENING if opened else b"") + b"".join(frames)
    asyncio.run(throw(kind, SPDY, "POST", data))


@settings(max_examples=60, deadline=None)
@given(
    KINDS,
    st.sampled_from(["v5.channel.k8s.io", "v4.base64.channel.k8s.io", TUNNEL]),
    st.lists(st.one_of(BYTES, WEBSOCKET_FRAMES), max_size=8),
)
def test_websocket_garbage(kind: str, protocol: str, frames: list[bytes]) -> None:
    if kind == "portforward":
        protocol = protocol if "port" in protocol else "v4.channel.k8s.io"
    elif "port" in protocol:
        protocol = "channel.k8s.io"
    lines = (*WEBSOCKET, f"Sec-WebSocket-Protocol: {protocol}")
    asyncio.run(throw(kind, lines, "GET", b"".join(frames)))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_what_is_no_request_is_answered_or_dropped(data: bytes) -> None:
    async def work() -> None:
        async with streaming(LocalCommands()) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(data)
            writer.write_eof()
            answer = await reader.read()
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
            await shut(writer)

    asyncio.run(work())


@given(st.lists(BYTES, max_size=10))
def test_sizes_survive_garbage(pieces: list[bytes]) -> None:
    sizes = Sizes()
    for piece in pieces:
        for rows, columns in sizes.feed(piece):
            assert 0 <= rows <= 65535 >= columns >= 0


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b'{"Width":80,"Height":24}', [(24, 80)]),
        (b' {"Width":80}\n{"Height":24}', [(0, 80), (24, 0)]),
        (b'{"Width":80', []),
        (b'{"Width":-1,"Height":24}{"Width":1,"Height":2}', []),
        (b'{"Width":65536}', []),
        (b'{"Width":true}', []),
        (b"[1]", []),
        (b"[" * 3000, []),
    ],
)
def test_sizes(data: bytes, found: list[tuple[int, int]]) -> None:
    assert Sizes().feed(data) == found
    one_by_one = Sizes()
    assert [size for at in range(len(data)) for size in one_by_one.feed(data[at : at + 1])] == found
