"""SPDY/3.1 frames: bytes to values and back, without any input or output.

A :class:`Decoder` takes what came in any pieces and keeps at most one control frame of
MAX_CONTROL bytes; the data of a stream is handed out as it comes, whatever the size of the
frame that it travels in.  What is no SPDY/3.1 raises InvalidArgument, after which the
connection is of no use: its header blocks are one compressed stream.

Source: the SPDY protocol, draft 3.1, sections 2.2 to 2.6.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CANCEL",
    "DICTIONARY",
    "FLOW_CONTROL_ERROR",
    "GOAWAY_OK",
    "GOAWAY_PROTOCOL_ERROR",
    "INITIAL_WINDOW",
    "INVALID_STREAM",
    "MAX_CONTROL",
    "MAX_WINDOW",
    "REFUSED_STREAM",
    "SETTINGS_INITIAL_WINDOW",
    "Data",
    "Decoder",
    "Encoder",
    "Frame",
    "GoAway",
    "Headers",
    "Ping",
    "RstStream",
    "Settings",
    "SynReply",
    "SynStream",
    "WindowUpdate",
    "data_header",
    "goaway",
    "ping",
    "rst_stream",
    "settings",
    "window_update",
]

INITIAL_WINDOW = 65536
"""Bytes that either side may send on a new stream."""
MAX_WINDOW = 0x7FFFFFFF
MAX_CONTROL = 16384
"""The largest control frame that is taken; those of a session have some hundred bytes."""
_MAX_HEADERS = 32768  # bytes of a header block when it is unpacked
_MAX_NAMES = 64

INVALID_STREAM, REFUSED_STREAM, CANCEL, FLOW_CONTROL_ERROR = 2, 3, 5, 7
"""Statuses of RST_STREAM."""
GOAWAY_OK, GOAWAY_PROTOCOL_ERROR = 0, 1
SETTINGS_INITIAL_WINDOW = 7

_VERSION = 0x8003
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS = 1, 2, 3, 4
_PING, _GOAWAY, _HEADERS, _WINDOW_UPDATE = 6, 7, 8, 9
_FIN = 1
_ID = 0x7FFFFFFF

_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language "
    "accept-ranges age allow authorization cache-control connection content-base "
    "content-encoding content-language content-length content-location content-md5 "
    "content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location "
    "max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after "
    "server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate "
    "method get status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin"
)
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 "
    "Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 "
    "Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, "
    "Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,"
    "application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age="
    "gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _counted(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


DICTIONARY = (
    b"".join(_counted(word.replace("_", " ").encode()) for word in _WORDS.split()) + _TAIL.encode()
)
"""What both sides' compressors begin with (section 2.6.10.1)."""


@dataclass(frozen=True, slots=True)
class SynStream:
    """The peer opens a stream; names of headers are lower case."""

    stream: int
    headers: dict[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class SynReply:
    """The peer accepts a stream."""

    stream: int
    headers: dict[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Headers:
    """More headers of an open stream."""

    stream: int
    headers: dict[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class RstStream:
    """The end of a stream, both ways."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What the peer wants of us, by number."""

    values: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ping:
    """To be sent back when the peer began it."""

    number: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The peer opens no more streams and wants none."""

    last: int
    status: int


@dataclass(frozen=True, slots=True)
class WindowUpdate:
    """So many more bytes may be sent on a stream."""

    stream: int
    delta: int


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream: a whole frame's or a part; ``fin`` with the last."""

    stream: int
    data: bytes
    fin: bool = False


Frame = (
    SynStream | SynReply | Headers | RstStream | Settings | Ping | GoAway | WindowUpdate | Data
)


class Encoder:
    """Makes the frames that carry headers: these share one compressed stream."""

    def __init__(self) -> None:
        # a window of 2 KiB holds the dictionary, and 9 KiB of memory are enough for that
        self._deflate = zlib.compressobj(1, wbits=11, memLevel=1, zdict=DICTIONARY)

    def syn_stream(self, stream: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        """SYN_STREAM, of the highest priority and without a parent."""
        return _control(_SYN_STREAM, struct.pack(">IIH", stream, 0, 0) + self._block(headers), fin)

    def syn_reply(self, stream: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        """SYN_REPLY."""
        return _control(_SYN_REPLY, struct.pack(">I", stream) + self._block(headers), fin)

    def headers(self, stream: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        """HEADERS."""
        return _control(_HEADERS, struct.pack(">I", stream) + self._block(headers), fin)

    def _block(self, headers: Mapping[str, str]) -> bytes:
        plain = struct.pack(">I", len(headers)) + b"".join(
            _counted(name.lower().encode("latin-1")) + _counted(value.encode("latin-1"))
            for name, value in headers.items()
        )
        return self._deflate.compress(plain) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def _control(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack(">HHI", _VERSION, kind, flags << 24 | len(body)) + body


def rst_stream(stream: int, status: int) -> bytes:
    """RST_STREAM."""
    return _control(_RST_STREAM, struct.pack(">II", stream, status))


def settings(values: Mapping[int, int]) -> bytes:
    """SETTINGS."""
    pairs = b"".join(struct.pack(">II", number, value) for number, value in values.items())
    return _control(_SETTINGS, struct.pack(">I", len(values)) + pairs)


def ping(number: int) -> bytes:
    """PING."""
    return _control(_PING, struct.pack(">I", number))


def goaway(last: int, status: int) -> bytes:
    """GOAWAY; ``last`` is the last stream of the peer's that was accepted."""
    return _control(_GOAWAY, struct.pack(">II", last, status))


def window_update(stream: int, delta: int) -> bytes:
    """WINDOW_UPDATE."""
    return _control(_WINDOW_UPDATE, struct.pack(">II", stream, delta))


def data_header(stream: int, size: int, *, fin: bool = False) -> bytes:
    """What stands before ``size`` bytes (less than 16 MiB) of a stream."""
    return struct.pack(">II", stream, fin << 24 | size)


class Decoder:
    """Makes frames of bytes."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._rest = b""
        self._stream, self._left, self._fin = 0, 0, False

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole with ``data``, and the parts of data frames in it.

        Frames of unknown types are skipped; InvalidArgument on what is no frame.
        """
        if self._rest:
            data = self._rest + data
        found: list[Frame] = []
        at, end = 0, len(data)
        while at < end:
            if self._left:
                part = data[at : at + self._left]
                at += len(part)
                self._left -= len(part)
                found.append(Data(self._stream, part, self._fin and not self._left))
                continue
            if end - at < 8:
                break
            first, second = struct.unpack_from(">II", data, at)
            flags, size = second >> 24, second & 0xFFFFFF
            if first >> 31:
                if size > MAX_CONTROL:
                    raise _wrong("a control frame is too large")
                if end - at - 8 < size:
                    break
                frame = self._control(first, flags, data[at + 8 : at + 8 + size])
                found += [frame] if frame is not None else []
                at += 8 + size
            else:
                found += self._begin_data(first, flags, size)
                at += 8
        self._rest = data[at:]
        return found

    def _begin_data(self, stream: int, flags: int, size: int) -> list[Frame]:
        if not stream:
            raise _wrong("data without a stream")
        self._stream, self._left, self._fin = stream, size, bool(flags & _FIN)
        return [] if size else [Data(stream, b"", self._fin)]

    def _control(self, first: int, flags: int, body: bytes) -> Frame | None:
        if first >> 16 != _VERSION:
            raise _wrong("a frame of another version")
        kind, fin = first & 0xFFFF, bool(flags & _FIN)
        if kind == _SYN_STREAM:
            (stream,) = _numbers(body[:4], 1)
            return SynStream(stream, self._headers(body[10:]), fin)
        if kind in (_SYN_REPLY, _HEADERS):
            (stream,) = _numbers(body[:4], 1)
            make = SynReply if kind == _SYN_REPLY else Headers
            return make(stream, self._headers(body[4:]), fin)
        if kind == _SETTINGS:
            return _read_settings(body)
        if kind == _PING:
            return Ping(struct.unpack(">I", body)[0]) if len(body) == 4 else _short()
        if kind == _RST_STREAM:
            return RstStream(*_numbers(body, 2))
        if kind == _WINDOW_UPDATE:
            stream, delta = _numbers(body, 2)
            return WindowUpdate(stream, delta & _ID)
        if kind == _GOAWAY:
            return GoAway(*_numbers(body, 2, zero=True))
        return None

    def _headers(self, block: bytes) -> dict[str, str]:
        """The headers of a block: at most 64, and 32 KiB when unpacked."""
        try:
            plain = self._inflate.decompress(block, _MAX_HEADERS)
        except zlib.error as error:
            raise _wrong(f"a header block: {error}") from error
        if self._inflate.unconsumed_tail or self._inflate.eof:
            raise _wrong("a header block is too large, or ends the compression")
        headers: dict[str, str] = {}
        count, at = _number(plain, 0)
        if count > _MAX_NAMES:
            raise _wrong("too many headers")
        for _ in range(count):
            name, at = _text(plain, at)
            value, at = _text(plain, at)
            if not name or name.lower() in headers:
                raise _wrong("a header without a name, or one that comes twice")
            headers[name.lower()] = value
        if at != len(plain):
            raise _wrong("a header block has more than its headers")
        return headers


def _numbers(body: bytes, count: int, *, zero: bool = False) -> tuple[int, ...]:
    """The numbers that are all of ``body``, the first of them the id of a stream."""
    if len(body) != 4 * count:
        _short()
    stream, *others = struct.unpack(f">{count}I", body)
    if not (stream & _ID or zero):
        raise _wrong("a frame without a stream")
    return (stream & _ID, *others)


def _read_settings(body: bytes) -> Settings:
    count, at = _number(body, 0)
    if len(body) != at + 8 * count:
        _short()
    words = struct.unpack_from(f">{2 * count}I", body, at)
    numbers = (word & 0xFFFFFF for word in words[::2])
    return Settings(dict(zip(numbers, words[1::2], strict=True)))


def _number(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at``, and where the next thing begins."""
    if len(data) - at < 4:
        _short()
    return struct.unpack_from(">I", data, at)[0], at + 4


def _text(data: bytes, at: int) -> tuple[str, int]:
    size, at = _number(data, at)
    if len(data) - at < size:
        _short()
    return data[at : at + size].decode("latin-1"), at + size


def _short() -> NoReturn:
    raise _wrong("a frame has another size than its content")


def _wrong(text: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(f"SPDY: {text}", kind="stream")
