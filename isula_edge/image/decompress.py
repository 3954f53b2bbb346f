"""Plain bytes out of a stream, whatever it is compressed with: told by its first bytes.

Gzip, zstd, bzip2 and xz, each with any number of members one after the other; what is
none of them is passed on as it is.  Memory does not depend on the data: a bomb is
inflated piece by piece and meets the limits of whoever reads it.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["open_stream"]

_CHUNK = 128 * 1024
_HEAD = 10
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")
# xz -9 needs 65 MiB; a header can ask for 4 GiB
_XZ_MEMORY = 128 << 20


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Inflater(Protocol):
    """What bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def open_stream(stream: _Readable) -> _Readable:
    """A reader of the uncompressed bytes of ``stream``; its ``read`` is short only at the end.

    Reads the first bytes of ``stream`` now.  The reader raises DataLoss when compressed
    data is damaged or ends too early.
    """
    head = stream.read(_HEAD)
    source = _Pushed(stream, head)
    if head[:3] == b"\x1f\x8b\x08":
        return _Whole(_Gzip(source))
    if head[:4] == b"\x28\xb5\x2f\xfd" or (head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5):
        from isula_edge.image.zstd import Zstd

        return _Whole(Zstd(source))
    if head[:3] == b"BZh" and head[4:10] in _BZIP2_BLOCKS:
        import bz2

        return _Whole(_Members("bzip2", source, bz2.BZ2Decompressor, OSError))
    if head[:6] == b"\xfd7zXZ\0":
        import lzma

        def new() -> lzma.LZMADecompressor:
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

        return _Whole(_Members("xz", source, new, lzma.LZMAError))
    return source


class _Pushed:
    """A stream whose first bytes were read already."""

    def __init__(self, stream: _Readable, head: bytes) -> None:
        self._stream = stream
        self._head = head

    def read(self, size: int, /) -> bytes:
        """The next ``size`` bytes; fewer only at the end."""
        head = self._head
        if not head:
            return self._stream.read(size)
        self._head = head[size:]
        if size <= len(head):
            return head[:size]
        return head + self._stream.read(size - len(head))


class _Decoder(Protocol):
    def some(self, size: int) -> bytes: ...


class _Whole:
    """Makes reads of the full size out of what a decoder happens to have."""

    def __init__(self, decoder: _Decoder) -> None:
        self._decoder = decoder

    def read(self, size: int, /) -> bytes:
        """The next ``size`` bytes; fewer only at the end."""
        data = self._decoder.some(size)
        if len(data) == size or not data:
            return data
        parts = [data]
        left = size - len(data)
        while left > 0 and (data := self._decoder.some(left)):
            parts.append(data)
            left -= len(data)
        return b"".join(parts)


class _Gzip:
    def __init__(self, source: _Readable) -> None:
        self._source = source
        self._inflater = zlib.decompressobj(31)
        self._input = b""

    def some(self, size: int) -> bytes:
        """At least one and at most ``size`` bytes; none at the end."""
        while True:
            if self._inflater.eof and not self._next_member():
                return b""
            data = self._input or self._source.read(_CHUNK)
            if not data:
                raise _cut_off("gzip")
            try:
                found = self._inflater.decompress(data, size)
            except zlib.error as error:
                raise _damaged("gzip", error) from error
            self._input = self._inflater.unconsumed_tail
            if found:
                return found

    def _next_member(self) -> bool:
        rest = _after_padding(self._inflater.unused_data or self._input, self._source)
        # kept for the next call at the end, where there is nothing to inflate
        self._input = rest
        if rest:
            self._inflater = zlib.decompressobj(31)
        return bool(rest)


class _Members:
    """Bzip2 and xz: members one after the other, xz with zeros between them."""

    def __init__(
        self,
        name: str,
        source: _Readable,
        new: Callable[[], _Inflater],
        failure: type[Exception],
    ) -> None:
        self._name = name
        self._source = source
        self._new = new
        self._failure = failure
        self._inflater = new()
        self._input = b""
        self._ended = False

    def some(self, size: int) -> bytes:
        """At least one and at most ``size`` bytes; none at the end."""
        while not self._ended:
            if self._inflater.eof:
                self._input = _after_padding(self._inflater.unused_data, self._source)
                if not self._input:
                    self._ended = True
                    break
                self._inflater = self._new()
            elif self._inflater.needs_input:
                self._input = self._source.read(_CHUNK)
                if not self._input:
                    raise _cut_off(self._name)
            found = self._inflate(size)
            if found:
                return found
        return b""

    def _inflate(self, size: int) -> bytes:
        data, self._input = self._input, b""
        try:
            return self._inflater.decompress(data, size)
        except (self._failure, EOFError, ValueError) as error:
            if "Memory usage limit" in str(error):
                raise errors.ResourceExhausted(
                    f"the {self._name} data needs more than {_XZ_MEMORY >> 20} MiB of memory",
                    kind="layer",
                ) from error
            raise _damaged(self._name, error) from error


def _after_padding(data: bytes, source: _Readable) -> bytes:
    """What follows a member: its first bytes without leading zeros, or nothing."""
    while True:
        data = data.lstrip(b"\0")
        if data:
            return data
        data = source.read(_CHUNK)
        if not data:
            return b""


def _cut_off(name: str) -> errors.DataLoss:
    return errors.DataLoss(f"the {name} data ends too early", kind="layer")


def _damaged(name: str, error: Exception) -> errors.DataLoss:
    return errors.DataLoss(f"the {name} data is damaged: {error}", kind="layer")
