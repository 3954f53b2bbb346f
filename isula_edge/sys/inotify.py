"""Waiting for files to appear or grow, without polling (inotify(7)) inside asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from typing import TYPE_CHECKING

from isula_edge.sys import syscalls

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Watcher"]

_EVENT = struct.Struct("iIII")
_Q_OVERFLOW = 0x4000
_IGNORED = 0x8000


class Watcher:
    """One inotify descriptor of the event loop.

    ``add(path, mask, callback)`` calls ``callback(name)`` for each event, ``name`` being
    the file in a watched directory or '' for the watched file itself.  After a queue
    overflow every callback is called with '' once, so that nothing is missed.
    """

    def __init__(self) -> None:
        self._fd = syscalls.inotify_init()
        self._callbacks: dict[int, Callable[[str], None]] = {}
        asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def add(self, path: str, mask: int, callback: Callable[[str], None]) -> int:
        """Begins a watch; its number is for :meth:`remove`."""
        watch = syscalls.inotify_add_watch(self._fd, path, mask)
        self._callbacks[watch] = callback
        return watch

    def remove(self, watch: int) -> None:
        """Ends a watch; one that ended by itself is fine."""
        if self._callbacks.pop(watch, None) is not None:
            with contextlib.suppress(OSError):
                syscalls.inotify_rm_watch(self._fd, watch)

    def close(self) -> None:
        """Ends all watches."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size
            name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
            offset += length
            if mask & _Q_OVERFLOW:
                for callback in list(self._callbacks.values()):
                    callback("")
                continue
            if mask & _IGNORED:
                self._callbacks.pop(watch, None)
                continue
            found = self._callbacks.get(watch)
            if found is not None:
                found(name)
