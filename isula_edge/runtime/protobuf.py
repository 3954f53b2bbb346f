"""protobuf by hand: fields of bytes and numbers, and messages that are dataclasses.

The messages of ttrpc and of containerd's shims are small and few; the protobuf package costs
more memory than all of them.  A message is a dataclass whose fields say their number::

    @dataclass(frozen=True, slots=True)
    class Exit(Message):
        exit_status: Annotated[int, 1] = 0
        exited_ns: Annotated[int | None, 2] = None

The type of a field says how it is written:

    str, bytes, bool    as they are
    int                 a number of 64 bits, or less; negative ones as int64 has them
    int | None          google.protobuf.Timestamp: ns since 1970 UTC.  What is not set, and
                        what is before 1970 (Go's zero time is the year 1), is None
    a Message (| None)  a message inside this one; None when it is absent
    tuple[X, ...]       a repeated field of text, bytes or messages

Fields without a number here are skipped.  A value of proto3 that is zero or empty is left out.

Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BYTES", "VARINT", "Message", "field", "fields", "number", "signed", "tag", "varint"]

VARINT, BYTES = 0, 2
_FIXED64, _FIXED32 = 1, 5
_BILLION = 10**9


def varint(value: int) -> bytes:
    """A number of 64 bits; a negative one as its two's complement."""
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value: int) -> int:
    """An int32 or int64 of what :func:`fields` gave."""
    return value - 2**64 if value >> 63 else value


def tag(place: int, kind: int) -> bytes:
    """What stands before the value of field ``place``."""
    return varint(place << 3 | kind)


def field(place: int, data: bytes, *, empty: bool = False) -> bytes:
    """A field of bytes or text; nothing for an empty one, as proto3 wants it."""
    return tag(place, BYTES) + varint(len(data)) + data if data or empty else b""


def number(place: int, value: int) -> bytes:
    """A field of a number or a bool; nothing for 0."""
    return tag(place, VARINT) + varint(value) if value else b""


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of every field; ValueError for what is no protobuf message.

    Numbers of fixed size are passed over: no message here has one, so the field is unknown.
    """
    place = 0
    while place < len(data):
        key, place = _read_varint(data, place)
        which, kind = key >> 3, key & 7
        if not 0 < which < 1 << 29:
            raise ValueError(f"no field has the number {which}")
        if kind == VARINT:
            value, place = _read_varint(data, place)
            yield which, value
            continue
        if kind == BYTES:
            size, place = _read_varint(data, place)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"no field is of kind {kind}")
        if size > len(data) - place:
            raise ValueError("a field ends behind its message")
        if kind == BYTES:
            yield which, data[place : place + size]
        place += size


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for count, byte in enumerate(data[place : place + 10]):
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value & 2**64 - 1, place + count + 1
    raise ValueError("a number does not end")


class _Part(NamedTuple):
    """A field of a message: what it is called, of which type one value is, and how many."""

    name: str
    kind: type
    repeated: bool


class Message:
    """A message; its subclasses are dataclasses as this module's first lines show."""

    __slots__ = ()

    def encode(self) -> bytes:
        """As protobuf; fields in the order of their numbers."""
        parts = []
        for place, part in _parts(type(self)).items():
            value = getattr(self, part.name)
            for one in value if part.repeated else (value,):
                parts.append(_encode(place, part, one))
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The message in ``data``; ValueError when it is none of this kind."""
        known = _parts(cls)
        values: dict[str, Any] = {}
        for place, raw in fields(data):
            part = known.get(place)
            if part is None:
                continue
            try:
                value = _decode(part.kind, raw)
            except ValueError as error:
                raise ValueError(f"{cls.__name__}.{part.name}: {error}") from error
            if part.repeated:
                values.setdefault(part.name, []).append(value)
            else:
                values[part.name] = value
        for part in known.values():
            if part.repeated:
                values[part.name] = tuple(values.get(part.name, ()))
        return cls(**values)


_known: dict[type[Message], dict[int, _Part]] = {}


def _parts(message: type[Message]) -> dict[int, _Part]:
    if message in _known:
        return _known[message]
    found = {}
    for name, hint in typing.get_type_hints(message, include_extras=True).items():
        if typing.get_origin(hint) is not Annotated:
            continue
        kind, place = typing.get_args(hint)
        repeated = typing.get_origin(kind) is tuple
        if repeated:
            kind = typing.get_args(kind)[0]
        if isinstance(kind, types.UnionType):
            kind = typing.get_args(kind)[0]
            kind = _Timestamp if kind is int else kind
        found[place] = _Part(name, kind, repeated)
    _known[message] = dict(sorted(found.items()))
    return _known[message]


def _encode(place: int, part: _Part, value: Any) -> bytes:
    if value is None:
        return b""
    if part.kind is _Timestamp:
        seconds, nanos = divmod(value, _BILLION)
        return field(place, _Timestamp(seconds, nanos).encode(), empty=True)
    if issubclass(part.kind, Message):
        return field(place, value.encode(), empty=True)
    if part.kind is str:
        return field(place, value.encode("utf-8", "surrogateescape"), empty=part.repeated)
    if part.kind is bytes:
        return field(place, value, empty=part.repeated)
    return number(place, value)


def _decode(kind: type, value: int | bytes) -> Any:
    if kind is int or kind is bool:
        if not isinstance(value, int):
            raise ValueError("is no number")
        return bool(value) if kind is bool else signed(value)
    if not isinstance(value, bytes):
        raise ValueError("is a number")
    if kind is bytes:
        return value
    if kind is str:
        return value.decode()
    if kind is _Timestamp:
        return _Timestamp.decode(value).nanoseconds()
    assert issubclass(kind, Message)  # noqa: S101  # what a field of a message may be
    return kind.decode(value)


@dataclass(frozen=True, slots=True)
class _Timestamp(Message):
    """google.protobuf.Timestamp."""

    seconds: Annotated[int, 1] = 0
    nanos: Annotated[int, 2] = 0

    def nanoseconds(self) -> int | None:
        """Since 1970 UTC; None before it, which Go's programs mean by no time at all."""
        return None if self.seconds < 0 else self.seconds * _BILLION + self.nanos
