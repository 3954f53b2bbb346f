"""The copying driver: every layer and every container is a whole tree.

For kernels without overlay.  Files are reflinked where the file system can (FICLONE,
Linux 4.5: btrfs, xfs), else copied with their holes; a layer's files are never hard-linked
into a container, since a write there would change the layer.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING

from isula_edge.snapshot.base import Rootfs, Style, remove_tree, rw_dir
from isula_edge.snapshot.overlay import backing_filesystem
from isula_edge.sys import atomic

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Vfs", "copy_tree"]

_FICLONE = 0x40049409
_CHUNK = 1 << 20


class Vfs:
    """The copying driver."""

    name = "vfs"
    style: Style = "merge"

    def __init__(self, home: str, fstype: str = "") -> None:
        del fstype
        self.home = home

    def begin(self, path: str, parent: str | None) -> None:
        """A copy of the parent's tree, or an empty directory."""
        if parent is None:
            os.mkdir(path, 0o755)
        else:
            copy_tree(f"{self.home}/{parent}", path)

    def create(self, container: str, lowers: Sequence[str]) -> Rootfs:
        """Copies the topmost layer, which already holds all below it."""
        base = rw_dir(self.home, container)
        os.makedirs(base, 0o700)
        if lowers:
            copy_tree(f"{self.home}/{lowers[0]}", f"{base}/diff")
        else:
            os.mkdir(f"{base}/diff", 0o755)
        return self.rootfs(container, lowers)

    def rootfs(self, container: str, lowers: Sequence[str]) -> Rootfs:
        """The copy itself."""
        del lowers
        path = f"{rw_dir(self.home, container)}/diff"
        return Rootfs(path, {"MergedDir": path})

    def mount(self, container: str, lowers: Sequence[str], *, read_only: bool = False) -> Rootfs:
        """Nothing to mount."""
        del read_only
        return self.rootfs(container, lowers)

    def unmount(self, container: str) -> None:
        """Nothing to unmount."""

    def remove(self, container: str) -> None:
        """Deletes the copy."""
        remove_tree(rw_dir(self.home, container))

    def status(self) -> list[tuple[str, str]]:
        """Backing file system."""
        return [
            ("Backing Filesystem", backing_filesystem(self.home)),
            ("Supports d_type", "true"),
        ]


def copy_tree(source: str, target: str) -> None:
    """Copies a tree with owners, modes, times, xattrs, links, devices and holes."""
    links: dict[tuple[int, int], str] = {}
    with atomic.space_errors(target):
        os.mkdir(target, 0o700)
        stack = [(source, target)]
        finish: list[tuple[str, str]] = []
        while stack:
            here, there = stack.pop()
            finish.append((here, there))
            with os.scandir(here) as entries:
                for entry in entries:
                    goal = f"{there}/{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        os.mkdir(goal, 0o700)
                        stack.append((entry.path, goal))
                    else:
                        _copy_entry(entry.path, goal, links)
        for here, there in reversed(finish):
            _copy_meta(here, there, os.lstat(here))


def _copy_entry(source: str, target: str, links: dict[tuple[int, int], str]) -> None:
    found = os.lstat(source)
    key = (found.st_dev, found.st_ino)
    if found.st_nlink > 1 and key in links:
        os.link(links[key], target, follow_symlinks=False)
        return
    if stat.S_ISREG(found.st_mode):
        _copy_file(source, target, found.st_size)
    elif stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISSOCK(found.st_mode):
        return
    else:
        os.mknod(target, found.st_mode, found.st_rdev)
    _copy_meta(source, target, found)
    if found.st_nlink > 1:
        links[key] = target


def _copy_file(source: str, target: str, size: int) -> None:
    src = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        dst = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.ioctl(dst, _FICLONE, src)
            except OSError:
                _copy_data(src, dst, size)
        finally:
            os.close(dst)
    finally:
        os.close(src)


def _copy_data(src: int, dst: int, size: int) -> None:
    offset = 0
    while offset < size:
        try:
            start = os.lseek(src, offset, os.SEEK_DATA)
            end = os.lseek(src, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            start, end = offset, size
        os.lseek(src, start, os.SEEK_SET)
        os.lseek(dst, start, os.SEEK_SET)
        while start < end:
            count = os.sendfile(dst, src, None, min(_CHUNK, end - start))
            if count == 0:
                break
            start += count
        offset = end
    os.ftruncate(dst, size)


def _copy_meta(source: str, target: str, found: os.stat_result) -> None:
    os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)
    link = stat.S_ISLNK(found.st_mode)
    if not link:
        os.chmod(target, stat.S_IMODE(found.st_mode))
    with contextlib.suppress(OSError):
        for name in os.listxattr(source, follow_symlinks=False):
            if not name.startswith("trusted.overlay."):
                value = os.getxattr(source, name, follow_symlinks=False)
                os.setxattr(target, name, value, follow_symlinks=False)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)
