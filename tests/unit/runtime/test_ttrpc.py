"""ttrpc: bytes as PROTOCOL.md has them, calls, and what goes wrong on a connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isula_edge import errors
from isula_edge.runtime.ttrpc import (
    MAX_MESSAGE,
    Broken,
    Client,
    Frame,
    Request,
    Response,
    Server,
    pack,
    read_frame,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

many = settings(max_examples=150, deadline=None)
WHOLE = Request("test.Service", "Echo", b"payload", 2_000_000_000, (("a", "b"),)).encode()
DAMAGED = st.builds(
    lambda place, size, put: WHOLE[:place] + put + WHOLE[place + size :],
    st.integers(0, len(WHOLE)),
    st.integers(0, 6),
    st.binary(max_size=6),
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def described() -> dict[str, Any]:
    """The envelope's messages as the protobuf package makes them."""
    file = descriptor_pb2.FileDescriptorProto(name="envelope.proto", syntax="proto3")
    kinds = {"string": 9, "bytes": 12, "int64": 3, "int32": 5}
    for name, fields in {
        "KeyValue": (("key", 1, "string"), ("value", 2, "string")),
        "Status": (("code", 1, "int32"), ("message", 2, "string")),
        "Request": (
            ("service", 1, "string"),
            ("method", 2, "string"),
            ("payload", 3, "bytes"),
            ("timeout_nano", 4, "int64"),
            ("metadata", 5, "KeyValue"),
        ),
        "Response": (("status", 1, "Status"), ("payload", 2, "bytes")),
    }.items():
        message = file.message_type.add(name=name)
        for key, number, kind in fields:
            field = message.field.add(name=key, number=number, label=3 if number == 5 else 1)
            field.type = kinds.get(kind, 11)
            if kind not in kinds:
                field.type_name = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
        for name in ("Request", "Response")
    }


ENVELOPE = described()


@given(
    TEXT,
    TEXT,
    st.binary(max_size=300),
    st.integers(-(2**63), 2**63 - 1),
    st.lists(st.tuples(TEXT, TEXT), max_size=3),
)
@many
def test_a_request_is_what_protobuf_makes_of_it(
    service: str, method: str, payload: bytes, timeout: int, metadata: list[tuple[str, str]]
) -> None:
    ours = Request(service, method, payload, timeout, tuple(metadata))
    theirs = ENVELOPE["Request"](
        service=service,
        method=method,
        payload=payload,
        timeout_nano=timeout,
        metadata=[{"key": key, "value": value} for key, value in metadata],
    )
    assert ours.encode() == theirs.SerializeToString()
    assert Request.decode(theirs.SerializeToString()) == ours


@given(st.integers(-(2**31), 2**31 - 1), TEXT, st.binary(max_size=300))
@many
def test_a_response_is_what_protobuf_makes_of_it(code: int, message: str, payload: bytes) -> None:
    theirs = ENVELOPE["Response"](payload=payload)
    if code:
        theirs.status.code, theirs.status.message = code, message
    ours = Response(payload, code, message if code else "")
    assert ours.encode() == theirs.SerializeToString()
    assert Response.decode(theirs.SerializeToString()) == ours


@given(DAMAGED | st.binary(max_size=60))
@many
def test_any_bytes_are_a_message_or_a_value_error(data: bytes) -> None:
    for kind in (Request, Response):
        with contextlib.suppress(ValueError):
            kind.decode(data)


@given(DAMAGED)
@example(b"\n\x0ctest.Service\x12\x04Echo\r\x1a\x07pa")
@many
def test_what_is_taken_for_a_request_is_one_to_protobuf_too(data: bytes) -> None:
    """Where both read it, they read the same; protobuf checks more (UTF-8, groups)."""
    try:
        theirs = ENVELOPE["Request"].FromString(data)
        ours = Request.decode(data)
    except (ValueError, DecodeError):
        return
    assert (ours.service, ours.method, ours.payload) == (
        theirs.service,
        theirs.method,
        theirs.payload,
    )
    assert ours.timeout_ns == theirs.timeout_nano


@pytest.mark.parametrize(
    "data",
    [b"\x0a\x05abc", b"\x0a", b"\x80" * 11, b"\x0b", b"\x00\x00", b"\x0a\x01\xff", b"\x0d\x01"],
    ids=["short", "no length", "endless", "group", "field 0", "no UTF-8", "short number"],
)
def test_what_is_no_request(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Request.decode(data)


def test_fields_that_we_do_not_know_are_skipped() -> None:
    extra = b"\x48\x07" + b"\x51" + b"8" * 8 + b"\x5d" + b"4" * 4 + b"\x62\x02hi"
    assert Request.decode(Request("s", "m", b"p").encode() + extra) == Request("s", "m", b"p")


def test_a_frame_as_the_protocol_draws_it() -> None:
    assert pack(0x01020304, 1, b"abc", 2) == b"\0\0\0\x03\x01\x02\x03\x04\x01\x02abc"


def test_protobuf_and_grpc_are_not_imported() -> None:
    code = (
        "import sys, isula_edge.runtime.ttrpc;"
        "sys.exit(any(name.startswith(('google', 'grpc')) for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connected() -> tuple[Streams, Streams]:
    ours, theirs = socket.socketpair()
    return await asyncio.open_unix_connection(sock=ours), await asyncio.open_unix_connection(
        sock=theirs
    )


def run(work: Callable[[Streams, Streams], Awaitable[None]]) -> None:
    """``work`` with both ends of a connection, which are closed after it."""

    async def main() -> None:
        ends = await connected()
        try:
            async with asyncio.timeout(30):
                await work(*ends)
        finally:
            for _, writer in ends:
                writer.close()
            await asyncio.sleep(0)

    asyncio.run(main())


async def answer(method: str, payload: bytes) -> bytes:
    if method == "Echo":
        return payload
    if method == "Hang":
        await asyncio.Event().wait()
    if method == "Large":
        return bytes(MAX_MESSAGE)
    if method == "Fault":
        raise RuntimeError("a bug")
    raise errors.NotFound(f"there is no {method}")


@contextlib.asynccontextmanager
async def served(ours: Streams, theirs: Streams) -> Any:
    client = Client(*ours)
    task = asyncio.create_task(Server(*theirs, {"test.Service": answer}).serve())
    try:
        yield client
    finally:
        await client.close()
        await task


def test_calls_at_the_same_time() -> None:
    async def work(ours: Streams, theirs: Streams) -> None:
        async with served(ours, theirs) as client:
            payloads = [bytes([number]) * number * 1000 for number in range(20)]
            answers = await asyncio.gather(
                *(client.call("test.Service", "Echo", data, timeout_s=20) for data in payloads)
            )
            assert answers == payloads

    run(work)


@pytest.mark.parametrize(
    ("service", "method", "kind"),
    [
        ("test.Service", "Nothing", errors.NotFound),
        ("other.Service", "Echo", errors.Unimplemented),
        ("test.Service", "Fault", errors.Internal),
        ("test.Service", "Large", errors.ResourceExhausted),
    ],
)
def test_errors_of_the_other_side(
    service: str, method: str, kind: type[errors.EngineError]
) -> None:
    async def work(ours: Streams, theirs: Streams) -> None:
        async with served(ours, theirs) as client:
            with pytest.raises(kind):
                await client.call(service, method, timeout_s=20)
            assert await client.call("test.Service", "Echo", b"on", timeout_s=20) == b"on"

    run(work)


def test_a_call_that_takes_too_long_ends_alone() -> None:
    async def work(ours: Streams, theirs: Streams) -> None:
        async with served(ours, theirs) as client:
            with pytest.raises((TimeoutError, errors.DeadlineExceeded)):
                await client.call("test.Service", "Hang", timeout_s=0.05)
            assert await client.call("test.Service", "Echo", b"on", timeout_s=20) == b"on"

    run(work)


def test_a_request_that_is_too_large_is_not_sent() -> None:
    async def work(ours: Streams, theirs: Streams) -> None:
        async with served(ours, theirs) as client:
            with pytest.raises(errors.ResourceExhausted, match="too large"):
                await client.call("test.Service", "Echo", bytes(MAX_MESSAGE), timeout_s=20)
            assert await client.call("test.Service", "Echo", b"on", timeout_s=20) == b"on"

    run(work)


def test_a_call_that_waits_when_the_connection_ends() -> None:
    async def work(ours: Streams, theirs: Streams) -> None:
        client = Client(*ours)
        call = asyncio.create_task(client.call("test.Service", "Hang", timeout_s=20))
        await read_frame(theirs[0])
        theirs[1].close()
        with pytest.raises(Broken):
            await call
        with pytest.raises(Broken):
            await client.call("test.Service", "Echo", timeout_s=20)
        await client.wait_closed()

    run(work)


def test_a_client_that_is_closed_before_it_has_begun() -> None:
    async def work(ours: Streams, theirs: Streams) -> None:
        client = Client(*ours)
        await client.close()
        with pytest.raises(Broken):
            await client.call("test.Service", "Echo", timeout_s=20)
        assert await theirs[0].read() == b""

    run(work)


@pytest.mark.parametrize(
    "sent",
    [pack(1, 2, b"\x0a\x05x"), pack(1, 3, b""), pack(1, 2, b"\x0a\x02\x08\x80")],
    ids=["short", "data", "status"],
)
def test_an_answer_that_makes_no_sense_ends_the_connection(sent: bytes) -> None:
    async def work(ours: Streams, theirs: Streams) -> None:
        client = Client(*ours)
        call = asyncio.create_task(client.call("test.Service", "Echo", timeout_s=20))
        await read_frame(theirs[0])
        theirs[1].write(sent)
        with pytest.raises(Broken):
            await call
        await client.wait_closed()

    run(work)


def test_an_answer_that_is_too_large_or_too_late() -> None:
    async def work(ours: Streams, theirs: Streams) -> None:
        client = Client(*ours)
        call = asyncio.create_task(client.call("test.Service", "Echo", timeout_s=20))
        first = await read_frame(theirs[0])
        theirs[1].write(pack(99, 2, b"nobody asked"))
        theirs[1].write(pack(first.stream, 2, bytes(MAX_MESSAGE + 1)))
        with pytest.raises(errors.ResourceExhausted):
            await call
        call = asyncio.create_task(client.call("test.Service", "Echo", timeout_s=20))
        second = await read_frame(theirs[0])
        assert (first.stream, second.stream) == (1, 3)
        theirs[1].write(pack(second.stream, 2, Response(b"yes").encode()))
        assert await call == b"yes"
        await client.close()

    run(work)


async def status(reader: asyncio.StreamReader) -> tuple[int, int]:
    """Stream and code of the next answer."""
    frame = await read_frame(reader)
    assert frame.kind == 2
    assert frame.data is not None
    return frame.stream, Response.decode(frame.data).code


def test_what_a_server_refuses() -> None:
    async def work(ours: Streams, theirs: Streams) -> None:
        server = asyncio.create_task(Server(*theirs, {"test.Service": answer}).serve())
        echo = Request("test.Service", "Echo", b"x").encode()
        reader, writer = ours
        for sent, stream, code in (
            (pack(2, 1, echo), 2, 3),  # even
            (pack(5, 1, echo), 5, 0),
            (pack(5, 1, echo), 5, 3),  # used
            (pack(3, 1, echo), 3, 3),  # smaller
            (pack(7, 3, b"data"), 7, 3),
            (pack(7, 1, echo, 2), 7, 12),  # a stream that stays open
            (pack(9, 1, b"\x0a\x09"), 9, 3),
            (pack(11, 1, bytes(MAX_MESSAGE + 1)), 11, 8),
            (pack(13, 9, b"of the future") + pack(13, 1, echo), 13, 0),
        ):
            writer.write(sent)
            assert await status(reader) == (stream, code)
        writer.close()
        await server

    run(work)


def test_the_time_limit_of_a_request_is_kept() -> None:
    async def work(ours: Streams, theirs: Streams) -> None:
        server = asyncio.create_task(Server(*theirs, {"test.Service": answer}).serve())
        request = Request("test.Service", "Hang", timeout_ns=1_000_000)
        ours[1].write(pack(1, 1, request.encode()))
        assert await status(ours[0]) == (1, 4)
        ours[1].close()
        await server

    run(work)


def test_too_many_calls_at_a_time() -> None:
    async def work(ours: Streams, theirs: Streams) -> None:
        server = asyncio.create_task(Server(*theirs, {"test.Service": answer}).serve())
        hang = Request("test.Service", "Hang").encode()
        ours[1].write(b"".join(pack(number * 2 + 1, 1, hang) for number in range(65)))
        assert await status(ours[0]) == (129, 8)
        ours[1].close()
        await server

    run(work)


@given(st.binary(max_size=80))
@settings(max_examples=60, deadline=None)
def test_a_server_survives_any_bytes(data: bytes) -> None:
    async def work(ours: Streams, theirs: Streams) -> None:
        server = asyncio.create_task(Server(*theirs, {"test.Service": answer}).serve())
        ours[1].write(data)
        ours[1].write_eof()
        await ours[0].read()
        await server

    run(work)


def test_a_frame_that_is_cut_off() -> None:
    async def work() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(pack(1, 1, b"whole") + pack(1, 1, b"part")[:-1])
        reader.feed_eof()
        assert await read_frame(reader) == Frame(1, 1, 0, b"whole")
        with pytest.raises(Broken):
            await read_frame(reader)

    asyncio.run(work())
