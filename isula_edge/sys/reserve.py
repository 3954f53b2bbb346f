"""A few files with blocks and inodes of their own, for writes that must not fail.

On a file system without a free block or inode nothing can be written next to what it
replaces, and so nothing could be untagged or recorded as ended.  A spare file is written
over in place and renamed over the target: this takes neither block nor inode, and is as
atomic as any other write.  What the target gives back makes the next spare file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading

from isula_edge import errors
from isula_edge.sys import atomic

__all__ = ["Reserve"]

_log = logging.getLogger(__name__)
_COUNT = 3
_SIZE = 64 * 1024
_STEP = 16 * 1024


class Reserve:
    """Spare files in ``folder``, which lies on the file system of what they replace.

    There are none before :meth:`refill`.  All methods may be called from any thread.
    """

    def __init__(self, folder: str, *, count: int = _COUNT, size: int = _SIZE) -> None:
        self.folder = folder
        self._count = count
        self._size = size
        self._lock = threading.Lock()

    def fit(self, size: int) -> None:
        """Makes the spare files large enough for a record of ``size`` bytes; raises NoSpace."""
        if size <= self._size:
            return
        wanted = -(-size // _STEP) * _STEP
        with self._lock:
            try:
                with atomic.space_errors(self.folder):
                    self._make(wanted)
            except errors.NoSpace:
                self._refill()
                raise
            self._size = wanted

    def refill(self) -> bool:
        """Makes what is missing; False when there is no space for all of it."""
        with self._lock:
            return self._refill()

    def _refill(self) -> bool:
        try:
            self._make(self._size)
        except (OSError, errors.NoSpace) as error:
            _log.debug("the reserve in %s is not complete: %s", self.folder, error)
            return False
        return True

    def _make(self, size: int) -> None:
        atomic.make_dir(self.folder)
        for number in range(self._count):
            _allocate(self._path(number), size)

    def write(self, path: str, data: bytes, mode: int = 0o600) -> bool:
        """Replaces the file ``path`` by ``data``, durably; False when no spare file can.

        Raises OSError where the file system refuses for another reason than space.
        """
        with self._lock:
            for number in reversed(range(self._count)):
                spare = self._path(number)
                try:
                    fitting = os.stat(spare).st_blocks * 512 >= len(data)
                except OSError:
                    continue
                if fitting:
                    self._replace(spare, path, data, mode)
                    self._refill()
                    return True
        return False

    def _replace(self, spare: str, path: str, data: bytes, mode: int) -> None:
        fd = os.open(spare, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            view, at = memoryview(data), 0
            while at < len(data):
                at += os.pwrite(fd, view[at:], at)
            os.ftruncate(fd, len(data))
            os.fchmod(fd, mode)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(spare, path)
        atomic.fsync_dir(os.path.dirname(path))
        atomic.fsync_dir(self.folder)

    def _path(self, number: int) -> str:
        return f"{self.folder}/{number}"


def _allocate(path: str, size: int) -> None:
    """A file of ``size`` bytes at ``path`` with all its blocks; one that is there is kept."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.suppress(FileNotFoundError):
        found = os.stat(path)
        if found.st_size == size and found.st_blocks * 512 >= size:
            return
    fd = os.open(path, flags, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
        os.ftruncate(fd, size)
        os.fsync(fd)
    except OSError:
        # half a spare file would keep blocks from whoever can use them
        if os.fstat(fd).st_blocks * 512 < size:
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise
    finally:
        os.close(fd)
    atomic.fsync_dir(os.path.dirname(path))
