"""A proxy before a registry that cuts the connection in the middle of large blobs.

``python -m benchmarks.cutting LISTEN UPSTREAM``, each HOST:PORT.  ``/bench/cut/0.25,0.5`` sets
where each blob is cut, once at each place, and the counter to 0; ``/bench/sent`` is the counter:
bytes of the bodies of such blobs that were sent, whether or not they were of use.
"""

from __future__ import annotations

import http.client
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Cuts", "Proxy"]

SMALLEST = 64 * 1024
"""Smaller blobs are configurations: neither cut nor counted."""
_BLOB = re.compile(r"/v2/.+/blobs/([^/?]+)")
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
_CHUNK = 64 * 1024
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}


class Cuts:
    """Where blobs are still to be cut, and how much was sent."""

    def __init__(self, parts: Sequence[float] = ()) -> None:
        self._parts = sorted(parts)
        self._left: dict[str, list[float]] = {}
        self._lock = threading.Lock()
        self.sent = 0

    def end(self, digest: str, start: int, size: int) -> int:
        """Where an answer that begins at ``start`` ends; uses that place up."""
        with self._lock:
            left = self._left.setdefault(digest, list(self._parts))
            for part in left:
                if int(part * size) > start:
                    left.remove(part)
                    return int(part * size)
        return size

    def count(self, sent: int) -> None:
        """Notes that bytes of a blob were sent."""
        with self._lock:
            self.sent += sent


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._forward()

    def do_GET(self) -> None:
        if self.path.startswith("/bench/cut/"):
            parts = [float(part) for part in self.path.rpartition("/")[2].split(",") if part]
            self.server.cuts = Cuts(parts)
            self._text("")
        elif self.path == "/bench/sent":
            self._text(str(self.server.cuts.sent))
        else:
            self._forward()

    def _text(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def _forward(self) -> None:
        host, _, port = self.server.upstream.partition(":")
        upstream = http.client.HTTPConnection(host, int(port))
        # engines send several Accept lines
        headers = {
            name: ", ".join(self.headers.get_all(name, ()))
            for name in self.headers
            if name.lower() != "connection"
        }
        try:
            upstream.request(self.command, self.path, headers=headers)
            answer = upstream.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP_BY_HOP | {"date", "server"}:
                    self.send_header(name, value)
            if answer.length is None and self.command == "GET":
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command == "GET":
                self._body(answer)
        finally:
            upstream.close()

    def _body(self, answer: http.client.HTTPResponse) -> None:
        cuts, found = self.server.cuts, _BLOB.fullmatch(self.path)
        start, size = _place(answer)
        blob = found is not None and answer.status in (200, 206) and size >= SMALLEST
        end = cuts.end(found[1], start, size) if blob and found is not None else sys.maxsize
        while start < end and (data := answer.read(min(_CHUNK, end - start))):
            start += len(data)
            if blob:
                cuts.count(len(data))
            self.wfile.write(data)
        if start < size:
            self.close_connection = True


def _place(answer: http.client.HTTPResponse) -> tuple[int, int]:
    """Offset of an answer within its blob, and the blob's size."""
    if found := _RANGE.match(answer.headers.get("Content-Range", "")):
        return int(found[1]), int(found[2])
    return 0, answer.length or 0


class Proxy(ThreadingHTTPServer):
    """Listens on ``address`` for ``upstream``, each HOST:PORT."""

    daemon_threads = True

    def __init__(self, address: str, upstream: str) -> None:
        host, _, port = address.partition(":")
        super().__init__((host, int(port)), _Handler)
        self.upstream = upstream
        self.cuts = Cuts()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is no error."""


if __name__ == "__main__":
    Proxy(*sys.argv[1:3]).serve_forever()
