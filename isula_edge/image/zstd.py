"""Zstandard for :mod:`isula_edge.image.decompress`: many frames, and none of them cut off.

The library takes the end of its input for the end of the data wherever it comes, so the
compressed bytes are followed here from frame to frame (RFC 8878, section 3.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import zstandard

from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Zstd"]

_CHUNK = 128 * 1024
_MAGIC = b"\x28\xb5\x2f\xfd"
_RLE = 1


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Zstd:
    """Decoder of the frames in ``source``."""

    def __init__(self, source: _Readable) -> None:
        self._followed = _Followed(source)
        self._reader = zstandard.ZstdDecompressor().stream_reader(
            self._followed,  # type: ignore[arg-type]  # only read() is used
            read_size=_CHUNK,
            read_across_frames=True,
            closefd=False,
        )

    def some(self, size: int) -> bytes:
        """At least one and at most ``size`` bytes; none at the end."""
        try:
            data = self._reader.read(size)
        except zstandard.ZstdError as error:
            raise errors.DataLoss(f"the zstd data is damaged: {error}", kind="layer") from error
        if not data and self._followed.inside:
            raise errors.DataLoss("the zstd data ends too early", kind="layer")
        return data


class _Followed:
    """Passes compressed bytes on and knows whether they end between two frames."""

    def __init__(self, source: _Readable) -> None:
        self._source = source
        self._steps = _frames()
        self._skip, self._wanted, self._between = next(self._steps)
        self._head = b""

    @property
    def inside(self) -> bool:
        """Whether the last byte read is in the middle of a frame."""
        return self._skip > 0 or bool(self._head) or not self._between

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, as the source has them."""
        data = self._source.read(size if size > 0 else _CHUNK)
        at = 0
        while at < len(data):
            if self._skip:
                count = min(self._skip, len(data) - at)
                self._skip -= count
                at += count
                continue
            part = data[at : at + self._wanted - len(self._head)]
            at += len(part)
            self._head += part
            if len(self._head) == self._wanted:
                head, self._head = self._head, b""
                self._skip, self._wanted, self._between = self._steps.send(head)
        return data


def _frames() -> Generator[tuple[int, int, bool], bytes, None]:
    """Wants bytes: after ``skip`` others, how many, and whether they begin a frame."""
    skip = 0
    while True:
        magic = yield skip, 4, True
        if magic != _MAGIC:
            # a skippable frame; what is no frame at all is found by the library
            skip = int.from_bytes((yield 0, 4, False), "little")
            continue
        (descriptor,) = yield 0, 1, False
        single = descriptor >> 5 & 1
        size_bytes = (single, 2, 4, 8)[descriptor >> 6]
        dictionary_bytes = (0, 1, 2, 4)[descriptor & 3]
        skip = size_bytes + dictionary_bytes + 1 - single
        last = False
        while not last:
            block = int.from_bytes((yield skip, 3, False), "little")
            last = bool(block & 1)
            skip = 1 if block >> 1 & 3 == _RLE else block >> 3
        skip += 4 if descriptor & 4 else 0
