"""The messages of a WebSocket, in pieces as they come, and a link that they carry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, TextMessage
from wsproto.frame_protocol import CloseReason

if TYPE_CHECKING:
    from wsproto.events import Event

    from isula_cri.streaming.inbox import Budget
    from isula_cri.streaming.link import Link

__all__ = ["ChannelReader", "Tunnel", "WebSocket"]


class WebSocket:
    """A WebSocket after its handshake; pings are answered while somebody reads."""

    def __init__(self, link: Link, *, client: bool = False) -> None:
        self.link = link
        self._protocol = Connection(ConnectionType.CLIENT if client else ConnectionType.SERVER)
        self._over = False

    async def read(self) -> list[tuple[bytes, bool]] | None:
        """Pieces of messages, and whether each is its message's last; None at the end.

        An empty list means that something else came.
        """
        if self._over or not (data := await self.link.read()):
            return None
        self._protocol.receive_data(data)
        pieces: list[tuple[bytes, bool]] = []
        for event in self._protocol.events():
            if isinstance(event, TextMessage):
                pieces.append((event.data.encode(), event.message_finished))
            elif isinstance(event, BytesMessage):
                pieces.append((bytes(event.data), event.message_finished))
            elif isinstance(event, Ping):
                await self._send(event.response())
            elif isinstance(event, CloseConnection):
                await self._answer_close(event)
                self._over = True
        return pieces

    async def _answer_close(self, event: CloseConnection) -> None:
        if self._protocol.state is ConnectionState.REMOTE_CLOSING:
            await self._send(event.response())
        else:
            # not a close frame but bytes that are no frame
            await self.close(CloseReason.PROTOCOL_ERROR)

    async def send(self, data: bytes, *, text: bool = False) -> None:
        """Sends a message; ConnectionError when the client is gone or has closed."""
        message = TextMessage(data=data.decode("ascii")) if text else BytesMessage(data=data)
        await self._send(message)

    async def close(self, code: int = CloseReason.NORMAL_CLOSURE) -> None:
        """Sends a close frame, if none was sent."""
        if self._protocol.state is ConnectionState.OPEN:
            await self._send(CloseConnection(code=code))

    async def _send(self, event: Event) -> None:
        open_states = {ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING}
        if self._protocol.state not in open_states or (
            isinstance(event, Message) and self._protocol.state is not ConnectionState.OPEN
        ):
            raise ConnectionResetError("the WebSocket is closed")
        await self.link.write(bytes(self._protocol.send(event)))


class ChannelReader:
    """Messages whose first byte is the number of a channel, ``zero`` standing for 0."""

    def __init__(self, zero: int = 0) -> None:
        self._zero = zero
        self._channel = -1

    def take(self, data: bytes, last: bool) -> tuple[int, bytes]:
        """The channel of a piece (negative for none), and its content."""
        if self._channel < 0 and data:
            self._channel = data[0] - self._zero
            data = data[1:]
        channel = self._channel
        if last:
            self._channel = -1
        return channel, data


class Tunnel:
    """A :class:`~isula_cri.streaming.link.Link` inside the messages of a WebSocket."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def read(self) -> bytes:
        """The next bytes; empty when the client is gone."""
        while (pieces := await self._websocket.read()) is not None:
            if data := b"".join(piece for piece, _ in pieces):
                return data
        return b""

    async def write(self, *parts: bytes) -> None:
        """Sends ``parts`` as one message; ConnectionError."""
        await self._websocket.send(b"".join(parts))

    async def hold(self, budget: Budget) -> None:
        """Waits until the budget has room; ConnectionError when the client leaves before."""
        await self._websocket.link.hold(budget)
