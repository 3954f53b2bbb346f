"""The copying driver: every layer and every container is a whole tree.

For kernels without overlay.  Layers share the files that did not change by hard links:
unpacking only ever replaces a file and never writes to one that is there, so the layer
below stays as it was.  A container gets files of its own, since it does write to them:
reflinked where the file system can (FICLONE, Linux 4.5: btrfs, xfs), else copied with
their holes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.snapshot.base import Rootfs, StorageOptions, Style, remove_tree, rw_dir
from isula_edge.snapshot.copy import copy_tree, link_tree
from isula_edge.snapshot.filesystem import backing_filesystem, tells_types
from isula_edge.snapshot.mapped import bind_mapped, let_in, whole_image
from isula_edge.sys import mounts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.snapshot.base import Ids

__all__ = ["Vfs"]


class Vfs:
    """The copying driver."""

    name = "vfs"
    style: Style = "merge"

    def __init__(self, home: str, fstype: str = "", options: StorageOptions | None = None) -> None:
        del fstype
        self.home = home
        self._types: bool | None = None
        if options is not None and options.size:
            _refuse_size("storage-opts: overlay2.size")

    def begin(self, path: str, parent: str | None) -> None:
        """The parent's files in directories of its own, or an empty directory."""
        if parent is None:
            os.mkdir(path, 0o755)
        else:
            link_tree(f"{self.home}/{parent}", path)

    def create(self, container: str, lowers: Sequence[str], *, size: int = 0) -> Rootfs:
        """Copies the topmost layer, which already holds all below it; no size is possible."""
        if size:
            _refuse_size("--storage-opt size")
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

    def mount(
        self,
        container: str,
        lowers: Sequence[str],
        *,
        read_only: bool = False,
        volatile: bool = False,
        ids: Ids | None = None,
    ) -> Rootfs:
        """Nothing to mount, but for ``ids`` a bind of the copy that shows them."""
        del read_only, volatile
        rootfs = self.rootfs(container, lowers)
        if ids is None:
            return rootfs
        base = rw_dir(self.home, container)
        place = f"{base}/merged"
        let_in(base, ids.gid)
        # a bind within one file system is nothing that os.path.ismount() sees
        if not mounts.below(base):
            bind_mapped(rootfs.path, place, ids)
        return Rootfs(place, {"MergedDir": place})

    def image(self, place: str, lowers: Sequence[str], ids: Ids | None = None) -> str:
        """The topmost layer, which holds all below it."""
        return whole_image(self.home, place, lowers, ids)

    def unmount(self, container: str) -> None:
        """Only a bind that shows other ids is there."""
        mounts.detach(f"{rw_dir(self.home, container)}/merged")

    def remove(self, container: str) -> None:
        """Deletes the copy."""
        self.unmount(container)
        remove_tree(rw_dir(self.home, container))

    def status(self) -> list[tuple[str, str]]:
        """Backing file system."""
        if self._types is None:
            self._types = tells_types(self.home)
        return [
            ("Backing Filesystem", backing_filesystem(self.home)),
            ("Supports d_type", str(self._types).lower()),
        ]


def _refuse_size(what: str) -> None:
    raise errors.Unimplemented(
        f"{what} is supported only for overlay over xfs or ext4 with 'pquota' mount option; "
        "the storage driver is vfs, whose containers are whole copies",
        kind="flag",
        ref="storage-opt",
        hint="leave the size out, or use storage driver overlay on a new graph directory",
    )
