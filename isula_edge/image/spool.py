"""Bytes on their way from a download to the unpacking of a layer.

While nobody reads, they go to a file without a name; once the reader has caught up they
go through a small buffer in memory, and a slow reader slows the download down.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections import deque
from typing import TYPE_CHECKING

from isula_edge.sys import atomic

if TYPE_CHECKING:
    from isula_edge.errors import EngineError

__all__ = ["Spool", "unnamed_file"]

_BUFFER_BYTES = 512 * 1024


def unnamed_file(folder: str) -> int:
    """Descriptor of an empty file in ``folder`` that is gone when it is closed."""
    flags = os.O_RDWR | os.O_CLOEXEC
    with atomic.space_errors(folder):
        # O_TMPFILE needs Linux 3.11 and support of the file system
        with contextlib.suppress(OSError, AttributeError):
            return os.open(folder, flags | os.O_TMPFILE, 0o600)
        path = f"{folder}/{atomic.TEMP_PREFIX}{secrets.token_hex(8)}"
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        os.unlink(path)
        return fd


class Spool:
    """A pipe with one writer and one reader, each in its own thread."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._changed = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._fd = -1
        self._written = 0
        self._read = 0
        self._writing = False
        self._reading = False
        self._ended = False
        self._error: EngineError | None = None

    def write(self, data: bytes) -> None:
        """Takes ``data``; waits while the reader is behind.  Raises what :meth:`fail` was given."""
        with self._changed:
            if self._error is not None:
                raise self._error
            if self._reading and self._read == self._written:
                while self._buffered >= _BUFFER_BYTES and self._error is None:
                    self._changed.wait()
                if self._error is not None:
                    raise self._error
                self._chunks.append(data)
                self._buffered += len(data)
                self._changed.notify_all()
                return
            self._writing = True
        try:
            self._to_file(data)
        finally:
            with self._changed:
                self._writing = False
                self._changed.notify_all()

    def _to_file(self, data: bytes) -> None:
        if self._fd < 0:
            self._fd = unnamed_file(self._folder)
        with atomic.space_errors(self._folder):
            view = memoryview(data)
            at = self._written
            while view:
                count = os.pwrite(self._fd, view, at)
                view = view[count:]
                at += count
        with self._changed:
            self._written = at

    def finish(self) -> None:
        """All data was written, and is what it should be."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def fail(self, error: EngineError) -> None:
        """Reader and writer get ``error``, unless all data is there already."""
        with self._changed:
            if not self._ended and self._error is None:
                self._error = error
            self._changed.notify_all()

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes; fewer only at the end."""
        self._reading = True
        parts: list[bytes] = []
        left = size
        while left > 0 and (data := self._some(left)):
            parts.append(data)
            left -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _some(self, size: int) -> bytes:
        with self._changed:
            while True:
                if self._error is not None:
                    raise self._error
                if self._read < self._written:
                    break
                if self._chunks:
                    return self._from_buffer(size)
                if self._written and not self._writing:
                    self._forget_file()
                if self._ended and not self._writing:
                    return b""
                self._changed.wait()
            size = min(size, self._written - self._read)
        data = os.pread(self._fd, size, self._read)
        with self._changed:
            self._read += len(data)
        return data

    def _from_buffer(self, size: int) -> bytes:
        data = self._chunks.popleft()
        if len(data) > size:
            self._chunks.appendleft(data[size:])
            data = data[:size]
        self._buffered -= len(data)
        self._changed.notify_all()
        return data

    def _forget_file(self) -> None:
        """The reader has caught up: the space of the file is given back."""
        os.ftruncate(self._fd, 0)
        self._read = self._written = 0

    def close(self) -> None:
        """Gives the file back; call it when writer and reader have ended."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._chunks.clear()
