"""Files that are either old or new after a power cut, never in between.

``write`` is the only way the engine persists anything: a temporary file in the same
directory, fsync of its data, rename over the target, fsync of the directory.  A crash
before the rename leaves the old file and a ``.tmp-`` file that :func:`sweep` removes.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class Spare(Protocol):
        """See :class:`isula_edge.sys.reserve.Reserve`."""

        def write(self, path: str, data: bytes, mode: int = 0o600) -> bool:
            """Whether ``path`` holds ``data`` now, without a new block or inode."""


__all__ = ["TEMP_PREFIX", "fsync_dir", "fsync_tree", "make_dir", "space_errors", "sweep", "write"]

TEMP_PREFIX = ".tmp-"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def space_errors(path: str) -> Iterator[None]:
    """Turns the kernel's "no space" into :class:`~isula_edge.errors.NoSpace` naming ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise errors.NoSpace(
                f"no space left on the file system of {path}",
                kind="file",
                ref=path,
                hint="free space with `isula rm` or `isula rmi`, then try again",
            ) from error
        raise


def fsync_dir(path: str) -> None:
    """Makes the names in directory ``path`` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_tree(path: str) -> None:
    """Makes all data below ``path`` durable with one syncfs(2) where libc has it, else sync(2)."""
    from isula_edge.sys import syscalls

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.syncfs(fd)
    finally:
        os.close(fd)


def make_dir(path: str, mode: int = 0o700) -> None:
    """Makes directory ``path`` and its missing parents, all durable; present is fine."""
    missing = []
    probe = path = os.path.abspath(path)
    while not os.path.isdir(probe):
        missing.append(probe)
        probe = os.path.dirname(probe)
    with space_errors(path):
        for item in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(item, mode)
            fsync_dir(os.path.dirname(item))


def write(
    path: str,
    data: bytes,
    mode: int = 0o600,
    *,
    durable: bool = True,
    spare: Spare | None = None,
) -> None:
    """Replaces the file ``path`` by ``data``.

    ``durable=False`` leaves out the fsyncs: for files on tmpfs, which a reboot ends anyway.
    ``spare`` is for what must be written on a full disk too.  Raises NoSpace, or OSError
    with the path.
    """
    try:
        _write(path, data, mode, durable=durable)
    except errors.NoSpace:
        if spare is None or not spare.write(path, data, mode):
            raise


def _write(path: str, data: bytes, mode: int, *, durable: bool) -> None:
    folder, name = os.path.split(path)
    temp = f"{folder}/{TEMP_PREFIX}{name}-{os.getpid():x}-{id(data):x}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with space_errors(path):
        fd = os.open(temp, flags, mode)
        try:
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                if durable:
                    os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temp, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temp)
            raise
        if durable:
            fsync_dir(folder)


def sweep(folder: str) -> int:
    """Removes the temporary files that a crash left in ``folder``; how many there were."""
    count = 0
    for name in os.listdir(folder):
        if name.startswith(TEMP_PREFIX):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))
                count += 1
    return count
