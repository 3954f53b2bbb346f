"""The HTTP server that exec, attach and port forwarding of the CRI are streamed through."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from typing import TYPE_CHECKING, Any, Protocol

from isula_cri.streaming import http, portforward
from isula_cri.streaming.inbox import Budget
from isula_cri.streaming.link import CHUNK, TcpLink, abort
from isula_cri.streaming.remotecommand import (
    SPDY_PROTOCOLS,
    WEBSOCKET_PROTOCOLS,
    Session,
    SpdyChannels,
    WebSocketChannels,
)
from isula_cri.streaming.requests import ATTACH, EXEC, PORT_FORWARD, Tokens, Wanted
from isula_cri.streaming.status import Status, failed, finished
from isula_cri.streaming.websocket import Tunnel, WebSocket
from isula_edge import errors

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Coroutine

    from isula_cri.streaming.remotecommand import Channels

__all__ = ["Backend", "Streaming"]

_log = logging.getLogger(__name__)
_SESSIONS = 128
_UNUSED = 64  # connections that have not sent their request yet
_HEAD_S = 10.0
_LINGER_S = 2.0
_CREATION_S = 30.0
_IDLE_S = 4 * 3600.0
_GRACE_S = 30.0
"""How long a client may take to read the end and leave, after all has been sent."""

_OFFERS: dict[tuple[str, bool], tuple[tuple[str, ...], str]] = {
    ("spdy", False): (SPDY_PROTOCOLS, "x-stream-protocol-version"),
    ("spdy", True): ((portforward.PROTOCOL,), "x-stream-protocol-version"),
    ("websocket", False): (WEBSOCKET_PROTOCOLS, "sec-websocket-protocol"),
    ("websocket", True): (portforward.WEBSOCKET_PROTOCOLS, "sec-websocket-protocol"),
}
"""The protocols of an upgrade, and whether it is for ports; the header that names them."""


class Backend(Protocol):
    """What does the work; each raises EngineError."""

    async def exec(
        self, container_id: str, argv: list[str], tty: bool, stdin: bool, session: Session
    ) -> int:
        """Runs a process, copying to and from ``session``: its exit code."""

    async def attach(self, container_id: str, stdin: bool, tty: bool, session: Session) -> int:
        """Copies until the container ends or the client leaves: the exit code, which is unused."""

    async def port_forward(self, pod_id: str, port: int) -> socket.socket:
        """A non-blocking socket, connected to the port inside the pod's network namespace."""


class Streaming:
    """Serves URLs that :meth:`url` makes: SPDY/3.1 and WebSockets, at most 128 sessions."""

    def __init__(
        self,
        backend: Backend,
        address: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        base_url: str = "",
    ) -> None:
        self._backend = backend
        self._address, self._port, self._tls = address, port, tls
        self._base_url = base_url.rstrip("/")
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[Any]] = set()
        self._works: set[asyncio.Task[Any]] = set()
        self._sessions = 0
        self.tokens = Tokens()
        self.creation_s, self.idle_s, self.grace_s = _CREATION_S, _IDLE_S, _GRACE_S

    # for the CRI

    async def start(self) -> None:
        """Begins to listen; FailedPrecondition when the address cannot be had."""
        options: dict[str, Any] = {"limit": CHUNK, "backlog": 128}
        if self._tls is not None:
            options |= {"ssl": self._tls, "ssl_handshake_timeout": _HEAD_S}
            options["ssl_shutdown_timeout"] = _LINGER_S
        try:
            self._server = await asyncio.start_server(
                self._accept, self._address, self._port, **options
            )
        except OSError as error:
            raise errors.FailedPrecondition(
                f"cannot listen on {self._address}:{self._port}: {error}", kind="socket"
            ) from error
        self._port = int(self._server.sockets[0].getsockname()[1])

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._port

    def url(self, kind: str, request: Any) -> str:
        """Where a client finds what ``request`` asks for, once, within a minute.

        ``kind`` is "exec", "attach" or "portforward", ``request`` the message of that RPC.
        """
        if kind == PORT_FORWARD:
            wanted = Wanted(kind, request.pod_sandbox_id, ports=tuple(request.port))
        else:
            argv = tuple(request.cmd) if kind == EXEC else ()
            flags = (request.tty, request.stdin, request.stdout, request.stderr)
            wanted = Wanted(kind, request.container_id, argv, *flags)
        return f"{self._base()}/{kind}/{self.tokens.add(wanted)}"

    def _base(self) -> str:
        if self._base_url:
            return self._base_url
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(  # noqa: S104
            self._address, self._address
        )
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{host}:{self._port}"

    async def close(self) -> None:
        """Stops listening and ends all sessions and what they run."""
        if self._server is not None:
            self._server.close()
        tasks = [*self._connections, *self._works]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # in which the sockets are closed

    # a connection

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        sock = writer.get_extra_info("socket")
        if task is None or len(self._connections) >= _SESSIONS + _UNUSED:
            abort(writer, sock)
            return
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except ConnectionError:
            pass  # it left while it was answered
        finally:
            self._connections.discard(task)
            abort(writer, sock)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            try:
                async with asyncio.timeout(_HEAD_S):
                    request = await http.read_request(reader)
            except TimeoutError as error:
                raise http.Refused(408, "no request in time") from error
            if request is None:
                return
            wanted, upgrade, protocol = self._admit(request)
        except http.Refused as refused:
            await _refuse(reader, writer, refused)
            return
        self._sessions += 1
        try:
            writer.write(http.switching(request, upgrade, protocol))
            link = TcpLink(reader, writer, before=request.after, idle_s=self.idle_s)
            try:
                await self._session(link, wanted, upgrade, protocol)
            finally:
                await link.close()
        finally:
            self._sessions -= 1

    def _admit(self, request: http.Request) -> tuple[Wanted, str, str]:
        """What the request is for, its upgrade and protocol; Refused."""
        if request.method not in {"GET", "POST"}:
            raise http.Refused(405, "only GET and POST are known")
        *_, kind, token = ["", *request.path.split("/")]
        wanted = self.tokens.find(kind, token)
        if wanted is None:
            raise http.Refused(404, "no such session: its token is unknown, used or too old")
        upgrade = request.upgrade
        known, header = _OFFERS[upgrade, wanted.kind == PORT_FORWARD]
        protocol = http.choose(request.values(header), known)
        if known is portforward.WEBSOCKET_PROTOCOLS and protocol != portforward.TUNNEL:
            ports = wanted.ports or portforward.ports_of(request.query)
            if not ports:
                raise http.Refused(400, "no ports are named")
            wanted = dataclasses.replace(wanted, ports=ports)
        if self._sessions >= _SESSIONS:
            raise http.Refused(503, "too many sessions")
        self.tokens.use(token)
        return wanted, upgrade, protocol

    async def _session(self, link: TcpLink, wanted: Wanted, upgrade: str, protocol: str) -> None:
        if wanted.kind == PORT_FORWARD:
            await self._port_forward(link, wanted, upgrade, protocol)
        elif upgrade == "websocket":
            await self._command(link, WebSocketChannels(WebSocket(link), wanted, protocol), wanted)
        else:
            await self._command(link, SpdyChannels(link, wanted, protocol), wanted)

    async def _port_forward(
        self, link: TcpLink, wanted: Wanted, upgrade: str, protocol: str
    ) -> None:
        async def connect(port: int) -> socket.socket:
            return await self._backend.port_forward(wanted.ref, port)

        if upgrade == "spdy":
            await portforward.Forwarding(link, connect, self.creation_s).run()
        elif protocol == portforward.TUNNEL:
            websocket = WebSocket(link)
            await portforward.Forwarding(Tunnel(websocket), connect, self.creation_s).run()
            with contextlib.suppress(ConnectionError):
                await websocket.close()
        else:
            websocket = WebSocket(link)
            await portforward.forward_channels(websocket, Budget(), wanted.ports, connect)

    async def _command(self, link: TcpLink, channels: Channels, wanted: Wanted) -> None:
        """Runs an exec or an attach; the client's leaving does not end it."""
        session = Session(channels, wanted)
        reading = asyncio.create_task(channels.run())
        ready = asyncio.create_task(channels.ready.wait())
        tasks: list[asyncio.Task[Any]] = [reading, ready]
        try:
            await asyncio.wait(
                {reading, ready}, timeout=self.creation_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not ready.done():
                if not reading.done():
                    await channels.finish(failed("no session", "timed out waiting for streams"))
                return
            work = self._work(self._run(session, wanted))
            await asyncio.wait({reading, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                session.leave()
                return
            # a close with the client's data unread would take the end from it again
            channels.inbox.drop()
            ending = asyncio.create_task(_finish(link, channels, _outcome(wanted, work)))
            tasks.append(ending)
            await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({reading}, timeout=self.grace_s)
        finally:
            session.leave()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _work(self, work: Coroutine[Any, Any, int]) -> asyncio.Task[int]:
        task = asyncio.create_task(work)
        self._works.add(task)
        task.add_done_callback(self._worked)
        return task

    def _worked(self, work: asyncio.Task[int]) -> None:
        self._works.discard(work)
        if not work.cancelled() and (failure := work.exception()):
            known = isinstance(failure, errors.EngineError | OSError)
            level = logging.DEBUG if known else logging.ERROR
            _log.log(level, "a streamed command failed: %s", failure, exc_info=failure)

    async def _run(self, session: Session, wanted: Wanted) -> int:
        if wanted.kind == ATTACH:
            return await self._backend.attach(wanted.ref, wanted.stdin, wanted.tty, session)
        argv = list(wanted.argv)
        return await self._backend.exec(wanted.ref, argv, wanted.tty, wanted.stdin, session)


async def _refuse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, refused: http.Refused
) -> None:
    writer.write(http.refusal(refused.status, refused.message))
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
            # a close with the client's data unread would take the answer from it again
            while await reader.read(CHUNK):
                pass


async def _finish(link: TcpLink, channels: Channels, status: Status) -> None:
    await channels.finish(status)
    await link.flush()


def _outcome(wanted: Wanted, work: asyncio.Task[int]) -> Status:
    what = "attaching to container" if wanted.kind == ATTACH else "executing command in container"
    if work.cancelled():
        return failed(f"error {what}", "the engine ends")
    failure = work.exception()
    if failure is None:
        return finished(work.result() if wanted.kind == EXEC else 0)
    return failed(f"error {what}", str(failure) or type(failure).__name__)
