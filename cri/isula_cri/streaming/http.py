"""The HTTP/1.1 request that asks for an upgrade, and the answers to it.

Nothing but the head of one request is read: a request that has a body, or that comes in
parts for too long, or is too large, is refused.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h11
from wsproto.utilities import generate_accept_token

from isula_edge import errors

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Sequence

__all__ = ["Refused", "Request", "choose", "read_request", "refusal", "switching"]

_MAX_HEAD = 16384
_SPDY = "spdy/3.1"
_REASONS = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    503: "Service Unavailable",
}


class Refused(errors.InvalidArgument):
    """The request is answered with ``status`` and the text of this error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text, kind="request")
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request; names of headers are lower case."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: tuple[tuple[str, str], ...]
    after: bytes
    """What came behind the head already."""

    def values(self, name: str) -> list[str]:
        """All values of a header whose value is a list with commas, in order."""
        found = (value for header, value in self.headers if header == name)
        parts = (part.strip() for value in found for part in value.split(","))
        return [part for part in parts if part]

    @property
    def upgrade(self) -> str:
        """"spdy" or "websocket"; Refused when neither is asked for as it must be."""
        names = [value.lower() for value in self.values("upgrade")]
        connection = [value.lower() for value in self.values("connection")]
        if "upgrade" not in connection or not names:
            raise Refused(400, "unable to upgrade: missing upgrade headers in request")
        if "websocket" in names:
            self._check_websocket()
            return "websocket"
        if _SPDY in names:
            return "spdy"
        raise Refused(400, "unable to upgrade: only SPDY/3.1 and websocket are known")

    def _check_websocket(self) -> None:
        key = (self.values("sec-websocket-key") or [""])[0]
        size = 0
        with contextlib.suppress(binascii.Error, ValueError):
            size = len(base64.b64decode(key, validate=True))
        if self.method != "GET" or size != 16:
            raise Refused(400, "a WebSocket begins with GET and a Sec-WebSocket-Key of 16 bytes")
        if self.values("sec-websocket-version") != ["13"]:
            raise Refused(400, "only version 13 of the WebSocket protocol is known")


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection; None when it ends before; Refused."""
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
    head: h11.Request | None = None
    try:
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                data = await reader.read(8192)
                if not data:
                    return None
                parser.receive_data(data)
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                raise Refused(400, "a request for an upgrade has no body")
            else:  # the end of the message, or the pause behind it
                break
    except h11.RemoteProtocolError as error:
        raise Refused(400, f"no HTTP request: {error}") from error
    except OSError:
        return None
    return _request(head, parser.trailing_data[0]) if head is not None else None


def _request(head: h11.Request, after: bytes) -> Request:
    try:
        target = urllib.parse.urlsplit(head.target.decode("ascii"))
        query = urllib.parse.parse_qs(target.query, max_num_fields=256)
    except ValueError as error:
        raise Refused(400, "a target that is no URL") from error
    headers = tuple(
        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in head.headers
    )
    return Request(head.method.decode("ascii"), target.path, query, headers, after)


def choose(offered: Sequence[str], known: Iterable[str]) -> str:
    """The first of the client's protocols that is known; "" when it names none.

    Refused when no offered one is known.
    """
    known = list(known)
    for name in offered:
        if name in known:
            return name
    if not offered:
        return ""
    raise Refused(
        403,
        "unable to upgrade: unable to negotiate protocol: client supports "
        f"{', '.join(offered)[:200]}, server accepts {', '.join(filter(None, known))}",
    )


def switching(request: Request, upgrade: str, protocol: str) -> bytes:
    """The answer that begins the session of ``protocol``, which may be "" for none."""
    lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade"]
    if upgrade == "websocket":
        token = generate_accept_token(request.values("sec-websocket-key")[0].encode())
        lines += ["Upgrade: websocket", f"Sec-WebSocket-Accept: {token.decode()}"]
        name = "Sec-WebSocket-Protocol"
    else:
        lines += ["Upgrade: SPDY/3.1"]
        name = "X-Stream-Protocol-Version"
    if protocol:
        lines.append(f"{name}: {protocol}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def refusal(status: int, text: str) -> bytes:
    """A whole answer that ends the connection."""
    body = text.encode() + b"\n"
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nX-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
