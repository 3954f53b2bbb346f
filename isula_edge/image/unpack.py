"""Unpacks the tar of a layer into a directory, whatever the tar wants.

Two threads share the work.  The caller's reads (and so decompresses and hashes) the
stream; another one makes the files.  That one has left the rest of the process:
unshare(CLONE_FS) gives it a root, a working directory and a umask of its own, and
chroot(2) locks it into the layer.  Names are taken apart and walked without following
links all the same (:mod:`isula_edge.image.tree`); neither guard relies on the other.

The locked thread must not import anything: a module would come from the image.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from isula_edge.image.files import Files
from isula_edge.image.tar import TarReader
from isula_edge.image.tree import DIRECTORY_FLAGS
from isula_edge.image.whiteout import layer_tree
from isula_edge.sys import syscalls

if TYPE_CHECKING:
    from collections.abc import Callable

    from isula_edge.image.recorder import Recorder
    from isula_edge.snapshot.base import Style

__all__ = ["LayerStats", "unpack_layer"]

_log = logging.getLogger(__name__)
_CHUNK = 256 * 1024
_AHEAD = 4


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class LayerStats:
    """What a layer holds: the sum of its files' sizes, and how many entries its tar had."""

    size_bytes: int
    entries: int


def unpack_layer(
    stream: _Readable,
    root: str,
    style: Style,
    recorder: Recorder | None = None,
    check: Callable[[], object] | None = None,
) -> LayerStats:
    """Unpacks ``stream``, an uncompressed tar, into the existing directory ``root``.

    Reads to the end of the tar, maybe further, maybe not to the end of the stream; with
    ``recorder``, which has the layer's recipe then, to the end of the stream.  Raises what
    the stream raises; DataLoss or InvalidArgument for what is not in order, with the
    entry's name; OSError ENOSPC.  What was made until then stays.  ``check`` is called for
    every entry, by the thread that makes the files: what it raises ends the work.
    """
    feed = _Feed()
    worker = _Worker(feed, root, style, recorder, check)
    worker.start()
    try:
        feed.pump(stream)
    finally:
        worker.join()
    if worker.failure is not None:
        raise worker.failure
    if worker.lost:
        _log.warning(
            "the file system does not take %d extended attributes of the layer, among them %s",
            worker.lost,
            ", ".join(sorted(worker.lost_xattrs)),
        )
    return worker.stats


class _StreamError(Exception):
    """The stream has raised; the reason is with the caller's thread."""


class _Feed:
    """Passes the stream from the caller's thread to the other one, a little ahead."""

    def __init__(self) -> None:
        self._chunks: queue.Queue[bytes] = queue.Queue(_AHEAD)
        self._stopped = threading.Event()
        self._failed = False
        self._ended = False

    def pump(self, stream: _Readable) -> None:
        """Reads ``stream`` until its end, or until the other side needs no more."""
        try:
            while not self._stopped.is_set():
                data = stream.read(_CHUNK)
                self._chunks.put(data)
                if not data:
                    break
        except BaseException:
            self._failed = True
            self._chunks.put(b"")
            raise

    def read(self, size: int, /) -> bytes:
        """The next bytes, as they came; none at the end."""
        del size
        if self._ended:
            return b""
        data = self._chunks.get()
        if self._failed:
            raise _StreamError
        self._ended = not data
        return data

    def stop(self) -> None:
        """No more is read: a waiting :meth:`pump` goes on, and ends."""
        self._stopped.set()
        with contextlib.suppress(queue.Empty):
            while True:
                self._chunks.get_nowait()


class _Worker(threading.Thread):
    """The thread that is locked into the layer."""

    def __init__(
        self,
        feed: _Feed,
        root: str,
        style: Style,
        recorder: Recorder | None,
        check: Callable[[], object] | None,
    ) -> None:
        super().__init__(name="unpack", daemon=True)
        self._feed = feed
        self._root = root
        self._style = style
        self._recorder = recorder
        self._check = check
        self.failure: BaseException | None = None
        self.lost = 0
        self.lost_xattrs: set[str] = set()
        self.stats = LayerStats(0, 0)

    def run(self) -> None:
        """Unpacks; keeps what goes wrong for the caller."""
        try:
            recorder = self._recorder
            reader = TarReader(self._feed, recorder.raw if recorder is not None else None)
            files = Files(reader, layer_tree(self._enter(), self._style), recorder, self._check)
            files.unpack()
            self.stats = LayerStats(files.size_bytes, files.entries)
            self.lost, self.lost_xattrs = files.lost, files.lost_xattrs
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            self.failure = error
        finally:
            self._feed.stop()

    def _enter(self) -> int:
        """Locks the thread into the layer: a descriptor of its root."""
        syscalls.unshare(syscalls.CLONE_FS)
        os.umask(0)
        root = os.open(self._root, DIRECTORY_FLAGS)
        # who is not root cannot, and relies on the walk
        with contextlib.suppress(PermissionError):
            os.chroot(self._root)
            os.chdir("/")
        return root
