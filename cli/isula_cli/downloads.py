"""Archives that the daemon sends, in a file that is there as a whole or not at all.

The client writes it: the daemon, which is root, writes nothing where a user says.
"""

from __future__ import annotations

__all__ = ["download"]

import posix

from isula_cli.context import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

    Source = Callable[[Callable[[bytes], object]], object]
else:
    import _signal as signal

_DIRECTORY, _REGULAR, _FORMAT = 0o040000, 0o100000, 0o170000
_ENDINGS = (signal.SIGTERM, signal.SIGHUP)


def download(source: Source, path: str) -> None:
    """Let ``source(write)`` write the file ``path``, or standard output when that is empty.

    A new file is readable by its owner only and appears under its name once it is
    complete; a pipe or a device is written as it is.  Raises OSError with the path.
    """
    if not path:
        source(lambda data: write_all(1, data))
        return
    kind = _kind(path)
    if kind == _DIRECTORY:
        raise IsADirectoryError(21, "Is a directory", path)
    if kind not in (0, _REGULAR):
        _into(source, posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC))
        return
    path = _target(path)
    folder, slash, name = path.rpartition("/")
    temp = _temporary(folder + slash, name)
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
    for number in _ENDINGS:
        # nohup stays in force
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _ended)
    try:
        fd = posix.open(temp, flags, 0o600)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    try:
        _into(source, fd, sync=True)
        posix.rename(temp, path)
    except BaseException:
        _discard(temp)
        raise


def _discard(temp: bytes) -> None:
    """Deletes the file; a signal may have come right after it got its name."""
    try:
        posix.unlink(temp)
    except OSError:
        return


def _temporary(folder: str, name: str) -> bytes:
    """A new name beside ``name``, which may have as many bytes as a name can."""
    short = name.encode("utf-8", "surrogateescape")[:200]
    start = folder.encode("utf-8", "surrogateescape") + b"." + short
    return b"%b.%b.tmp" % (start, posix.urandom(6).hex().encode())


def _into(source: Source, fd: int, *, sync: bool = False) -> None:
    try:
        source(lambda data: write_all(fd, data))
        if sync:
            posix.fsync(fd)
    finally:
        posix.close(fd)


def _kind(path: str) -> int:
    """Type of what is at ``path``, 0 when there is nothing."""
    try:
        return posix.stat(path).st_mode & _FORMAT
    except FileNotFoundError:
        return 0


def _target(path: str) -> str:
    """Where a symbolic link leads: a link stays, and the file it names is replaced."""
    try:
        posix.readlink(path)
    except OSError:
        return path
    import os.path

    return os.path.realpath(path)


def _ended(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)
