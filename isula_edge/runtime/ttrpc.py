"""ttrpc: unary calls over one stream of bytes, as containerd's shims and NRI plugins speak it.

A message is a header of ten bytes (length, stream, type, flags) and at most 4 MiB of data.
The data of a request and of a response are two small protobuf messages, read and written
here by hand, so that protobuf is not loaded for them; payloads are bytes of the caller's.
Streaming calls (ttrpc 1.2) are refused: neither shims nor plugins use them.

Source: PROTOCOL.md and request.proto of github.com/containerd/ttrpc.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from typing import TYPE_CHECKING, NamedTuple, Protocol

from isula_edge import errors
from isula_edge.runtime.protobuf import field, fields, number, signed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

__all__ = [
    "MAX_MESSAGE",
    "Broken",
    "Client",
    "Frame",
    "Reader",
    "Request",
    "Response",
    "Server",
    "Writer",
    "pack",
    "read_frame",
]

_log = logging.getLogger(__name__)
MAX_MESSAGE = 4 << 20
REQUEST, RESPONSE, DATA = 1, 2, 3
_REMOTE_OPEN = 2
_HEADER = struct.Struct(">IIBB")
_MAX_RUNNING = 64
_SKIP = 1 << 16
# google.rpc.Code; 2 (UNKNOWN) is what a Go program's plain errors become
_CODES: dict[int, type[errors.EngineError]] = {
    1: errors.Aborted,
    3: errors.InvalidArgument,
    4: errors.DeadlineExceeded,
    5: errors.NotFound,
    6: errors.AlreadyExists,
    7: errors.PermissionDenied,
    8: errors.ResourceExhausted,
    9: errors.FailedPrecondition,
    10: errors.Aborted,
    12: errors.Unimplemented,
    14: errors.Unavailable,
    15: errors.DataLoss,
}
_NUMBERS = {"INTERNAL": 13, **{kind.grpc: code for code, kind in _CODES.items()}}


class Broken(errors.Unavailable):
    """The connection is of no more use: it ended, or what came makes no sense."""


class Reader(Protocol):
    """What is read from; asyncio.StreamReader is one."""

    async def readexactly(self, n: int, /) -> bytes:
        """``n`` bytes; asyncio.IncompleteReadError at the end."""


class Writer(Protocol):
    """What is written to, a whole message at a time; asyncio.StreamWriter is one."""

    def write(self, data: bytes, /) -> None:
        """Takes ``data`` for sending."""

    async def drain(self) -> None:
        """Waits until more may be taken; ConnectionError when nobody reads any more."""

    def close(self) -> None:
        """Ends the stream."""


class Request(NamedTuple):
    """A call.  ``timeout_ns`` of 0 means none."""

    service: str
    method: str
    payload: bytes = b""
    timeout_ns: int = 0
    metadata: tuple[tuple[str, str], ...] = ()

    def encode(self) -> bytes:
        """As protobuf."""
        parts = [field(1, self.service.encode()), field(2, self.method.encode())]
        parts.append(field(3, self.payload))
        parts.append(number(4, self.timeout_ns))
        for key, value in self.metadata:
            parts.append(field(5, field(1, key.encode()) + field(2, value.encode()), empty=True))
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Request:
        """The request in ``data``; ValueError when it is none."""
        texts, payload, timeout_ns, metadata = {1: "", 2: ""}, b"", 0, []
        for place, value in fields(data):
            if place in texts and isinstance(value, bytes):
                texts[place] = value.decode()
            elif place == 3 and isinstance(value, bytes):
                payload = value
            elif place == 4 and isinstance(value, int):
                timeout_ns = signed(value)
            elif place == 5 and isinstance(value, bytes):
                pair = {key: text for key, text in fields(value) if isinstance(text, bytes)}
                metadata.append((pair.get(1, b"").decode(), pair.get(2, b"").decode()))
        return cls(texts[1], texts[2], payload, timeout_ns, tuple(metadata))


class Response(NamedTuple):
    """An answer; a ``code`` of google.rpc.Code other than 0 says that the call failed."""

    payload: bytes = b""
    code: int = 0
    message: str = ""

    def encode(self) -> bytes:
        """As protobuf."""
        status = b""
        if self.code:
            status = number(1, self.code) + field(2, self.message.encode())
        return field(1, status) + field(2, self.payload)

    @classmethod
    def decode(cls, data: bytes) -> Response:
        """The response in ``data``; ValueError when it is none."""
        payload, code, message = b"", 0, ""
        for place, value in fields(data):
            if place == 2 and isinstance(value, bytes):
                payload = value
            elif place == 1 and isinstance(value, bytes):
                for part, inner in fields(value):
                    if part == 1 and isinstance(inner, int):
                        code = signed(inner)
                    elif part == 2 and isinstance(inner, bytes):
                        message = inner.decode()
        return cls(payload, code, message)

    @classmethod
    def failed(cls, error: errors.EngineError) -> Response:
        """The answer that says ``error``."""
        text = error.message.encode("utf-8", "backslashreplace").decode()
        return cls(code=_NUMBERS.get(error.grpc, 13), message=text)

    def result(self) -> bytes:
        """The payload, or the error that the answer says."""
        if self.code:
            raise _CODES.get(self.code, errors.Internal)(self.message or f"code {self.code}")
        return self.payload


class Frame(NamedTuple):
    """A message; ``data`` is None when it was larger than allowed, and thrown away."""

    stream: int
    kind: int
    flags: int
    data: bytes | None


def pack(stream: int, kind: int, data: bytes, flags: int = 0) -> bytes:
    """A message as it is sent."""
    return _HEADER.pack(len(data), stream, kind, flags) + data


async def read_frame(reader: Reader) -> Frame:
    """The next message; :class:`Broken` at the end of the stream."""
    try:
        size, stream, kind, flags = _HEADER.unpack(await reader.readexactly(_HEADER.size))
        if size <= MAX_MESSAGE:
            return Frame(stream, kind, flags, await reader.readexactly(size) if size else b"")
        while size:
            size -= len(await reader.readexactly(min(size, _SKIP)))
        return Frame(stream, kind, flags, None)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Broken("the connection was closed", kind="ttrpc") from error


class Client:
    """The side that calls.  Made inside a running loop; many calls may wait at a time."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader = reader
        self._writer = writer
        self._next = 1
        self._waiting: dict[int, asyncio.Future[Response]] = {}
        self._ended: Broken | None = None
        self._task = asyncio.create_task(self._receive())

    async def call(
        self,
        service: str,
        method: str,
        payload: bytes = b"",
        *,
        timeout_s: float | None,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> bytes:
        """The payload of the answer; a ``timeout_s`` of None waits for as long as it takes.

        Raises the error that the other side says, TimeoutError when it does not answer in
        time, ResourceExhausted when the request is too large to be sent, and Broken.
        """
        limit_ns = int((timeout_s or 0) * 1e9)
        request = Request(service, method, payload, limit_ns, metadata).encode()
        if len(request) > MAX_MESSAGE:
            raise errors.ResourceExhausted(
                f"a request of {len(request)} bytes is too large", kind="ttrpc", ref=method
            )
        if self._ended:
            raise Broken(self._ended.message, kind="ttrpc", ref=method)
        stream, self._next = self._next, self._next + 2
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiting[stream] = future
        try:
            async with asyncio.timeout(timeout_s):
                self._writer.write(pack(stream, REQUEST, request))
                await self._writer.drain()
                response = await future
        except ConnectionError as error:
            raise Broken(f"the connection was lost: {error}", kind="ttrpc", ref=method) from error
        finally:
            self._waiting.pop(stream, None)
            if future.done() and not future.cancelled():
                future.exception()  # it may have failed while the request was being sent
        return response.result()

    async def wait_closed(self) -> None:
        """Waits until the connection is of no more use."""
        await asyncio.wait([self._task])

    def abort(self) -> None:
        """Ends the connection now; calls that wait raise Broken."""
        self._task.cancel()
        self._end("the connection was closed")

    async def close(self) -> None:
        """Ends the connection, and waits until nothing of it runs."""
        self.abort()
        await self.wait_closed()

    async def _receive(self) -> None:
        reason = "the connection was closed"
        try:
            while True:
                self._take(await read_frame(self._reader))
        except Broken as error:
            reason = error.message
        except ValueError as error:
            reason = f"an answer makes no sense: {error}"
        finally:
            self._end(reason)

    def _end(self, reason: str) -> None:
        if self._ended is None:
            self._ended = Broken(reason, kind="ttrpc")
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(Broken(reason, kind="ttrpc"))
            self._writer.close()

    def _take(self, frame: Frame) -> None:
        future = self._waiting.get(frame.stream)
        if future is None or future.done():
            return  # an answer that came too late
        if frame.data is None:
            future.set_exception(errors.ResourceExhausted("the answer is too large", kind="ttrpc"))
        elif frame.kind == RESPONSE:
            future.set_result(Response.decode(frame.data))
        else:
            raise ValueError(f"a message of type {frame.kind} answers no unary call")


class Server:
    """The side that answers.

    ``services`` maps a service to a coroutine function of method and payload that gives the
    payload of the answer; an EngineError of it is what the caller is told.
    """

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        services: Mapping[str, Callable[[str, bytes], Awaitable[bytes]]],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._services = services
        self._last = 0
        self._running: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Answers until the stream ends or this is cancelled, which cancels what runs."""
        try:
            while True:
                await self._take(await read_frame(self._reader))
        except (Broken, ConnectionError):
            return
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
            self._writer.close()

    async def _take(self, frame: Frame) -> None:
        try:
            request = self._check(frame)
        except errors.EngineError as error:
            await self._send(frame.stream, Response.failed(error))
            return
        if request is not None:
            task = asyncio.create_task(self._answer(frame.stream, request))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _check(self, frame: Frame) -> Request | None:
        """The request in ``frame``, None for a type that does not exist (yet)."""
        if frame.data is None:
            raise errors.ResourceExhausted(f"a message may have {MAX_MESSAGE} bytes")
        if frame.stream % 2 == 0:
            raise errors.InvalidArgument("the stream of a request has an odd number")
        if frame.kind == DATA:
            raise errors.InvalidArgument(f"stream {frame.stream} takes no data")
        if frame.kind != REQUEST:
            return None
        if frame.stream <= self._last:
            raise errors.InvalidArgument("the number of a stream is used once, and they rise")
        self._last = frame.stream
        if frame.flags & _REMOTE_OPEN:
            raise errors.Unimplemented("streaming calls are not served")
        if len(self._running) >= _MAX_RUNNING:
            raise errors.ResourceExhausted(f"{_MAX_RUNNING} calls are being served")
        try:
            return Request.decode(frame.data)
        except ValueError as error:
            raise errors.InvalidArgument(f"the request makes no sense: {error}") from error

    async def _answer(self, stream: int, request: Request) -> None:
        response = await self._run(request)
        data = response.encode()
        if len(data) > MAX_MESSAGE:
            response = Response.failed(errors.ResourceExhausted("the answer is too large"))
        try:
            await self._send(stream, response)
        except ConnectionError:
            _log.debug("nobody waits for the answer to %s any more", request.method)

    async def _run(self, request: Request) -> Response:
        serve = self._services.get(request.service)
        limit = request.timeout_ns / 1e9 if request.timeout_ns > 0 else None
        try:
            if serve is None:
                raise errors.Unimplemented(f"service {request.service} is not served")
            async with asyncio.timeout(limit):
                return Response(await serve(request.method, request.payload))
        except errors.EngineError as error:
            return Response.failed(error)
        except TimeoutError:
            return Response.failed(errors.DeadlineExceeded(f"{request.method} took too long"))
        except Exception:  # noqa: BLE001  # a fault of ours ends its call alone
            _log.exception("%s/%s failed", request.service, request.method)
            return Response.failed(errors.Internal(f"{request.method} failed"))

    async def _send(self, stream: int, response: Response) -> None:
        self._writer.write(pack(stream, RESPONSE, response.encode()))
        await self._writer.drain()
