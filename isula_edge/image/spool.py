"""The blob of a layer between its download and its unpacking.

The bytes go into the file of a :class:`~isula_edge.image.partial.Partial` and are read from
it while it grows: out of the page cache, so that memory is constant, neither side waits for
the other, and a download that ends early has left what it brought.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.sys import atomic

if TYPE_CHECKING:
    from collections.abc import Callable

    from isula_edge.image.digest import Hasher
    from isula_edge.image.partial import Partial

__all__ = ["Restarted", "Spool", "unnamed_file"]

_log = logging.getLogger(__name__)


class Restarted(errors.Aborted):
    """The bytes read so far were not those of the blob; reading begins again."""


def unnamed_file(folder: str) -> int:
    """Descriptor of an empty file in ``folder`` that is gone when it is closed."""
    flags = os.O_RDWR | os.O_CLOEXEC
    with atomic.space_errors(folder):
        # O_TMPFILE needs Linux 3.11 and support of the file system
        with contextlib.suppress(OSError, AttributeError):
            return os.open(folder, flags | os.O_TMPFILE, 0o600)
        path = f"{folder}/{atomic.TEMP_PREFIX}{os.urandom(8).hex()}"
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        os.unlink(path)
        return fd


class Spool:
    """A file with one writer and one reader, each in its own thread.

    The thread that made it calls :meth:`close`; the writer's calls :meth:`left` at its end.
    ``monotonic`` is the clock of the syncs; ``read_out`` is called when all has been read.
    ``again``: the bytes are needed once more when they have been used.
    """

    def __init__(
        self,
        partial: Partial,
        monotonic: Callable[[], float],
        *,
        again: bool = False,
        read_out: Callable[[], object] | None = None,
    ) -> None:
        self._partial = partial
        self._now = monotonic
        self._again = again
        self._read_out = read_out
        self._changed = threading.Condition()
        self._available = 0
        self._needed = 0
        self._read = 0
        self._restarts = 0
        self._seen_restarts = 0
        self._ended = False
        self._error: errors.EngineError | None = None
        self._writing = True
        self._closed = False
        self._useless = False
        self._keep = True

    # the writer's side

    def recover(self, size: int, hasher: Hasher) -> int:
        """How many bytes an earlier download left; they are given to ``hasher``."""

        def take(data: bytes) -> None:
            hasher.update(data)
            self._grown(self._available + len(data))

        return self._partial.recover(size, take)

    def write(self, data: bytes) -> None:
        """Appends ``data``.  Raises NoSpace, or what :meth:`fail` was given."""
        if self._error is not None:
            raise self._error
        self._partial.write(data)
        self._grown(self._partial.length)
        self._partial.sync_if_due(self._now())

    def _grown(self, available: int) -> None:
        with self._changed:
            self._available = available
            if available >= self._needed:
                self._changed.notify_all()

    def restart(self) -> None:
        """All that was written was wrong: begins with nothing, and the reader does so too."""
        with self._changed:
            self._restarts += 1
            self._available = 0
            self._changed.notify_all()
        self._partial.clear()

    def finish(self) -> None:
        """All data was written, and is what it should be."""
        self._partial.complete()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def left(self, *, useless: bool = False) -> None:
        """The writer will not come back; ``useless``: nobody shall go on from what it wrote."""
        with self._changed:
            self._writing = False
            self._useless = self._useless or useless
            self._give_back()

    # the reader's side

    def rewind(self) -> None:
        """The next read begins at the first byte."""
        with self._changed:
            self._read = 0
            self._seen_restarts = self._restarts

    def read(self, size: int, /) -> bytes:
        """The next ``size`` bytes; fewer only at the end.  Restarted asks to rewind."""
        with self._changed:
            self._needed = self._read + size
            while self._available < self._needed and not self._ended:
                self._check()
                self._changed.wait()
            self._check()
            size = min(size, self._available - self._read)
        data = b""
        while len(data) < size:
            part = os.pread(self._partial.fd, size - len(data), self._read + len(data))
            # a file that was emptied under the reader: the check below tells
            if not part:
                break
            data = data + part if data else part
        with self._changed:
            self._check()
            self._read += len(data)
        if len(data) < size:
            raise errors.DataLoss("the file of a layer became shorter", kind="layer")
        if not data:
            self._spare()
        return data

    def _check(self) -> None:
        if self._restarts != self._seen_restarts:
            raise Restarted("the download begins again")
        if self._error is not None and not self._ended:
            raise self._error

    def _spare(self) -> None:
        """Nobody needs the file any more: what is not on the disk yet need not get there.

        The commit of the layer, which follows, writes all that the file system holds back.
        """
        if not (self._partial.kept or self._again or self._partial.wanted()):
            self._partial.clear()
        if self._read_out is not None:
            self._read_out()

    def verdict(self, size: int, worth: int) -> None:
        """Waits until the blob is verified, if at most ``worth`` of its ``size`` bytes are left.

        Raises Restarted, or the error that ended the download; returns when it is in order.
        """
        with self._changed:
            while not self._ended and size - self._available <= worth:
                self._check()
                self._changed.wait()
            self._check()

    # everybody's

    def fail(self, error: errors.EngineError) -> None:
        """Reader and writer get ``error``, unless all data is there already."""
        with self._changed:
            if not self._ended and self._error is None:
                self._error = error
            self._changed.notify_all()

    def close(self, *, keep: bool, used: bool = False) -> None:
        """Gives the file and its lock back, at the latest when the writer has left.

        ``used``: the layer is committed, and only somebody else can want the bytes.
        """
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._keep = keep and not (used and not self._again and not self._partial.wanted())
            self._give_back()

    def _give_back(self) -> None:
        if self._closed and not self._writing:
            try:
                self._partial.close(keep=self._keep and not self._useless)
            except OSError as error:
                _log.warning("cannot remove an unfinished download: %s", error)
