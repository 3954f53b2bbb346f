"""Frames between ``isula`` and ``isulad``: length-prefixed CBOR on a stream socket.

A connection begins with :data:`PREAMBLE` from the client: six bytes of magic and a
big-endian u16, the API version.  Then both sides send frames: a big-endian u32, the
length of the payload in bytes, and the payload, one CBOR map.

Client to daemon::

    {"m": method, "p": params}   a request; one at a time on a connection
    {"i": bytes}                 data for the standard input of the request's stream
    {"e": True}                  end of standard input
    {"w": [rows, columns]}       new size of the terminal
    {"s": signal}                signal for the process (sig-proxy)

Daemon to client::

    {"o": bytes} / {"E": bytes}  standard output / standard error of the stream
    {"v": value}                 an item: progress, an event, a line of a list
    {"r": result}                the end, with the result
    {"x": error}                 the end, with an error (see isula_edge.errors.to_wire)

A client that closes the connection cancels its request.  A frame above
:data:`MAX_REQUEST` (to the daemon) or :data:`MAX_ANSWER` (to the client), or one that
is no CBOR map, ends that connection and harms no other.

This module imports nothing, so that the client starts fast; it holds the CBOR subset
(RFC 8949: integers to 64 bit, byte and text strings, arrays, maps, floats, booleans
and null, definite lengths) that both sides speak.
"""

from __future__ import annotations

__all__ = [
    "MAX_ANSWER",
    "MAX_REQUEST",
    "PREAMBLE",
    "PREAMBLE_MAGIC",
    "WireError",
    "decode",
    "encode",
    "pack",
]

# the client imports this at every start: no module that is not needed
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PREAMBLE_MAGIC = b"isula\n"
PREAMBLE = PREAMBLE_MAGIC + b"\x00\x01"
MAX_REQUEST = 4 << 20
"""Largest payload the daemon accepts, in bytes."""
MAX_ANSWER = 64 << 20
"""Largest payload a client accepts, in bytes."""
_MAX_DEPTH = 64


class WireError(ValueError):
    """The bytes are not a frame of this protocol."""


def _head(major: int, value: int) -> bytes:
    major <<= 5
    if value < 24:
        return bytes((major | value,))
    if value < 0x100:
        return bytes((major | 24, value))
    if value < 0x10000:
        return bytes((major | 25,)) + value.to_bytes(2, "big")
    if value < 0x100000000:
        return bytes((major | 26,)) + value.to_bytes(4, "big")
    return bytes((major | 27,)) + value.to_bytes(8, "big")


def encode(value: Any) -> bytes:
    """``value`` as CBOR; raises TypeError for a type outside the subset."""
    parts: list[bytes] = []
    _encode(value, parts)
    return b"".join(parts)


def _encode(value: Any, parts: list[bytes]) -> None:
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogateescape")
        parts.append(_head(3, len(data)))
        parts.append(data)
    elif value is True:
        parts.append(b"\xf5")
    elif value is False:
        parts.append(b"\xf4")
    elif value is None:
        parts.append(b"\xf6")
    elif isinstance(value, int):
        parts.append(_head(0, value) if value >= 0 else _head(1, -1 - value))
    elif isinstance(value, (bytes, bytearray, memoryview)):
        parts.append(_head(2, len(value)))
        parts.append(bytes(value))
    elif isinstance(value, dict):
        parts.append(_head(5, len(value)))
        for key, item in value.items():
            _encode(key, parts)
            _encode(item, parts)
    elif isinstance(value, (list, tuple)):
        parts.append(_head(4, len(value)))
        for item in value:
            _encode(item, parts)
    elif isinstance(value, float):
        from struct import pack as struct_pack

        parts.append(b"\xfb" + struct_pack(">d", value))
    else:
        raise TypeError(f"cannot send a {type(value).__name__} on the wire")


def pack(value: Any) -> bytes:
    """A whole frame: length and payload."""
    data = encode(value)
    return len(data).to_bytes(4, "big") + data


def decode(data: bytes) -> Any:
    """The one value that ``data`` holds; raises :class:`WireError` for anything else."""
    try:
        value, end = _decode(data, 0, 0)
    except IndexError:
        raise WireError("truncated CBOR") from None
    if end != len(data):
        raise WireError("trailing bytes after CBOR value")
    return value


def _decode(data: bytes, pos: int, depth: int) -> tuple[Any, int]:
    if depth > _MAX_DEPTH:
        raise WireError("CBOR nested too deeply")
    first = data[pos]
    major, info = first >> 5, first & 31
    pos += 1
    if info < 24:
        length = info
    elif info < 28:
        size = 1 << (info - 24)
        if pos + size > len(data):
            raise WireError("truncated CBOR")
        length = int.from_bytes(data[pos : pos + size], "big")
        pos += size
    else:
        raise WireError("indefinite lengths are not part of the protocol")
    if major == 0:
        return length, pos
    if major == 1:
        return -1 - length, pos
    if major in (2, 3):
        end = pos + length
        if end > len(data):
            raise WireError("truncated CBOR")
        chunk = data[pos:end]
        return (chunk if major == 2 else chunk.decode("utf-8", "surrogateescape")), end
    if major == 7:
        return _simple(info, length), pos
    if length > len(data) - pos:
        raise WireError("truncated CBOR")
    return _container(data, pos, major, length, depth)


def _container(data: bytes, pos: int, major: int, length: int, depth: int) -> tuple[Any, int]:
    if major == 4:
        items = []
        for _ in range(length):
            item, pos = _decode(data, pos, depth + 1)
            items.append(item)
        return items, pos
    if major == 5:
        table = {}
        for _ in range(length):
            key, pos = _decode(data, pos, depth + 1)
            if not isinstance(key, (str, int, bytes)):
                raise WireError("a map key must be a string or an integer")
            table[key], pos = _decode(data, pos, depth + 1)
        return table, pos
    raise WireError("tags are not part of the protocol")


def _simple(info: int, bits: int) -> Any:
    if info == 20:
        return False
    if info == 21:
        return True
    if info == 22:
        return None
    if info in (26, 27):
        from struct import unpack

        return unpack(">f" if info == 26 else ">d", bits.to_bytes(4 if info == 26 else 8, "big"))[0]
    raise WireError("unknown simple value")
