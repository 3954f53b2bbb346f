"""Binds that are changed before anybody sees them, and their removal.

A copy of a mount is made aside (open_tree(2), Linux 5.2), gets its attributes or id maps
(mount_setattr(2), Linux 5.12) and is attached complete.  What needs no id maps can be done
by mount(2) too, in several steps, at a place that nobody looks at yet (:func:`bind_in_steps`).
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

from isula_edge.sys import syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["attach", "below", "bind", "bind_in_steps", "copied", "detach", "map_ids"]

_KEPT = (
    (os.ST_RDONLY, syscalls.MS_RDONLY),
    (os.ST_NOSUID, syscalls.MS_NOSUID),
    (os.ST_NODEV, syscalls.MS_NODEV),
    (os.ST_NOEXEC, syscalls.MS_NOEXEC),
    (os.ST_NOATIME, 1 << 10),
    (os.ST_NODIRATIME, 1 << 11),
    (os.ST_RELATIME, 1 << 21),
)
"""Flags of statvfs(3) that a remount has to name, and mount(2)'s."""
_OCTAL = re.compile(rb"\\([0-7]{3})")


@contextlib.contextmanager
def copied(source: str, *, recursive: bool = True) -> Iterator[int]:
    """A descriptor of a detached copy of the mount at ``source``, gone at the end.

    A link is followed; ``recursive`` takes what is mounted below along.
    """
    fd = syscalls.open_tree(source, recursive=recursive)
    try:
        yield fd
    finally:
        os.close(fd)


def map_ids(fd: int, userns: int, *, recursive: bool = True) -> None:
    """The copy shows ids as those of user namespace ``userns``; OSError where it cannot."""
    syscalls.mount_setattr(fd, syscalls.MOUNT_ATTR_IDMAP, userns=userns, recursive=recursive)


def attach(fd: int, place: str) -> None:
    """Attaches the copy; ``place`` is made when it is missing, as a file or a directory."""
    _make_place(place, f"/proc/self/fd/{fd}")
    syscalls.move_mount(fd, place)


def _make_place(place: str, source: str) -> None:
    if os.path.lexists(place):
        return
    if os.path.isdir(source):
        os.makedirs(place, 0o711)
    else:
        os.makedirs(os.path.dirname(place), 0o711, exist_ok=True)
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def bind_in_steps(
    source: str, place: str, flags: int = 0, *, private: bool = False, read_only: bool = False
) -> None:
    """The mount at ``source`` and what is below it at ``place``, by mount(2) alone.

    ``flags`` (MS_NOEXEC and the like) are of the mount itself; ``private`` and ``read_only``
    of all that is below too.  ``place`` is made when it is missing.
    """
    _make_place(place, source)
    syscalls.mount(source, place, "none", syscalls.MS_BIND | syscalls.MS_REC)
    try:
        if private:
            syscalls.mount("", place, "", syscalls.MS_PRIVATE | syscalls.MS_REC)
        _add_flags(place, flags | (syscalls.MS_RDONLY if read_only else 0))
        for point in below(place) if read_only else ():
            _add_flags(point, syscalls.MS_RDONLY)
    except OSError:
        detach(place)
        raise


def _add_flags(place: str, flags: int) -> None:
    before = os.statvfs(place).f_flag
    flags |= sum(flag for shown, flag in _KEPT if before & shown)
    syscalls.mount("", place, "", syscalls.MS_BIND | syscalls.MS_REMOUNT | flags)


def bind(source: str, place: str, userns: int = -1) -> None:
    """The mount at ``source`` alone, nothing below it, at ``place``, its ids mapped."""
    with copied(source, recursive=False) as fd:
        syscalls.mount_setattr(fd, 0, propagation=syscalls.MS_PRIVATE, recursive=False)
        if userns >= 0:
            map_ids(fd, userns, recursive=False)
        attach(fd, place)


def detach(place: str) -> None:
    """Unmounts everything at ``place`` and below, lazily; nothing mounted is fine.

    First nobody's peer any more: else what is mounted below goes on the other side too.
    """
    for _ in range(64):
        try:
            syscalls.mount("", place, "", syscalls.MS_PRIVATE | syscalls.MS_REC)
            syscalls.umount(place, syscalls.MNT_DETACH)
        except OSError:
            return


def below(folder: str) -> list[str]:
    """Mount points below ``folder``, the latest first."""
    prefix = os.fsencode(os.path.realpath(folder)) + b"/"
    found = []
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            point = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), line.split()[4])
            if point.startswith(prefix):
                found.append(os.fsdecode(point))
    return found[::-1]
