"""What a storage driver does; one class per driver, one contract suite over all."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from isula_edge.sys import atomic

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Driver", "Ids", "Rootfs", "StorageOptions", "Style", "remove_tree", "rw_dir"]

Style = Literal["overlay", "merge"]
"""How a layer is unpacked: alone with overlay whiteouts, or merged into its parent's tree."""


@dataclass(frozen=True, slots=True)
class Rootfs:
    """A container's root file system.

    ``path`` is where it is seen once mounted; ``data`` what ``inspect`` shows as GraphDriver.Data.
    """

    path: str
    data: dict[str, str]


@dataclass(frozen=True, slots=True)
class Ids:
    """How a user namespace numbers users.

    ``userns`` is a descriptor of it, ``uid`` and ``gid`` are its root's on the host.
    """

    userns: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """What the administrator wants of a storage driver.

    ``size`` is the limit in bytes of a container's writable layer, 0 for none;
    ``mount_flags`` and ``mount_data`` are added to every mount of a root file system.
    """

    size: int = 0
    mount_flags: int = 0
    mount_data: tuple[str, ...] = ()


class Driver(Protocol):
    """A storage driver over ``<graph>/storage/<name>``.

    ``lowers`` are directories of committed layers, topmost first, relative to ``home``.
    """

    name: str
    style: Style
    home: str

    def begin(self, path: str, parent: str | None) -> None:
        """Fills ``path`` (absent) with what a layer is unpacked into."""

    def create(self, container: str, lowers: Sequence[str], *, size: int = 0) -> Rootfs:
        """Makes the writable layer of ``container``, of at most ``size`` bytes; not mounted.

        Raises Unimplemented where a size is wanted and cannot be kept.
        """

    def rootfs(self, container: str, lowers: Sequence[str]) -> Rootfs:
        """Where the root file system of ``container`` is."""

    def mount(
        self,
        container: str,
        lowers: Sequence[str],
        *,
        read_only: bool = False,
        volatile: bool = False,
        ids: Ids | None = None,
    ) -> Rootfs:
        """Makes it visible at ``Rootfs.path``; already there is fine.

        ``volatile``: what the container writes need not outlive a crash of the machine.
        With ``ids`` its files belong to users of that user namespace, while on the disk they
        keep the numbers that they have inside.  Raises Unimplemented where that cannot be.
        Without them, read-only, a process with a mount namespace of its own sees the latter.
        """

    def image(self, place: str, lowers: Sequence[str], ids: Ids | None = None) -> str:
        """The directory with the files of an image: ``place`` (empty) if it must be mounted."""

    def unmount(self, container: str) -> None:
        """Undoes :meth:`mount`; not mounted is fine."""

    def remove(self, container: str) -> None:
        """Deletes the writable layer; absent is fine."""

    def status(self) -> list[tuple[str, str]]:
        """Lines for ``isula info``."""


def rw_dir(home: str, container: str) -> str:
    """Directory of a container's writable layer."""
    return f"{home}/rw/{container}"


def remove_tree(path: str) -> None:
    """Deletes a tree whatever its depth; absent is fine; immutable flags are cleared.

    Renamed first, so that a crash in the middle leaves only something named ``dead-``.
    """
    dead = f"{os.path.dirname(path)}/dead-{os.path.basename(path)}"
    try:
        os.rename(path, dead)
    except FileNotFoundError:
        if not os.path.lexists(dead):
            return
    except OSError:
        dead = path
    _rmtree(dead)
    with contextlib.suppress(OSError):
        atomic.fsync_dir(os.path.dirname(path))


def _rmtree(path: str) -> None:
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
        return
    # it brings every kind of archive along, and most processes remove nothing
    import shutil

    failed: list[str] = []

    def clear(_function: object, name: str, info: tuple[object, BaseException, object]) -> None:
        if isinstance(info[1], OSError) and info[1].errno == errno.EMFILE:
            raise info[1]
        failed.append(name)

    for attempt in range(2):
        failed.clear()
        try:
            shutil.rmtree(path, onerror=clear)
        except (RecursionError, OSError) as error:
            if not isinstance(error, RecursionError) and error.errno != errno.EMFILE:
                raise
            failed.clear()
            _remove_deep(path)
        if not os.path.lexists(path):
            return
        if attempt == 0:
            for name in failed:
                _clear_flags(name)
                _clear_flags(os.path.dirname(name))
    raise OSError(f"cannot remove {path}: {failed[:1]}")


def _remove_deep(path: str) -> None:
    """Flattens a tree deeper than Python's stack: moves deep directories up, then removes."""
    count = 0
    pending = [path]
    while pending:
        here = pending.pop()
        with os.scandir(here) as entries:
            found = list(entries)
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                count += 1
                target = f"{path}.{count}"
                os.rename(entry.path, target)
                pending.append(target)
            else:
                os.unlink(entry.path)
        os.rmdir(here)


def _clear_flags(path: str) -> None:
    """Clears the immutable and append-only flags (FS_IOC_SETFLAGS) of ``path``."""
    import fcntl
    import struct

    get, set_, bad = 0x80086601, 0x40086602, 0x10 | 0x20
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        flags = struct.unpack("l", fcntl.ioctl(fd, get, struct.pack("l", 0)))[0]
        fcntl.ioctl(fd, set_, struct.pack("l", flags & ~bad))
    except OSError:
        return
    finally:
        os.close(fd)
