"""Blobs that are there in part: what came before a cut, a kill or a power loss is kept.

Owns ``<tmpdir>/blobs``, for each blob two files:

- ``ALGORITHM-HEX.part``   its first bytes, as they came
- ``ALGORITHM-HEX.sums``   a magic and the CRC-32 of every block of them

A sum is written after its block, so that the blocks which have right sums are good whatever
happened; what follows them is cut off.  Bytes that are good in this sense need not be those
of the blob: its digest is calculated over all of them.

Whoever downloads a blob holds flock(2) on the ``.part``; the lock ends with its process.
Whoever waits for the lock holds a shared POSIX lock on the same file, by which the holder
knows that the bytes may be of use to somebody else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import zlib
from typing import TYPE_CHECKING, NamedTuple

from isula_edge.sys import atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

__all__ = [
    "BLOCK",
    "FOLDER",
    "Candidate",
    "Found",
    "Partial",
    "partials",
    "remove_old",
    "remove_partials",
]

FOLDER = "blobs"
"""Its name below the directory for temporary files."""
BLOCK = 256 * 1024
MAX_AGE_S = 7 * 24 * 3600
SYNC_AFTER_S = 10.0
"""A download that takes no longer is never forced to the disk: it would wear flash out."""
SYNC_EVERY_S = 10.0
SYNC_EVERY_BYTES = 8 << 20
_MAGIC = b"ISUM\x01\x00\x04\x00"
_SUM = 4
_PART, _SUMS = ".part", ".sums"


class Found(NamedTuple):
    """An unfinished download: its file, its size on disk, whether it is being worked on."""

    path: str
    size_bytes: int
    in_use: bool


class Candidate:
    """A blob that this thread wants to download: :meth:`lock` until it is its turn.

    While it exists, the holder of the lock knows that somebody waits.
    """

    def __init__(self, tmpdir: str, digest: str) -> None:
        algorithm, _, value = digest.partition(":")
        self._folder = f"{tmpdir}/{FOLDER}"
        self._path = f"{self._folder}/{algorithm}-{value}{_PART}"
        self._fd = -1
        atomic.make_dir(self._folder)

    def lock(self) -> Partial | None:
        """The partial download, which is the caller's from now on; None while it is another's."""
        while True:
            if self._fd < 0:
                self._fd = _open(self._path)
            if not _flock(self._fd, fcntl.LOCK_EX):
                # NFS, where both kinds of lock are one, does without the mark
                with contextlib.suppress(OSError):
                    fcntl.lockf(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            fd, self._fd = self._fd, -1
            if _is_at(fd, self._path):
                return Partial(self._folder, self._path, fd)
            # it was finished and removed meanwhile
            os.close(fd)

    def close(self) -> None:
        """Gives up waiting."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Partial:
    """The locked file of a blob.  One thread writes; others may read what is written."""

    def __init__(self, folder: str, path: str, fd: int) -> None:
        self.fd = fd
        self.length = 0
        self.kept = False
        """Whether bytes come from an earlier try, or were forced to the disk."""
        self._folder = folder
        self._path = path
        self._sums_path = path.removesuffix(_PART) + _SUMS
        self._sums = -1
        self._recovered = False
        self._crc = 0
        self._started: float | None = None
        self._synced_at = 0.0
        self._synced_bytes = 0

    def recover(self, size: int, take: Callable[[bytes], object]) -> int:
        """Gives ``take`` what is good of a blob of ``size`` bytes, block by block.

        Returns how many bytes that is; the rest of the file is gone then.
        """
        self._recovered = True
        with atomic.space_errors(self._path):
            for index, crc in enumerate(self._read_sums()):
                length = min(BLOCK, size - index * BLOCK)
                if length <= 0:
                    break
                data = _pread(self.fd, length, index * BLOCK)
                if len(data) < length or zlib.crc32(data) != crc:
                    break
                self.length += len(data)
                # of a last block that is shorter
                self._crc = crc if len(data) < BLOCK else 0
                take(data)
            os.ftruncate(self.fd, self.length)
            self._truncate_sums(-(-self.length // BLOCK))
        self.kept = self.length > 0
        self._synced_bytes = self.length
        return self.length

    def _read_sums(self) -> Iterator[int]:
        try:
            fd = os.open(self._sums_path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        self._sums = fd
        if _pread(fd, len(_MAGIC), 0) != _MAGIC:
            return
        at = len(_MAGIC)
        while len(data := _pread(fd, _SUM, at)) == _SUM:
            yield int.from_bytes(data, "little")
            at += _SUM

    def _truncate_sums(self, count: int) -> None:
        if self._sums >= 0:
            os.ftruncate(self._sums, len(_MAGIC) + _SUM * count if count else 0)

    def write(self, data: bytes) -> None:
        """Appends ``data``; NoSpace when it does not fit."""
        with atomic.space_errors(self._path):
            view = memoryview(data)
            while view:
                room = BLOCK - self.length % BLOCK
                count = os.pwrite(self.fd, view[:room], self.length)
                self._crc = zlib.crc32(view[:count], self._crc)
                self.length += count
                view = view[count:]
                if count == room:
                    self._add_sum(self.length // BLOCK - 1)

    def complete(self) -> None:
        """No more bytes come: the last block, which is shorter, gets its sum as well."""
        if self.length % BLOCK:
            with atomic.space_errors(self._path):
                self._add_sum(self.length // BLOCK)

    def _add_sum(self, index: int) -> None:
        crc, self._crc = self._crc, 0
        if self._sums < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            self._sums = os.open(self._sums_path, flags, 0o600)
        data = crc.to_bytes(_SUM, "little")
        if index == 0:
            os.pwrite(self._sums, _MAGIC + data, 0)
        else:
            os.pwrite(self._sums, data, len(_MAGIC) + _SUM * index)

    def sync_if_due(self, now: float) -> bool:
        """Makes a download that takes its time survive a power cut; whether it was the time.

        ``now`` is monotonic, in seconds.
        """
        if self._started is None:
            self._started = self._synced_at = now
        if now - self._started < SYNC_AFTER_S:
            return False
        fresh = self.length - self._synced_bytes
        if not fresh or (fresh < SYNC_EVERY_BYTES and now - self._synced_at < SYNC_EVERY_S):
            return False
        with atomic.space_errors(self._path):
            os.fdatasync(self.fd)
            if self._sums >= 0:
                os.fdatasync(self._sums)
            if not self.kept:
                atomic.fsync_dir(self._folder)
        self.kept = True
        self._synced_at, self._synced_bytes = now, self.length
        return True

    def clear(self) -> None:
        """Throws all bytes away; the lock stays."""
        os.ftruncate(self.fd, 0)
        self._truncate_sums(0)
        self.length = self._crc = self._synced_bytes = 0
        self.kept = False

    def wanted(self) -> bool:
        """Whether another process waits for the blob."""
        try:
            fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.lockf(self.fd, fcntl.LOCK_UN)
        return False

    def close(self, *, keep: bool) -> None:
        """Gives the lock back; without ``keep``, or with nothing worth it, the files go too."""
        try:
            if not (keep and self._is_of_use()):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._sums_path)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)
        finally:
            if self._sums >= 0:
                os.close(self._sums)
            os.close(self.fd)

    def _is_of_use(self) -> bool:
        if self._recovered:
            return self.length > 0 and self._sums >= 0
        return os.fstat(self.fd).st_size > 0


def partials(tmpdir: str) -> list[Found]:
    """Every unfinished download below ``tmpdir``."""
    found = []
    for path in _paths(tmpdir):
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                used = not _flock(fd, fcntl.LOCK_SH)
            finally:
                os.close(fd)
            found.append(Found(path, _size_on_disk(path), used))
    return found


def remove_partials(tmpdir: str) -> int:
    """Removes unfinished downloads that nobody works on; how many bytes of disk that gave."""
    return sum(_remove(path) for path in _paths(tmpdir))


def remove_old(tmpdir: str, keep: Collection[str], now: float | None = None) -> None:
    """Removes unfinished downloads that nothing was added to for a week.

    Those of the digests ``keep`` stay, as well as those that somebody works on.
    ``now`` is the wall clock, in seconds: a wrong one costs a download, no more.
    """
    names = {digest.replace(":", "-", 1) for digest in keep}
    before = (time.time() if now is None else now) - MAX_AGE_S
    for path in _paths(tmpdir):
        name = os.path.basename(path).removesuffix(_PART)
        with contextlib.suppress(OSError):
            if name not in names and (not os.path.exists(path) or os.stat(path).st_mtime < before):
                _remove(path)


def _paths(tmpdir: str) -> list[str]:
    """Paths of all ``.part`` files, also of those that only left their sums."""
    folder = f"{tmpdir}/{FOLDER}"
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    stems = {name.removesuffix(_SUMS).removesuffix(_PART) for name in names}
    return [f"{folder}/{stem}{_PART}" for stem in sorted(stems)]


def _remove(path: str) -> int:
    fd = _open(path, create=False)
    sums = path.removesuffix(_PART) + _SUMS
    if fd < 0:
        size = _size_on_disk(path)
        with contextlib.suppress(OSError):
            os.unlink(sums)
        return size
    try:
        if not _flock(fd, fcntl.LOCK_EX) or not _is_at(fd, path):
            return 0
        size = _size_on_disk(path)
        for name in (sums, path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        return size
    finally:
        os.close(fd)


def _open(path: str, *, create: bool = True) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    with atomic.space_errors(path):
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            if create:
                raise
            return -1


def _flock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(fd: int, path: str) -> bool:
    """Whether ``path`` is still the name of the open file."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(fd))


def _size_on_disk(path: str) -> int:
    size = 0
    for name in (path, path.removesuffix(_PART) + _SUMS):
        with contextlib.suppress(OSError):
            size += os.stat(name, follow_symlinks=False).st_blocks * 512
    return size


def _pread(fd: int, size: int, offset: int) -> bytes:
    """``size`` bytes, fewer only at the end of the file."""
    data = os.pread(fd, size, offset)
    while 0 < len(data) < size and (more := os.pread(fd, size - len(data), offset + len(data))):
        data += more
    return data
