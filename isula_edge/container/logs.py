"""Reading a container's log: conmon's k8s-file lines, from the end or as they come.

A line is ``2006-01-02T15:04:05.000000000+00:00 stdout F text``; P instead of F means that
the text goes on in the next line of the same stream.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isula_edge.sys import syscalls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from isula_edge.sys.inotify import Watcher

__all__ = ["LogLine", "follow", "parse", "read_tail", "stamp_ns", "utc"]

_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class LogLine:
    """One piece of output: ``stamp`` as written, ``error`` for standard error, ``data``."""

    stamp: str
    error: bool
    data: bytes


def parse(line: bytes) -> LogLine | None:
    """A log line without its newline; None for one that is damaged."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[2] not in (b"F", b"P"):
        return None
    data = parts[3] + (b"\n" if parts[2] == b"F" else b"")
    return LogLine(parts[0].decode(errors="replace"), parts[1] == b"stderr", data)


def stamp_ns(stamp: str) -> int:
    """Nanoseconds since 1970 of a log time stamp; 0 when it cannot be read."""
    import calendar

    try:
        head, fraction = stamp[:19], stamp[20:29]
        date, _, clock = head.partition("T")
        year, month, day = (int(part) for part in date.split("-"))
        hour, minute, second = (int(part) for part in clock.split(":"))
        seconds = calendar.timegm((year, month, day, hour, minute, second))
        zone = stamp[29:]
        if zone and zone[0] in "+-":
            offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
            seconds += -offset if zone[0] == "+" else offset
        return seconds * 10**9 + int(fraction)
    except (ValueError, IndexError):
        return 0


def utc(stamp: str) -> str:
    """A log time stamp as RFC 3339 in UTC with nanoseconds; unchanged when unreadable."""
    import time

    at = stamp_ns(stamp)
    if not at:
        return stamp
    seconds, rest = divmod(at, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


def read_tail(path: str, tail: int) -> tuple[Iterator[LogLine], int]:
    """The last ``tail`` lines (-1: all) and the offset just behind them.

    A line counts with its parts: text split by P counts once.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return iter(()), 0
    with os.fdopen(fd, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        start = 0 if tail < 0 else _find_tail(file.fileno(), end, tail)
    return _lines(path, start, end), _whole(path, end)


def _find_tail(fd: int, end: int, tail: int) -> int:
    """Offset of the last ``tail`` lines, reading backwards in blocks."""
    if tail == 0:
        return end
    position, data, count = end, b"", 0
    while position > 0:
        size = min(_BLOCK, position)
        position -= size
        data = os.pread(fd, size, position) + data
        lines = data.split(b"\n")
        # the first piece may be cut; the last is empty behind the final newline
        count = sum(1 for line in lines[1:] if _is_full(line))
        if count > tail:
            break
    lines = data.split(b"\n")
    offset, wanted = end, tail
    for line in reversed(lines):
        if _is_full(line):
            if wanted == 0:
                return offset
            wanted -= 1
        offset -= len(line) + (1 if offset != end or line else 0)
        offset = max(offset, position)
    return position


def _is_full(line: bytes) -> bool:
    parts = line.split(b" ", 3)
    return len(parts) == 4 and parts[2] == b"F"


def _lines(path: str, start: int, end: int) -> Iterator[LogLine]:
    with open(path, "rb") as file:
        file.seek(start)
        while file.tell() < end:
            line = file.readline()
            if not line.endswith(b"\n"):
                return
            found = parse(line[:-1])
            if found is not None:
                yield found


def _whole(path: str, end: int) -> int:
    """``end`` moved back to the start of a line that is still being written."""
    with open(path, "rb") as file:
        start = max(0, end - _BLOCK)
        file.seek(start)
        data = file.read(end - start)
    return start + data.rfind(b"\n") + 1 if data else end


async def follow(
    path: str, offset: int, watcher: Watcher, ended: asyncio.Event
) -> AsyncIterator[LogLine]:
    """Lines behind ``offset`` as they are written, until ``ended`` is set and all is read.

    Survives rotation: when the file is replaced or shortened, reading goes on at its start.
    """
    changed = asyncio.Event()
    mask = syscalls.IN_MODIFY | syscalls.IN_CREATE | syscalls.IN_MOVED_TO
    watch = watcher.add(os.path.dirname(path), mask, lambda _name: changed.set())
    waiter = asyncio.create_task(_wake(ended, changed))
    try:
        inode = 0
        while True:
            done = ended.is_set()
            changed.clear()
            try:
                found = os.stat(path)
            except FileNotFoundError:
                found = None
            if found is not None:
                if (inode and found.st_ino != inode) or found.st_size < offset:
                    offset = 0
                inode = found.st_ino
                with open(path, "rb") as file:
                    file.seek(offset)
                    for line in file:
                        if not line.endswith(b"\n"):
                            break
                        offset += len(line)
                        parsed = parse(line[:-1])
                        if parsed is not None:
                            yield parsed
            if done:
                return
            await changed.wait()
    finally:
        waiter.cancel()
        watcher.remove(watch)


async def _wake(ended: asyncio.Event, changed: asyncio.Event) -> None:
    await ended.wait()
    changed.set()
