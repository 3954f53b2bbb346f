"""Overlay: layers stay apart and the kernel merges them (overlayfs, Linux 3.18).

Vendor kernels before 3.18 call the type ``overlayfs`` and take one lower directory; the
driver is then given ``fstype="overlayfs"``.  Mount options must fit one page, so lower
directories are given relative to the driver's home, from a thread whose working directory
is its own (unshare(CLONE_FS)).
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import os
import secrets
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.snapshot.base import Rootfs, Style, remove_tree, rw_dir
from isula_edge.sys import syscalls

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Overlay", "why_not"]


class Overlay:
    """The overlay driver; ``fstype`` is the kernel's name of the file system."""

    name = "overlay"
    style: Style = "overlay"

    def __init__(self, home: str, fstype: str = "overlay") -> None:
        self.home = home
        self.fstype = fstype
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    def begin(self, path: str, parent: str | None) -> None:
        """An empty directory: the layer does not see its parent."""
        del parent
        os.mkdir(path, 0o755)

    def create(self, container: str, lowers: Sequence[str]) -> Rootfs:
        """Makes upper, work and mount point directories."""
        base = rw_dir(self.home, container)
        os.makedirs(base, 0o700)
        os.mkdir(f"{base}/diff", 0o755)
        os.mkdir(f"{base}/work", 0o700)
        os.mkdir(f"{base}/merged", 0o755)
        if lowers:
            # the root directory itself comes from the upper layer: keep the image's mode
            found = os.stat(f"{self.home}/{lowers[0]}")
            os.chown(f"{base}/diff", found.st_uid, found.st_gid)
            os.chmod(f"{base}/diff", found.st_mode & 0o7777)
        return self.rootfs(container, lowers)

    def rootfs(self, container: str, lowers: Sequence[str]) -> Rootfs:
        """Paths for ``inspect``: LowerDir, UpperDir, WorkDir, MergedDir."""
        base = rw_dir(self.home, container)
        data = {
            "LowerDir": ":".join(f"{self.home}/{lower}" for lower in lowers),
            "MergedDir": f"{base}/merged",
            "UpperDir": f"{base}/diff",
            "WorkDir": f"{base}/work",
        }
        return Rootfs(f"{base}/merged", data)

    def mount(self, container: str, lowers: Sequence[str], *, read_only: bool = False) -> Rootfs:
        """Mounts lowers and upper at ``merged``."""
        rootfs = self.rootfs(container, lowers)
        if os.path.ismount(rootfs.path):
            return rootfs
        base = f"rw/{container}"
        if not lowers:
            syscalls.mount(f"{self.home}/{base}/diff", rootfs.path, "none", syscalls.MS_BIND)
            return rootfs
        options = f"lowerdir={':'.join(lowers)},upperdir={base}/diff,workdir={base}/work"
        flags = syscalls.MS_RDONLY if read_only else 0
        try:
            self._in_home(f"{base}/merged", flags, options)
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.EPERM):
                raise errors.Unimplemented(
                    f"the kernel does not mount {self.fstype}: {error.strerror}",
                    kind="driver",
                    ref=self.name,
                    hint="use the copying driver: isulad --storage-driver vfs on a new --graph",
                ) from error
            raise
        return rootfs

    def unmount(self, container: str) -> None:
        """Lazily, so that a reader of a file in it never blocks a stop."""
        _unmount_all(f"{rw_dir(self.home, container)}/merged")

    def remove(self, container: str) -> None:
        """Unmounts and deletes."""
        self.unmount(container)
        remove_tree(rw_dir(self.home, container))

    def status(self) -> list[tuple[str, str]]:
        """Backing file system and what it can do."""
        return [
            ("Backing Filesystem", backing_filesystem(self.home)),
            ("Supports d_type", "true"),
            ("Filesystem Type", self.fstype),
        ]

    def _in_home(self, target: str, flags: int, options: str) -> None:
        if self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(
                1, "mount", initializer=syscalls.unshare, initargs=(syscalls.CLONE_FS,)
            )

        def work() -> None:
            os.chdir(self.home)
            syscalls.mount(self.fstype, target, self.fstype, flags, options)

        self._pool.submit(work).result()


def why_not(folder: str, fstype: str) -> str:
    """Why ``fstype`` cannot be mounted with its upper layer in ``folder``; '' if it can.

    Tried, since the file system below decides: it must have extended attributes, must tell
    types of directory entries and must not be an overlay itself.
    """
    top = f"{folder}/try-{secrets.token_hex(4)}"
    lowers = [f"{top}/{name}" for name in ("a", "b")]
    try:
        for path in (top, *lowers, f"{top}/up", f"{top}/work", f"{top}/merged"):
            os.mkdir(path, 0o700)
        options = f"lowerdir={':'.join(lowers)},upperdir={top}/up,workdir={top}/work"
        try:
            syscalls.mount(fstype, f"{top}/merged", fstype, 0, options)
        except OSError as error:
            return error.strerror or str(error)
        syscalls.umount(f"{top}/merged", syscalls.MNT_DETACH)
        return ""
    finally:
        remove_tree(top)


def _unmount_all(path: str) -> None:
    for _ in range(64):
        try:
            syscalls.umount(path, syscalls.MNT_DETACH)
        except OSError:
            return


def backing_filesystem(path: str) -> str:
    """Type of the file system that holds ``path``, from mountinfo."""
    best, kind = "", "unknown"
    real = os.path.realpath(path)
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            point = left.split()[4]
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, right.split()[0]
    return kind
