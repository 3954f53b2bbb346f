"""Servers in threads of the tests' process, plain or with TLS."""

from __future__ import annotations

import contextlib
import threading
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import socketserver
    import ssl

__all__ = ["HttpServer", "Serving"]


class HttpServer(ThreadingHTTPServer):
    """Speaks TLS while it has a ``context``."""

    daemon_threads = True
    context: ssl.SSLContext | None = None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no failure."""

    def finish_request(self, request: Any, client_address: Any) -> None:
        """One connection."""
        if self.context is not None:
            request.settimeout(10)
            request = self.context.wrap_socket(request, server_side=True)
            with contextlib.closing(request):
                super().finish_request(request, client_address)
        else:
            super().finish_request(request, client_address)


class Serving:
    """Something that serves while it is used as a context."""

    def __init__(self, server: socketserver.BaseServer) -> None:
        self._serving = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._serving.shutdown()
        self._thread.join()
        self._serving.server_close()
