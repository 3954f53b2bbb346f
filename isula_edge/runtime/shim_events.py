"""What shims tell unasked: events, of which the end of memory is told in no other way.

A shim connects to the socket that TTRPC_ADDRESS named when it was started, at its first
event, and keeps the connection.  It tries again for some seconds when nobody is there and
then drops the event, so nothing but an OOM may depend on them.

Source: api/services/ttrpc/events/v1/events.proto of github.com/containerd/containerd.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING, NamedTuple

from isula_edge import errors
from isula_edge.runtime.shim_messages import EVENTS, ForwardRequest
from isula_edge.runtime.ttrpc import Server
from isula_edge.sys import unix

if TYPE_CHECKING:
    from collections.abc import Callable

    from isula_edge.runtime.shim_messages import TaskExit, TaskOOM, TaskProcess

__all__ = ["SERVICE", "Event", "Events"]

_log = logging.getLogger(__name__)
SERVICE = "containerd.services.events.ttrpc.v1.Events"
_BACKLOG = 128


class Event(NamedTuple):
    """An event: ``topic`` is ``/tasks/oom`` and the like, ``body`` None of unknown types."""

    topic: str
    container_id: str
    body: TaskExit | TaskOOM | TaskProcess | None
    namespace: str = ""


class Events:
    """The socket that shims send events to.

    ``path`` is a socket of the engine's user alone, in a folder that others cannot enter or
    write to.  ``on_event`` is called in the loop for each event; it shall not block.
    """

    def __init__(self, path: str, on_event: Callable[[Event], None]) -> None:
        self.path = path
        self._on_event = on_event
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listens.  Unavailable when another program does already, or when it cannot be."""
        unix.clear(self.path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            sock.bind(self.path)
            # nobody can connect before listen(2)
            os.chmod(self.path, 0o600)
            sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            raise errors.Unavailable(
                f"cannot listen at {self.path}: {error.strerror or error}",
                kind="socket",
                ref=self.path,
            ) from error
        self._server = await asyncio.start_unix_server(self._serve, sock=sock)

    async def close(self) -> None:
        """Ends all connections and removes the socket."""
        if self._server is None:
            return
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        self._server = None
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        with contextlib.suppress(asyncio.CancelledError):
            await Server(reader, writer, {SERVICE: self._answer}).serve()

    async def _answer(self, method: str, payload: bytes) -> bytes:
        if method != "Forward":
            raise errors.Unimplemented(f"method {method} is not served")
        try:
            event = _read(payload)
        except ValueError as error:
            raise errors.InvalidArgument(f"the event makes no sense: {error}") from error
        _log.debug("shim: %s of %s", event.topic, event.container_id)
        self._on_event(event)
        return b""


def _read(payload: bytes) -> Event:
    envelope = ForwardRequest.decode(payload).envelope
    if envelope is None or envelope.event is None:
        raise ValueError("it has no envelope with an event")
    kind = EVENTS.get(envelope.event.type_name)
    if kind is None:
        return Event(envelope.topic, "", None, envelope.namespace)
    body = kind.decode(envelope.event.value)
    return Event(envelope.topic, body.container_id, body, envelope.namespace)
