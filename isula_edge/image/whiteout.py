"""What a layer hides of those below it, whatever the order in its tar (case A15).

A whiteout (``.wh.name``) and an opaque directory (``.wh..wh..opq``) speak about lower
layers only, never about what the same layer brings:

- *overlay*: the layer lies alone.  A whiteout is a character device 0:0, an opaque
  directory carries ``trusted.overlay.opaque``; the kernel does the rest.
- *merge*: the layer is unpacked over a copy of its parent, and what is hidden is deleted.
  For this the paths that the layer has brought are remembered, one number each.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from isula_edge.image.tree import DIRECTORY_FLAGS, MODE_OF_MISSING, Directory, Tree, join

if TYPE_CHECKING:
    from isula_edge.image.recorder import Recorder
    from isula_edge.image.tar import Entry

__all__ = ["LayerTree", "MergeTree", "OverlayTree", "layer_tree"]

_OPAQUE = "trusted.overlay.opaque"


class LayerTree(Tree):
    """The tree of a layer while it is unpacked.

    ``directories`` has the entries of its directories: they get owner, mode and time at the
    end, when nothing is made in them any more.  None stands for a directory that no entry
    describes and that must not keep what a lower layer said.  ``recorder`` is told of the
    layer's own files before they are deleted.
    """

    recorder: Recorder | None = None

    def __init__(self, root_fd: int) -> None:
        super().__init__(root_fd)
        self.directories: dict[bytes, Entry | None] = {}

    def removing(self, dir_fd: int, name: bytes, path: bytes) -> None:
        """Lets the recorder have what is lost."""
        if self.recorder is not None and self.owns(path):
            self.recorder.removing(dir_fd, name, path)

    def owns(self, path: bytes) -> bool:
        """Whether what is at ``path`` came with this layer."""
        del path
        return True

    def removed(self, path: bytes) -> None:
        """Forgets what a deleted directory was to get."""
        self.directories.pop(path, None)

    def brought(self, path: bytes) -> None:
        """The layer has this file or directory."""

    def make_directory(self, parent: Directory, name: bytes) -> None:
        """Makes a directory of what may be there; an existing one keeps its content."""
        try:
            os.mkdir(name, MODE_OF_MISSING, dir_fd=parent.fd)
        except FileExistsError:
            if _is_directory(parent, name):
                self.kept(parent, name)
            else:
                self.remove(parent, name)
                os.mkdir(name, MODE_OF_MISSING, dir_fd=parent.fd)
                self.replaced(parent, name)

    def kept(self, parent: Directory, name: bytes) -> None:
        """Called when an entry describes a directory that is there already."""

    def replaced(self, parent: Directory, name: bytes) -> None:
        """Called when a directory took the place of something else."""

    def hide(self, parent: Directory, name: bytes) -> None:
        """Lower layers have no ``name`` in ``parent`` any more."""
        raise NotImplementedError

    def make_opaque(self, directory: Directory) -> None:
        """Lower layers have nothing in ``directory`` any more."""
        raise NotImplementedError

    def finish(self) -> None:
        """All entries are there."""


class OverlayTree(LayerTree):
    """A layer that lies alone, for overlayfs."""

    def __init__(self, root_fd: int) -> None:
        super().__init__(root_fd)
        self._opaque: set[bytes] = set()

    def in_the_way(self, parent: Directory, name: bytes) -> bool:
        """A whiteout that came before what the layer has in its place."""
        if not _is_whiteout(os.stat(name, dir_fd=parent.fd, follow_symlinks=False)):
            return False
        self.make_directory(parent, name)
        return True

    def replaced(self, parent: Directory, name: bytes) -> None:
        """What was there hid a lower directory: so must the new one."""
        fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent.fd)
        self.make_opaque(Directory(fd, join(parent.path, name)))

    def hide(self, parent: Directory, name: bytes) -> None:
        """A device 0:0; where the layer has a directory, that becomes opaque."""
        try:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent.fd)
        except FileExistsError:
            if _is_directory(parent, name):
                self.replaced(parent, name)

    def make_opaque(self, directory: Directory) -> None:
        """Sets overlayfs's attribute."""
        os.setxattr(directory.fd, _OPAQUE, b"y")
        self._opaque.add(directory.path)

    def removed(self, path: bytes) -> None:
        """Forgets a deleted directory."""
        super().removed(path)
        self._opaque.discard(path)

    def finish(self) -> None:
        """Deletes whiteouts in opaque directories.

        There is nothing for them to hide, and where overlayfs need not merge a directory
        it lists them.
        """
        for path in self._opaque:
            pending = [path]
            while pending:
                here = pending.pop()
                if path != here and here in self._opaque:
                    continue
                directory = self.find(here)
                if directory is not None:
                    pending += _drop_whiteouts(directory)


def _drop_whiteouts(directory: Directory) -> list[bytes]:
    """Deletes the whiteouts in ``directory``; the directories in it."""
    inner = []
    with os.scandir(directory.fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                inner.append(join(directory.path, os.fsencode(entry.name)))
            elif not entry.is_file(follow_symlinks=False) and _is_whiteout(
                entry.stat(follow_symlinks=False)
            ):
                os.unlink(entry.name, dir_fd=directory.fd)
    return inner


class MergeTree(LayerTree):
    """A layer over a copy of what is below it, or over nothing."""

    def __init__(self, root_fd: int) -> None:
        super().__init__(root_fd)
        with os.scandir(root_fd) as entries:
            self._lower = next(entries, None) is not None
        self._brought: set[int] = set()

    def brought(self, path: bytes) -> None:
        """Remembers that ``path`` is the layer's own."""
        if self._lower:
            self._brought.add(hash(path))

    passed = brought

    def owns(self, path: bytes) -> bool:
        """Whether the layer has brought ``path``; without a lower layer it has all."""
        return not self._lower or hash(path) in self._brought

    def in_the_way(self, parent: Directory, name: bytes) -> bool:
        """A lower layer's file gives way to a directory."""
        if hash(join(parent.path, name)) in self._brought:
            return False
        self.make_directory(parent, name)
        return True

    def kept(self, parent: Directory, name: bytes) -> None:
        """Attributes of a lower layer's directory do not show through the layer's own."""
        if self._lower and hash(join(parent.path, name)) not in self._brought:
            fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent.fd)
            _clear_xattrs(Directory(fd, b""))

    def hide(self, parent: Directory, name: bytes) -> None:
        """Deletes what came from below."""
        path = join(parent.path, name)
        if not self._lower:
            return
        if hash(path) not in self._brought:
            self.remove(parent, name)
        elif _is_directory(parent, name):
            fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent.fd)
            directory = Directory(fd, path)
            self._reset(directory)
            self.make_opaque(directory)

    def make_opaque(self, directory: Directory) -> None:
        """Deletes what came from below in ``directory``."""
        if not self._lower:
            return
        pending = [directory.path]
        while pending:
            here = self.find(pending.pop())
            if here is None:
                continue
            with os.scandir(here.fd) as entries:
                found = [
                    (os.fsencode(entry.name), entry.is_dir(follow_symlinks=False))
                    for entry in entries
                ]
            for name, is_directory in found:
                path = join(here.path, name)
                if hash(path) not in self._brought:
                    self.remove(here, name)
                elif is_directory:
                    pending.append(path)
                    inner = self.find(path)
                    if inner is not None:
                        self._reset(inner)

    def _reset(self, directory: Directory) -> None:
        """A directory that no entry of the layer describes is as if the layer had made it."""
        if directory.path not in self.directories:
            _clear_xattrs(directory)
            self.directories[directory.path] = None


def _clear_xattrs(directory: Directory) -> None:
    for name in os.listxattr(directory.fd):
        if not name.startswith("system."):
            os.removexattr(directory.fd, name)


def _is_directory(parent: Directory, name: bytes) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent.fd, follow_symlinks=False).st_mode)


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def layer_tree(root_fd: int, style: str) -> LayerTree:
    """The tree for a layer that is unpacked in ``style``."""
    return OverlayTree(root_fd) if style == "overlay" else MergeTree(root_fd)
