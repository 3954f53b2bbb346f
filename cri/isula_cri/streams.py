"""Exec, Attach and PortForward: checks at the call, then what the streaming server does."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

from isula_cri import messages
from isula_edge import errors
from isula_edge.container.streams import relay_exec
from isula_edge.pod import namespaces
from isula_edge.sys import process, trees

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from isula_cri.node import Node
    from isula_cri.streaming import Streaming
    from isula_edge.container.record import Container
    from isula_edge.container.streams import Session
    from isula_edge.runtime.base import ExecProcess

__all__ = ["Backend", "StreamCalls"]

_MOST_OUTPUT = (16 << 20) - 1024
"""Kubelets take messages of 16 MiB; the rest is for what else is in one."""
_CONNECT_S = 30.0


class Backend:
    """What the streaming server asks of the engine."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def exec(
        self, container_id: str, argv: list[str], tty: bool, stdin: bool, session: Session
    ) -> int:
        """Runs a command with the session's streams: its exit code."""
        self._node.container(container_id)
        params = {"ref": container_id, "argv": argv, "tty": tty, "stdin": stdin}
        answer = await self._node.engine.containers.exec(params, session)
        return int(answer["exit_code"])

    async def attach(self, container_id: str, stdin: bool, tty: bool, session: Session) -> int:
        """Joins a container's own streams until it ends or the client leaves."""
        del tty
        container = self._node.container(container_id)
        containers = self._node.engine.containers
        attachment = containers.attach(container)
        await attachment.relay(session, stdin and container.settings.interactive)
        return container.state.exit_code if not container.running else 0

    async def port_forward(self, pod_id: str, port: int) -> socket.socket:
        """A connection to a port of the pod's own loopback."""
        pod = self._node.pod(pod_id)
        path = pod.namespaces.get("network")
        try:
            return await _connect(path, socket.AF_INET, "127.0.0.1", port)
        except OSError as error:
            with contextlib.suppress(OSError):
                return await _connect(path, socket.AF_INET6, "::1", port)
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise errors.Unavailable(
                f"nothing answers on port {port} of the pod: {reason}",
                kind="port",
                ref=str(port),
            ) from error


async def _connect(netns: str | None, family: int, address: str, port: int) -> socket.socket:
    """A connection from inside ``netns``; only making the socket needs a thread there."""
    sock = await asyncio.to_thread(namespaces.connect, netns, lambda: socket.socket(family))
    try:
        sock.setblocking(False)
        connected = asyncio.get_running_loop().sock_connect(sock, (address, port))
        await asyncio.wait_for(connected, _CONNECT_S)
    except TimeoutError as error:
        sock.close()
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from error
    except BaseException:
        sock.close()
        raise
    return sock


class StreamCalls:
    """ExecSync, Exec, Attach and PortForward."""

    def __init__(self, node: Node, open_server: Callable[[], Awaitable[Streaming]]) -> None:
        self._node = node
        self._open_server = open_server
        self._server: Streaming | None = None
        self._opening = asyncio.Lock()

    async def _url(self, kind: str, request: Any) -> str:
        """Where the streaming server, opened now if need be, serves ``request``."""
        async with self._opening:
            if self._server is None:
                self._server = await self._open_server()
        return self._server.url(kind, request)

    async def close(self) -> None:
        """Ends the streaming server, if there was a stream."""
        if self._server is not None:
            await self._server.close()

    async def ExecSync(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Output and exit code of a command; on a time-out it is killed with its children."""
        del context
        container = self._node.container(request.container_id)
        engine = self._node.engine
        params = {"argv": list(request.cmd)}
        begun = asyncio.ensure_future(engine.containers.begin_exec(container, params))
        left = False
        try:
            await asyncio.shield(begun)
        except asyncio.CancelledError:
            await asyncio.wait({begun})
            left = True
        _, running, exited = begun.result()
        identity = process.identify(running.pid)
        collected = _Collector()
        relay = asyncio.ensure_future(relay_exec(collected, running, exited, identity))
        seconds = request.timeout if request.timeout > 0 else None
        try:
            if left:
                raise asyncio.CancelledError
            code = await asyncio.wait_for(asyncio.shield(relay), seconds)
        except (TimeoutError, asyncio.CancelledError) as error:
            # nobody waits for it any more, so it must not go on
            await self._end(container, running)
            await asyncio.wait({relay})
            if isinstance(error, asyncio.CancelledError):
                raise
            raise errors.DeadlineExceeded(
                f"command {' '.join(request.cmd)!r} timed out after {request.timeout} s",
                kind="exec",
                ref=container.id,
            ) from error
        return messages.ExecSyncResponse(
            stdout=bytes(collected.stdout), stderr=bytes(collected.stderr), exit_code=code
        )

    async def _end(self, container: Container, running: ExecProcess) -> None:
        """Kills a process with its children, those that it makes meanwhile too.

        Of a virtual machine's only the process itself can be reached.
        """
        life, root = self._node.engine.life, running.pid
        inside = root <= 1 or life.machine(container.runtime) is not None
        if running.control is not None and inside:
            running.control.signal(signal.SIGKILL)
            return
        stopped: set[int] = set()
        while (found := _kill_tree(root, await life.pids(container), signal.SIGSTOP)) != stopped:
            stopped = found
        _kill_tree(root, await life.pids(container))

    async def Exec(self, request: Any, context: Any) -> Any:  # noqa: N802
        """A URL at which a command's streams can be had once."""
        del context
        container = self._running(request)
        if not request.cmd:
            raise errors.InvalidArgument("exec needs a command", kind="command")
        self._node.engine.life.refuse_exec(container)
        return messages.ExecResponse(url=await self._url("exec", request))

    async def Attach(self, request: Any, context: Any) -> Any:  # noqa: N802
        """A URL at which a container's streams can be had once."""
        del context
        container = self._running(request)
        self._node.engine.life.refuse_exec(container)
        return messages.AttachResponse(url=await self._url("attach", request))

    async def PortForward(self, request: Any, context: Any) -> Any:  # noqa: N802
        """A URL at which connections to a pod's ports can be made."""
        del context
        pod = self._node.pod(request.pod_sandbox_id)
        if not pod.ready:
            raise errors.FailedPrecondition(
                f"pod sandbox {pod.id} is not ready", kind="pod", ref=pod.id
            )
        return messages.PortForwardResponse(url=await self._url("portforward", request))

    def _running(self, request: Any) -> Container:
        if not request.container_id:
            raise errors.InvalidArgument("missing required container id!", kind="container")
        if request.tty and request.stderr:
            raise errors.InvalidArgument("tty and stderr cannot both be true!")
        if not (request.stdin or request.stdout or request.stderr):
            raise errors.InvalidArgument("one of stdin, stdout, or stderr must be set!")
        return self._node.container(request.container_id)


class _Collector:
    """A session that keeps what is written, as much as an answer can have; the rest is dropped."""

    def __init__(self) -> None:
        self.stdout, self.stderr = bytearray(), bytearray()

    async def out(self, data: bytes) -> None:
        """Standard output."""
        self.stdout += data[: self._room()]

    async def err(self, data: bytes) -> None:
        """Standard error."""
        self.stderr += data[: self._room()]

    def _room(self) -> int:
        return _MOST_OUTPUT - len(self.stdout) - len(self.stderr)

    async def input(self) -> AsyncIterator[tuple[str, object]]:
        """Nothing, and it does not end: the end would be a client that left."""
        await asyncio.Event().wait()
        yield ("eof", None)


def _kill_tree(root: int, pids: list[int], number: int = signal.SIGKILL) -> set[int]:
    """Signals ``root`` and all its descendants among ``pids``, which are answered."""
    parents = {pid: trees.parent(pid) for pid in pids}
    doomed = {root}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in doomed} - doomed
        grown = bool(more)
        doomed |= more
    for pid in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return doomed
