"""Connections over one socket, as NRI has them: the plugin's service, and the runtime's.

A frame is the number of its connection and the size of what follows, 4 bytes each, big
endian.  Nothing opens or closes a connection: both sides know their numbers.

Source: pkg/net/multiplex of github.com/containerd/nri.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

from isula_edge.runtime.ttrpc import MAX_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MAX_PAYLOAD", "PLUGIN", "RUNTIME", "Channel", "Mux", "frames"]

PLUGIN = 1
"""The connection on which the plugin serves, and the engine calls."""
RUNTIME = 2
"""The connection on which the engine serves, and the plugin calls."""
MAX_PAYLOAD = MAX_MESSAGE + 10
"""The largest ttrpc message, with its header."""
_HEADER = struct.Struct(">II")
# A plugin in Go reads through a buffer of this size and refuses a first frame of a message
# that is larger; what follows it may be of any size.  It keeps 256 frames that are not read
# yet and hangs up at one more, so many small ones are no way out.
_FIRST = 4096


def frames(connection: int, message: bytes) -> bytes:
    """``message`` (at most MAX_PAYLOAD bytes) as it is sent: in one frame, or in two."""
    parts = [message[:_FIRST], message[_FIRST:]] if len(message) > _FIRST else [message]
    return b"".join(_HEADER.pack(connection, len(part)) + part for part in parts)


class Channel:
    """One connection: a ttrpc Reader and Writer.  Closing it closes the socket."""

    def __init__(self, mux: Mux, number: int) -> None:
        self._mux = mux
        self._number = number
        self.received = asyncio.StreamReader()

    async def readexactly(self, n: int, /) -> bytes:
        """``n`` bytes; asyncio.IncompleteReadError at the end."""
        return await self.received.readexactly(n)

    def write(self, data: bytes, /) -> None:
        """Takes one message for sending."""
        self._mux.writer.write(frames(self._number, data))

    async def drain(self) -> None:
        """Waits until more may be taken; ConnectionError when the plugin is gone."""
        await self._mux.writer.drain()

    def close(self) -> None:
        """Ends all connections of the socket."""
        self._mux.writer.close()


class Mux:
    """The connections ``numbers`` of one socket; data of others is thrown away."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, numbers: Iterable[int]
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.channels = {number: Channel(self, number) for number in numbers}

    async def run(self) -> None:
        """Hands out what comes, until the socket ends or a frame is larger than allowed."""
        try:
            while True:
                number, size = _HEADER.unpack(await self.reader.readexactly(_HEADER.size))
                if size > MAX_PAYLOAD:
                    return
                data = await self.reader.readexactly(size) if size else b""
                channel = self.channels.get(number)
                if channel is not None:
                    channel.received.feed_data(data)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            for channel in self.channels.values():
                channel.received.feed_eof()
            self.writer.close()
