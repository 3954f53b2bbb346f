"""Running an image worker (:mod:`isula_edge.image.worker`) and talking to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

from isula_edge import errors, wire
from isula_edge.sys import process

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from isula_edge.sys.process import Reaper

__all__ = ["ignored", "run_worker"]

_log = logging.getLogger(__name__)
_ENVIRONMENT = (
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "ALL_PROXY", "all_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "LANG", "TZ",
)  # fmt: skip
_CANCEL_S = 10.0


async def ignored(_event: dict[str, Any]) -> None:
    """For who wants a result and no events."""


async def run_worker(
    reaper: Reaper,
    request: dict[str, Any],
    handle: Callable[[dict[str, Any]], Awaitable[dict[str, Any] | None]],
    data: int = -1,
) -> dict[str, Any]:
    """Runs ``request`` in a worker; its result.

    ``handle`` sees each event and may return an answer.  ``data`` is a descriptor for the
    worker to read its archive from.  Raises what the worker reports; a cancelled caller
    cancels the worker, and waits until it has cleaned up.
    """
    ours, theirs = socket.socketpair()
    env = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    env["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    # threads with a heap each keep what the others could use
    env["MALLOC_ARENA_MAX"] = "1"
    with ours:
        with theirs:
            pid = process.spawn(
                process.python_command("isula_edge.image.worker"),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=2,
                fds={3: data} if data >= 0 else None,
                env=env,
                new_session=True,
            )
        reaper.spawned(pid)
        exited = reaper.watch(pid)
        ours.setblocking(False)
        if data >= 0:
            request = {**request, "fd": 3}
        try:
            return await _talk(ours, request, handle)
        except (ConnectionError, wire.WireError) as error:
            await _end(ours, pid, exited)
            code_number = await exited
            raise errors.Internal(
                f"the image worker ended without an answer (exit status {code_number})",
                hint="see the log of isulad; the machine may be out of memory",
            ) from error
        except (asyncio.CancelledError, Exception):
            await _end(ours, pid, exited)
            raise


async def _talk(
    sock: socket.socket,
    request: dict[str, Any],
    handle: Callable[[dict[str, Any]], Awaitable[dict[str, Any] | None]],
) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, wire.pack(request))
    buffer = bytearray()
    while True:
        frame = await _frame(loop, sock, buffer)
        if "r" in frame:
            result = frame["r"]
            return result if isinstance(result, dict) else {}
        if "x" in frame:
            raise errors.from_wire(frame["x"])
        answer = await handle(frame)
        if answer is not None:
            await loop.sock_sendall(sock, wire.pack(answer))


async def _frame(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, buffer: bytearray
) -> dict[str, Any]:
    while True:
        if len(buffer) >= 4:
            length = int.from_bytes(buffer[:4], "big")
            if length > wire.MAX_ANSWER:
                raise wire.WireError("the frame is too large")
            if len(buffer) >= 4 + length:
                value = wire.decode(bytes(buffer[4 : 4 + length]))
                del buffer[: 4 + length]
                if not isinstance(value, dict):
                    raise wire.WireError("the frame is no map")
                return value
        data = await loop.sock_recv(sock, 65536)
        if not data:
            raise ConnectionResetError("the worker closed its end")
        buffer += data


async def _end(sock: socket.socket, pid: int, exited: asyncio.Future[int]) -> None:
    """Asks the worker to stop, by the end of its input, and waits until it has."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
    waiting = asyncio.ensure_future(asyncio.wait({exited}, timeout=_CANCEL_S))
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.shield(waiting)
    if not exited.done():
        _log.warning("image worker %d does not stop, it is killed", pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
