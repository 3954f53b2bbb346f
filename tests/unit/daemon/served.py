"""A server with made-up methods in a thread, for tests of both ends of the wire."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

from isula_edge import errors, wire
from isula_edge.daemon.server import Server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from isula_edge.daemon.server import Session

    Method = Callable[[dict[str, Any], Session], Awaitable[dict[str, Any]]]

__all__ = ["Raw", "Served", "Waiting", "ended"]


class Served:
    """A daemon on ``path`` whose methods are ``methods``; ``seen`` are the requests."""

    def __init__(self, folder: Path, methods: dict[str, Method] | None = None) -> None:
        self.path = str(folder / "d.sock")
        self.host = f"unix://{self.path}"
        self.methods: dict[str, Method] = {"echo": echo, **(methods or {})}
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.problems: list[dict[str, Any]] = []
        self.loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._run)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> Served:
        self._socket.bind(self.path)
        self._socket.listen()
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the daemon; may be called twice."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def answers(self, method: str) -> list[dict[str, Any]]:
        """Parameters of every request of one method."""
        return [params for name, params in self.seen if name == method]

    def _run(self) -> None:
        with contextlib.closing(self.loop):
            self.loop.set_exception_handler(lambda _loop, context: self.problems.append(context))
            self.loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        server = Server(self._call)
        self._socket.setblocking(False)
        await server.listen(self._socket)
        await self._end.wait()
        await server.close()

    async def _call(self, method: str, params: dict[str, Any], session: Session) -> dict[str, Any]:
        self.seen.append((method, params))
        found = self.methods.get(method)
        if found is None:
            raise errors.Unimplemented(f"no method {method}", kind="method", ref=method)
        return await found(params, session)


async def echo(params: dict[str, Any], _session: Session) -> dict[str, Any]:
    """The parameters."""
    return params


class Waiting:
    """A method that waits until the test lets it go on, and says how it ended."""

    def __init__(self, served: Served, *, only_waiting: bool = False, reads: bool = False) -> None:
        self.begun, self.ended = threading.Event(), threading.Event()
        self.left = threading.Event()  # set once the input has ended, or all of it
        self.how = ""
        self.input: list[tuple[str, object]] = []
        self._only_waiting, self._reads = only_waiting, reads
        self._go_on = asyncio.Event()
        self._served = served
        served.methods["wait"] = self

    async def __call__(self, _params: dict[str, Any], session: Session) -> dict[str, Any]:
        if self._only_waiting:
            session.only_waiting()
        self.begun.set()
        try:
            if self._reads:
                async for event in session.input():
                    self.input.append(event)
                    await session.item(len(self.input))
                self.how = "left"
                self.left.set()
            await self._go_on.wait()
            self.how += "finished"
        except asyncio.CancelledError:
            self.how = "cancelled"
            raise
        finally:
            self.left.set()
            self.ended.set()
        return {"done": True}

    def go_on(self) -> None:
        self._served.loop.call_soon_threadsafe(self._go_on.set)

    def wait(self) -> str:
        assert self.ended.wait(20)
        return self.how


class Raw:
    """A connection that sends any bytes and reads frames."""

    def __init__(self, served: Served, first: bytes = wire.PREAMBLE) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(20)
        self.socket.connect(served.path)
        self.send(first)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """All of ``data``; a daemon that has closed already is fine."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def frame(self, value: dict[str, Any]) -> None:
        """One frame."""
        self.send(wire.pack(value))

    def request(self, method: str, **params: Any) -> None:
        """A request."""
        self.frame({"m": method, "p": params})

    def read(self) -> dict[str, Any] | None:
        """The next frame, or None at the end of the connection."""
        head = self._exactly(4)
        if head is None:
            return None
        data = self._exactly(int.from_bytes(head, "big"))
        assert data is not None, "the connection ended within a frame"
        found = wire.decode(data)
        assert isinstance(found, dict)
        return found

    def _exactly(self, size: int) -> bytes | None:
        data = b""
        while len(data) < size:
            try:
                piece = self.socket.recv(size - len(data))
            except ConnectionResetError:
                piece = b""
            if not piece:
                assert not data, "the connection ended within a frame"
                return None
            data += piece
        return data


def ended(raw: Raw) -> errors.EngineError:
    """The one error that a connection is answered with before it is closed."""
    frame = raw.read()
    assert frame is not None, "closed without an answer"
    assert list(frame) == ["x"], frame
    assert raw.read() is None, "not closed"
    return errors.from_wire(frame["x"])
