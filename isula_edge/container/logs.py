"""A container's log: conmon's k8s-file lines, which are the CRI's, from the end or as they come.

A line is ``2006-01-02T15:04:05.000000000+00:00 stdout F text``; P instead of F means that
the text goes on in the next line of the same stream.  A log at a path of somebody else's is
rotated by them: they rename it and have it opened again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.runtime import supervisor
from isula_edge.sys import syscalls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from isula_edge.runtime.base import Bundle
    from isula_edge.sys.inotify import Watcher

__all__ = [
    "LogLine",
    "check_log_path",
    "follow",
    "make",
    "parse",
    "read_tail",
    "reopen",
    "stamp_ns",
    "terminate",
    "utc",
]

_BLOCK = 1 << 16
_MODE = 0o640
_LAST = 1 << 20
"""How far from the end of a log the last line of a stream is looked for."""
_REOPEN_S = 10.0


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


# logs at a path of somebody else's


def check_log_path(path: str) -> None:
    """Raises InvalidArgument for what cannot be the path of a log (case A31d)."""

    def refuse(why: str) -> errors.InvalidArgument:
        return errors.InvalidArgument(f"log path {path!r:.200} {why}", kind="log", ref=path)

    # the supervisor's own syntax has the colon
    for bad, name in (("\0", "NUL"), ("\n", "a line break"), (":", "a colon")):
        if bad in path:
            raise refuse(f"has {name} in it")
    folder, _, name = path.rpartition("/")
    if not path.startswith("/") or name in ("", ".", ".."):
        raise refuse("is no absolute path of a file")
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        while folder and not os.path.lexists(folder):
            folder = os.path.dirname(folder)
        if folder and not os.path.isdir(folder):
            raise refuse(f"is below {folder}, which is no directory") from None
    except OSError as error:
        raise refuse(f"cannot be used: {error.strerror}") from error
    else:
        if not stat.S_ISREG(mode):
            raise refuse("is there already and no file")


def make(path: str) -> None:
    """An empty log where there is none, with the directories above it.

    Raises FailedPrecondition when it cannot be made, ResourceExhausted without space.
    """
    check_log_path(path)
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        os.close(_open(path, os.O_CREAT | os.O_APPEND))
    except OSError as error:
        raise errors.FailedPrecondition(
            f"log {path} cannot be made: {error.strerror}", kind="log", ref=path
        ) from error


def _open(path: str, flags: int) -> int:
    # O_NONBLOCK: who may write to the directory may put a FIFO there
    flags |= os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(path, flags, _MODE)


def terminate(path: str) -> None:
    """Ends the last line of each stream, which a program may have left open (case A31h).

    Nothing happens to a log that is gone.
    """
    with contextlib.suppress(FileNotFoundError), open(_open(path, os.O_APPEND), "ab") as writer:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - _LAST))
            data = file.read()
        last: dict[bytes, bytes] = {}
        for line in data.split(b"\n"):
            parts = line.split(b" ", 3)
            if len(parts) == 4 and parts[2] in (b"F", b"P"):
                last[parts[1]] = parts[2]
        if data and not data.endswith(b"\n"):
            writer.write(b"\n")
        for stream, tag in last.items():
            if tag == b"P":
                writer.write(b"%s %s F \n" % (_now(), stream))


def _now() -> bytes:
    import time

    seconds, rest = divmod(time.time_ns(), 10**9)
    date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{date}.{rest:09d}+00:00".encode()


async def reopen(bundle: Bundle, watcher: Watcher, ended: asyncio.Event) -> None:
    """Has the supervisor write to a new file at the log's path, which was renamed.

    There is one when this returns; with an error there is none.  Nothing happens while the
    log is where it was.  Raises FailedPrecondition when the container ends meanwhile.
    """
    path = bundle.log_path
    conmon = supervisor.identity(bundle)
    if conmon is not None and _writes(conmon.pid, path):
        return
    beside = f"{path}.tmp"
    changed = asyncio.Event()
    folder = os.path.dirname(path)
    try:
        # the supervisor ends when it cannot make this file, and with it the container
        fd = _open(beside, os.O_CREAT | os.O_TRUNC)
    except OSError as error:
        raise errors.FailedPrecondition(
            f"log {path} cannot be made: {error.strerror}", kind="log", ref=path
        ) from error
    inode = os.fstat(fd).st_ino
    os.close(fd)
    watch = watcher.add(folder, syscalls.IN_MOVED_TO, lambda _name: changed.set())
    waiter = asyncio.create_task(_wake(ended, changed))
    try:
        told = supervisor.reopen_log(bundle)
        async with asyncio.timeout(_REOPEN_S):
            while not _is(path, inode):
                if not told or ended.is_set():
                    raise errors.FailedPrecondition(
                        f"Container {bundle.name} is not running", kind="container", ref=bundle.id
                    )
                changed.clear()
                await changed.wait()
    except TimeoutError as error:
        raise errors.DeadlineExceeded(
            f"log {path} was not opened within {_REOPEN_S:g} s", kind="log", ref=path
        ) from error
    finally:
        waiter.cancel()
        watcher.remove(watch)
        with contextlib.suppress(OSError):
            os.unlink(beside)


def _is(path: str, inode: int) -> bool:
    try:
        return os.lstat(path).st_ino == inode
    except OSError:
        return False


def _writes(pid: int, path: str) -> bool:
    """Whether process ``pid`` has the file at ``path`` open."""
    with contextlib.suppress(OSError):
        wanted = os.lstat(path)
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{fd}"), wanted):
                    return True
    return False
