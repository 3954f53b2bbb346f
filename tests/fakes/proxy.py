"""A proxy for HTTPS (CONNECT) on 127.0.0.1, with a password if it is to have one."""

from __future__ import annotations

import base64
import contextlib
import socket
import socketserver
import threading
from typing import Any

from tests.fakes.serving import Serving

__all__ = ["FakeProxy"]


class FakeProxy(Serving):
    """``tunnels`` are the targets that were connected, ``refused`` the requests that were not."""

    def __init__(self, user: str = "") -> None:
        self.tunnels: list[str] = []
        self.refused = 0
        self.header = f"Basic {base64.b64encode(user.encode()).decode()}" if user else ""
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        super().__init__(self._server)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    proxy: FakeProxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no fault."""


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        """One CONNECT, and the bytes of both sides."""
        proxy = self.server.proxy
        method, target, _ = self.rfile.readline().decode().split()
        headers: dict[str, str] = {}
        while line := self.rfile.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if method != "CONNECT" or headers.get("proxy-authorization", "") != proxy.header:
            proxy.refused += 1
            self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            return
        proxy.tunnels.append(target)
        host, _, port = target.rpartition(":")
        with socket.create_connection((host, int(port)), 10) as far:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_copy, args=(far, self.connection))
            back.start()
            _copy(self.connection, far)
            back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for one in (source, sink):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
