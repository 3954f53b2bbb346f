"""The CRI of one engine: gRPC server, streaming server and plugins, opened and closed together."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from isula_cri.containers import ContainerCalls
from isula_cri.events import EventCalls
from isula_cri.images import ImageService
from isula_cri.info import InfoCalls
from isula_cri.node import Node
from isula_cri.pods import PodCalls
from isula_cri.server import Server
from isula_cri.statistics import StatisticsCalls
from isula_cri.streams import Backend, StreamCalls
from isula_edge import errors

if TYPE_CHECKING:
    import ssl

    from isula_cri.streaming import Streaming
    from isula_edge.service.config import CriConfig
    from isula_edge.service.engine import Engine

__all__ = ["Cri"]

_log = logging.getLogger(__name__)


class Cri:
    """Serves the CRI on ``<state>/cri.sock`` and on the socket that the settings name."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._config = engine.config.cri
        self.path = f"{engine.config.state}/cri.sock"
        self._node = Node(engine)
        self._streams = StreamCalls(self._node, self._open_streaming)
        self._events = EventCalls(self._node)
        self._server = Server(
            [
                InfoCalls(self._node),
                PodCalls(self._node),
                ContainerCalls(self._node),
                self._streams,
                StatisticsCalls(self._node),
                self._events,
                ImageService(engine),
            ]
        )

    @classmethod
    async def open(cls, engine: Engine, group: int) -> Cri:
        """Begins to serve; raises EngineError naming what cannot be had.

        ``group`` (-1: none) may use the socket of the settings, as it may the client's.
        """
        cri = cls(engine)
        try:
            await cri._open_nri()
            cri._server.listen(cri.path, 0o600)
            if cri._config.socket:
                cri._server.listen(cri._config.socket, 0o660)
                os.chown(cri._config.socket, -1, group)
            await cri._server.start()
        except BaseException:
            await cri.close()
            raise
        _log.info("the CRI is served")
        return cri

    async def _open_streaming(self) -> Streaming:
        """The streaming server, which no node needs before the first exec."""
        from isula_cri.streaming import Streaming

        config = self._config
        streaming = Streaming(
            Backend(self._node), config.stream_address, config.stream_port, _tls(config)
        )
        await streaming.start()
        _log.info("streams are served on port %d", streaming.port)
        return streaming

    async def _open_nri(self) -> None:
        config = self._config
        if not config.nri:
            return
        from isula_cri.nri import Nri

        self._node.nri = Nri(
            config.nri_socket if config.nri_connections else "",
            self._node,
            plugin_dir=config.nri_plugin_dir,
            config_dir=config.nri_config_dir,
            reaper=self._engine.reaper,
            registration_s=config.nri_registration_s,
            request_s=config.nri_request_s,
        )
        await self._node.nri.start()

    async def close(self) -> None:
        """Ends what is served; containers go on."""
        self._events.close()
        await self._server.close()
        self._node.close()
        await self._streams.close()
        if self._node.nri is not None:
            await self._node.nri.close()


def _tls(config: CriConfig) -> ssl.SSLContext | None:
    """For the streaming server; FailedPrecondition for files that are of no use."""
    if not config.stream_cert:
        return None
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(config.stream_cert, config.stream_key)
    except OSError as error:
        raise errors.FailedPrecondition(
            f"the certificate {config.stream_cert} or its key cannot be used: {error}",
            kind="file",
            ref=config.stream_cert,
        ) from error
    return context
