"""When the CRI is loaded, and how its clients reach it by the engine's own sockets.

gRPC is imported only here, when a kubelet is there: at the start if the settings say so,
else when the first gRPC client connects to the client's socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from isula_edge import errors

if TYPE_CHECKING:
    from isula_cri.cri import Cri
    from isula_edge.service.engine import Engine

__all__ = ["PREFACE", "CriGate"]

_log = logging.getLogger(__name__)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""How an HTTP/2 client begins (RFC 9113, 3.4)."""
_CHUNK = 1 << 16


class CriGate:
    """The CRI of one engine, loaded when it is needed.  ``group`` may use its socket."""

    def __init__(self, engine: Engine, group: int) -> None:
        self._engine = engine
        self._group = group
        self._cri: Cri | None = None
        self._lock = asyncio.Lock()

    async def open(self) -> Cri:
        """The CRI; FailedPrecondition when its packages are not installed."""
        async with self._lock:
            if self._cri is None:
                try:
                    from isula_cri.cri import Cri
                except ImportError as error:
                    raise errors.FailedPrecondition(
                        f"the CRI cannot be served: {error}",
                        kind="package",
                        hint="pip install 'isula-edge[cri]'",
                    ) from error
                self._cri = await Cri.open(self._engine, self._group)
            return self._cri

    async def close(self) -> None:
        """Ends it, if it was loaded."""
        if self._cri is not None:
            await self._cri.close()

    async def hand_over(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Joins a connection that began with ``first`` to the CRI's own socket."""
        try:
            cri = await self.open()
            theirs, ours = await asyncio.open_unix_connection(cri.path)
        except errors.EngineError as error:
            _log.error("a gRPC client is sent away: %s (%s)", error.message, error.hint)
            return
        except OSError as error:
            _log.error("a gRPC client is sent away: %s", error)
            return
        ours.write(first)
        copies = [asyncio.create_task(_copy(*pair)) for pair in ((reader, ours), (theirs, writer))]
        try:
            # a gRPC connection has no half: when one side ends, so does the other
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # first: whoever waits below may be cancelled
            ours.close()
            for copy in copies:
                copy.cancel()
            await asyncio.gather(*copies, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
