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
_IN_MASK_ADD = 0x20000000
_Q_OVERFLOW = 0x4000
_IGNORED = 0x8000


class Watcher:
    """One inotify descriptor of the event loop, shared by everybody.

    ``add(path, mask, callback)`` calls ``callback(name)`` for each event, ``name`` being
    the file in a watched directory or '' for the watched file itself.  A callback may see
    events of a mask that somebody else asked for on the same path.  After a queue overflow
    every callback is called with '' once, so that nothing is missed.
    """

    def __init__(self) -> None:
        self._fd = syscalls.inotify_init()
        # the kernel has one watch per inode: several callbacks share it
        self._callbacks: dict[int, dict[int, Callable[[str], None]]] = {}
        self._watch_of: dict[int, int] = {}
        self._next = 0
        asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def add(self, path: str, mask: int, callback: Callable[[str], None]) -> int:
        """Begins a watch; its number is for :meth:`remove`."""
        watch = syscalls.inotify_add_watch(self._fd, path, mask | _IN_MASK_ADD)
        self._next += 1
        self._callbacks.setdefault(watch, {})[self._next] = callback
        self._watch_of[self._next] = watch
        return self._next

    def remove(self, number: int) -> None:
        """Ends a watch; one that ended by itself is fine."""
        watch = self._watch_of.pop(number, None)
        if watch is None:
            return
        table = self._callbacks.get(watch)
        if table is None:
            return
        table.pop(number, None)
        if not table:
            del self._callbacks[watch]
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
                for table in list(self._callbacks.values()):
                    for callback in list(table.values()):
                        callback("")
            elif mask & _IGNORED:
                for number in self._callbacks.pop(watch, {}):
                    self._watch_of.pop(number, None)
            else:
                for callback in list(self._callbacks.get(watch, {}).values()):
                    callback(name)
