"""Overlay: the kernel merges layers and what a container writes (overlayfs, Linux 3.18).

:class:`Overlay` keeps every layer apart, for kernels that take several lower directories
(Linux 4.0).  :class:`OverlayOne` is for those that take one: its layers are whole trees
that share unchanged files by hard links, and only the topmost is mounted.  It needs none of
overlay's whiteouts, which vendor kernels before 3.18 (type ``overlayfs``) have in another
form.

Whatever a distribution has chosen, ``metacopy``, ``redirect_dir`` and ``index`` are off:
a writable layer that uses the first two is read wrongly by a kernel that does not know
them, which is what a device gets that goes back to its old firmware.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.snapshot.base import Rootfs, StorageOptions, Style, remove_tree, rw_dir
from isula_edge.snapshot.copy import link_tree
from isula_edge.snapshot.filesystem import backing_filesystem, tells_types
from isula_edge.snapshot.mapped import bind_mapped, let_in, mount_mapped, whole_image
from isula_edge.snapshot.overlay_mount import Mounter, Request
from isula_edge.snapshot.quota import ProjectQuota
from isula_edge.sys import atomic, syscalls
from isula_edge.sys.boot import boot_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.snapshot.base import Ids

__all__ = ["Overlay", "OverlayOne", "why_not"]

_log = logging.getLogger(__name__)
_PARAMETERS = "/sys/module/overlay/parameters"
_OFF = ("metacopy", "redirect_dir", "index")
_INCOMPATIBLE = "work/work/incompat"
"""Where the kernel notes why a layer must not be mounted: ``volatile`` (Linux 5.10)."""
_REMOUNT = syscalls.MS_BIND | syscalls.MS_REMOUNT


class Overlay:
    """The overlay driver; ``fstype`` is the kernel's name of the file system."""

    name = "overlay"
    style: Style = "overlay"

    def __init__(
        self, home: str, fstype: str = "overlay", options: StorageOptions | None = None
    ) -> None:
        self.home = home
        self.fstype = fstype
        self.quota = ProjectQuota(home)
        self._options = options or StorageOptions()
        self._mounter = Mounter(home, fstype)
        self._volatile = True
        self._types: bool | None = None
        if self._options.size:
            self.quota.require("storage-opts: overlay2.size")

    def begin(self, path: str, parent: str | None) -> None:
        """An empty directory: the layer does not see its parent."""
        del parent
        os.mkdir(path, 0o755)

    def create(self, container: str, lowers: Sequence[str], *, size: int = 0) -> Rootfs:
        """Makes upper, work and mount point directories, with a quota where one is wanted."""
        size = size or self._options.size
        if size:
            self.quota.require("--storage-opt size")
        base = rw_dir(self.home, container)
        os.makedirs(base, 0o700)
        if size:
            # first: what is made in it afterwards inherits the project
            self.quota.limit(base, size)
        os.mkdir(f"{base}/merged", 0o755)
        os.mkdir(f"{base}/work", 0o700)
        self._make_upper(base, lowers)
        return self.rootfs(container, lowers)

    def _make_upper(self, base: str, lowers: Sequence[str]) -> None:
        os.mkdir(f"{base}/diff", 0o755)
        if lowers:
            # the root directory itself comes from the upper layer: keep the image's mode
            found = os.stat(f"{self.home}/{lowers[0]}")
            os.chown(f"{base}/diff", found.st_uid, found.st_gid)
            os.chmod(f"{base}/diff", found.st_mode & 0o7777)

    def _seen(self, lowers: Sequence[str]) -> Sequence[str]:
        """The layers that are mounted."""
        return lowers

    def rootfs(self, container: str, lowers: Sequence[str]) -> Rootfs:
        """Paths for ``inspect``: LowerDir, UpperDir, WorkDir, MergedDir."""
        base = rw_dir(self.home, container)
        data = {
            "LowerDir": ":".join(f"{self.home}/{lower}" for lower in self._seen(lowers)),
            "MergedDir": f"{base}/merged",
            "UpperDir": f"{base}/diff",
            "WorkDir": f"{base}/work",
        }
        return Rootfs(f"{base}/merged", data)

    def mount(
        self,
        container: str,
        lowers: Sequence[str],
        *,
        read_only: bool = False,
        volatile: bool = False,
        ids: Ids | None = None,
    ) -> Rootfs:
        """Mounts lowers and upper at ``merged``.

        ``volatile`` spares the flash: nothing that the container writes is synced, neither
        when it asks for it nor when it ends (Linux 5.10; elsewhere nothing is spared).
        Raises FailedPrecondition when the container's quota would not be kept, Unimplemented
        for ``ids`` before Linux 5.19.
        """
        rootfs = self.rootfs(container, lowers)
        base = rw_dir(self.home, container)
        if os.path.ismount(rootfs.path):
            if read_only and ids is None and _shows_other_ids(base):
                self._look_on(container, lowers)
            return rootfs
        self._check_quota(container, base)
        self._settle(container, base, lowers)
        flags = self._options.mount_flags | (syscalls.MS_RDONLY if read_only else 0)
        if ids is not None:
            let_in(base, ids.gid)
        if not lowers:
            if ids is not None:
                bind_mapped(f"{base}/diff", rootfs.path, ids)
            else:
                _bind(f"{base}/diff", rootfs.path, flags)
            return rootfs
        seen = tuple(self._seen(lowers))
        request = Request(f"rw/{container}", seen, flags, self._mount_data())
        if ids is not None:
            mount_mapped(self.home, self.fstype, request, ids)
            return rootfs
        if volatile and self._mounted_volatile(request, base):
            return rootfs
        try:
            self.attempt(request)
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

    def image(self, place: str, lowers: Sequence[str], ids: Ids | None = None) -> str:
        """The only layer that is seen, or an overlay of all at ``place``, read-only."""
        seen = tuple(self._seen(lowers))
        if len(seen) < 2:
            return whole_image(self.home, place, seen, ids)
        request = Request("", seen, syscalls.MS_RDONLY, self._mount_data(), place=place)
        os.makedirs(place, 0o700, exist_ok=True)
        if ids is not None:
            mount_mapped(self.home, self.fstype, request, ids)
        else:
            self._mounter.mount(request)
        return place

    def _mount_data(self) -> tuple[str, ...]:
        return (*_off(self._options.mount_data), *self._options.mount_data)

    def _look_on(self, container: str, lowers: Sequence[str]) -> None:
        """Covers a mount that shows other ids by what is on the disk, unwritten to."""
        seen = (f"rw/{container}/diff", *self._seen(lowers))
        place = f"{rw_dir(self.home, container)}/merged"
        flags = syscalls.MS_RDONLY
        self._mounter.mount(Request("", seen, flags, self._mount_data(), place=place))

    def attempt(self, request: Request) -> None:
        """Mounts as the kernel's kind of overlay wants it; OSError as mount(2) gave it."""
        self._mounter.mount(request)

    def close(self) -> None:
        """Ends the thread that mounts; mounts stay."""
        self._mounter.close()

    def _mounted_volatile(self, request: Request, base: str) -> bool:
        """Whether the kernel has mounted it so; asked no more after the first refusal."""
        if not self._volatile:
            return False
        try:
            atomic.write(f"{base}/boot", boot_id().encode(), durable=False)
            options = (*request.options, "volatile")
            self._mounter.mount(Request(request.base, request.lowers, request.flags, options))
        except OSError as error:
            self._volatile = error.errno != errno.EINVAL
            return False
        except errors.NoSpace:
            return False
        return True

    def _settle(self, container: str, base: str, lowers: Sequence[str]) -> None:
        """Makes a layer mountable that was mounted volatile before.

        The kernel leaves a mark and refuses it.  In the same boot nothing is lost.  After a
        crash of the machine any file in it may be damaged: such a layer starts anew.
        """
        if not os.path.lexists(f"{base}/{_INCOMPATIBLE}/volatile"):
            return
        boot = ""
        with contextlib.suppress(OSError), open(f"{base}/boot", encoding="ascii") as file:
            boot = file.read()
        if boot != boot_id():
            _log.warning("what container %s wrote before a crash was not synced: gone", container)
            remove_tree(f"{base}/diff")
            self._make_upper(base, lowers)
        # last, so that a crash until here only repeats it
        remove_tree(f"{base}/{_INCOMPATIBLE}")

    def _check_quota(self, container: str, base: str) -> None:
        if self.quota.project(base) and (why := self.quota.why_not()):
            raise errors.FailedPrecondition(
                f"the size limit of container {container[:12]} cannot be kept: {why}",
                kind="container",
                ref=container,
                hint="mount the file system with prjquota, or create the container anew",
            )

    def unmount(self, container: str) -> None:
        """Lazily, so that a reader of a file in it never blocks a stop."""
        _unmount_all(f"{rw_dir(self.home, container)}/merged")

    def remove(self, container: str) -> None:
        """Unmounts and deletes; its quota goes last."""
        self.unmount(container)
        path = rw_dir(self.home, container)
        project = self.quota.project(path)
        project = project or self.quota.project(f"{self.home}/rw/dead-{container}")
        remove_tree(path)
        if project:
            try:
                self.quota.release(project)
            except OSError as error:
                _log.warning("project quota %d of %s stays: %s", project, container, error)

    def status(self) -> list[tuple[str, str]]:
        """Backing file system and what it can do, in Docker's words where it has some."""
        if self._types is None:
            self._types = tells_types(self.home)
        given = dict(word.partition("=")[::2] for word in self._options.mount_data)
        metacopy = given.get("metacopy") == "on"
        redirect = given.get("redirect_dir") == "on"
        why = self.quota.why_not()
        return [
            ("Backing Filesystem", backing_filesystem(self.home)),
            ("Supports d_type", _word(self._types)),
            ("Using metacopy", _word(metacopy)),
            ("Native Overlay Diff", _word(not metacopy and not redirect)),
            ("userxattr", _word("userxattr" in given)),
            ("Project Quota", f"false ({why})" if why else "true"),
            ("Filesystem Type", self.fstype),
        ]


class OverlayOne(Overlay):
    """Overlay with one lower directory: layers are whole trees that share files."""

    name = "overlay1"
    style: Style = "merge"

    def begin(self, path: str, parent: str | None) -> None:
        """The parent's files in directories of its own, or an empty directory."""
        if parent is None:
            os.mkdir(path, 0o755)
        else:
            link_tree(f"{self.home}/{parent}", path)

    def _seen(self, lowers: Sequence[str]) -> Sequence[str]:
        return lowers[:1]

    def attempt(self, request: Request) -> None:
        """Before Linux 3.18 there was no work directory."""
        try:
            super().attempt(request)
        except OSError as error:
            if error.errno != errno.EINVAL or self.fstype != "overlayfs":
                raise
            old = Request(request.base, request.lowers, request.flags, request.options, False)
            super().attempt(old)


def why_not(folder: str, fstype: str, *, several: bool = True) -> str:
    """Why ``fstype`` cannot be mounted with its upper layer in ``folder``; '' if it can.

    Tried, since the file system below decides: it must have extended attributes, must tell
    types of directory entries and must not be an overlay itself.  ``several`` lower
    directories are tried, or one.
    """
    if not tells_types(folder):
        return "its directories do not tell types of entries (xfs: mkfs -n ftype=1)"
    top = f"{folder}/try-{os.urandom(4).hex()}"
    lowers = ("a", "b") if several else ("a",)
    driver = (Overlay if several else OverlayOne)(top, fstype)
    try:
        for path in (top, f"{top}/rw", *(f"{top}/{lower}" for lower in lowers)):
            os.mkdir(path, 0o700)
        driver.create("try", ())
        try:
            driver.attempt(Request("rw/try", lowers))
        except OSError as error:
            return error.strerror or str(error)
        driver.unmount("try")
        return ""
    finally:
        driver.close()
        remove_tree(top)


def _bind(source: str, target: str, flags: int) -> None:
    """The upper layer alone, of an image without layers."""
    syscalls.mount(source, target, "none", syscalls.MS_BIND)
    if flags:
        syscalls.mount("none", target, "none", _REMOUNT | flags)


def _shows_other_ids(base: str) -> bool:
    return os.stat(f"{base}/merged").st_uid != os.stat(f"{base}/diff").st_uid


def _off(given: Sequence[str]) -> list[str]:
    """Options that undo what a distribution has built in, but not what was ``given``."""
    said = {word.partition("=")[0] for word in given}
    found = []
    for name in _OFF:
        with contextlib.suppress(OSError), open(f"{_PARAMETERS}/{name}", encoding="ascii") as file:
            if file.read(1) == "Y" and name not in said:
                found.append(f"{name}=off")
    return found


def _word(value: bool) -> str:
    return "true" if value else "false"


def _unmount_all(path: str) -> None:
    for _ in range(64):
        try:
            syscalls.umount(path, syscalls.MNT_DETACH)
        except OSError:
            return
