"""Records the recipe of a layer while the layer is unpacked (see :mod:`isula_edge.image.recipe`).

Runs in the thread that is locked into the layer: everything it needs is imported and
opened before.
"""

from __future__ import annotations

import errno
import os
import stat
import zlib
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.image import recipe
from isula_edge.image.tar_extensions import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Recorder"]

_BLOCK_BYTES = 512 * 1024
_LEVEL = 1
_MAX_CONTENT = 100_000
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Recorder:
    """Writes a recipe to ``fd``, an empty file that stays the caller's.

    Memory does not depend on the layer, but for one number for every hard link in it.
    """

    def __init__(self, fd: int) -> None:
        import zstandard

        self._fd = fd
        self._packer = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)
        self._operations = bytearray()
        self._references = 0
        self._length = 0
        self._linked: set[int] = set()
        self._contents = 0
        self.size_bytes = 0
        self._write(recipe.MAGIC)

    def raw(self, data: bytes | memoryview) -> None:
        """The tar goes on with ``data``."""
        operations = self._operations
        operations += recipe.RAW.pack(recipe.R, len(data))
        operations += data
        self._length += len(data)
        if len(operations) >= _BLOCK_BYTES:
            self._flush()

    def file(self, path: bytes, size: int, pieces: Sequence[tuple[int, int]] | None) -> None:
        """The tar goes on with what the file at ``path`` holds now: all of it, or ``pieces``."""
        if pieces is None:
            self._operations += recipe.WHOLE.pack(recipe.F, len(path), size)
            self._operations += path
            self._length += size
        else:
            self._operations += recipe.PIECES.pack(recipe.S, len(path), size, len(pieces))
            self._operations += path
            for offset, length in pieces:
                self._operations += recipe.PIECE.pack(offset, length)
                self._length += length
        self._references += 1

    def linked(self, path: bytes) -> None:
        """``path`` became a further name of a file: nothing refers to it by this name."""
        self._linked.add(hash(path))

    def removing(self, dir_fd: int, name: bytes, path: bytes) -> None:
        """Copies what the layer's own file ``path`` holds; called before it is deleted.

        It may be a file of any type.  Raises ResourceExhausted when that happened for
        100,000 pieces of 512 KiB or less.
        """
        if self._linked and hash(path) in self._linked:
            # without this a large file and many links to it would be copied many times
            self._linked.discard(hash(path))
            return
        try:
            found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISREG(found.st_mode) or not found.st_size:
            return
        fd = os.open(name, _READ, dir_fd=dir_fd)
        try:
            empty = True
            for offset, data in _data(fd, found.st_size):
                self._content(data, path, offset)
                empty = False
            if empty:
                self._content(b"", path, 0)
        finally:
            os.close(fd)

    def _content(self, data: bytes, path: bytes, offset: int) -> None:
        self._contents += 1
        if self._contents > _MAX_CONTENT:
            # who reads the recipe has a few words in memory for each
            raise errors.ResourceExhausted(
                f"the layer replaces its own files too often, the last one is {shown(path)}",
                kind="layer",
            )
        self._block(recipe.CONTENT, data, path, self._references, offset)

    def finish(self) -> None:
        """The tar has ended: completes the recipe, whose ``size_bytes`` are known then."""
        self._flush()
        self._block(recipe.END, b"", b"", self._references, self._length)

    def _flush(self) -> None:
        if self._operations:
            self._block(recipe.OPERATIONS, self._operations, b"", 0, 0)
            self._operations.clear()

    def _block(
        self, kind: bytes, data: bytes | bytearray, path: bytes, ref: int, offset: int
    ) -> None:
        packed = self._packer.compress(data) if data else b""
        block = recipe.BLOCK.pack(kind, len(path), len(data), len(packed), ref, offset)
        block += path + packed
        self._write(block + recipe.CRC.pack(zlib.crc32(block)))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self.size_bytes += len(data)


def _data(fd: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Offset and content of what lies in a file, without its holes."""
    at = 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, at, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            # Linux before 3.1, and file systems that do not know their holes
            end = size
        while at < end:
            data = os.pread(fd, min(_BLOCK_BYTES, end - at), at)
            if not data:
                return
            yield at, data
            at += len(data)
