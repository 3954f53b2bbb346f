"""Directories below one root, reached without following any link.

Stricter than :mod:`isula_edge.image.tree`, which follows links inside the root: for trees
that are read, where a link on the way means that the tree was changed.
"""

from __future__ import annotations

import os

from isula_edge.image.tree import DIRECTORY_FLAGS, Directory, join

__all__ = ["Folders", "reading"]

_MAX_OPEN = 128


def reading() -> int:
    """Flags to open a file of such a tree with; the times of the last access stay.

    They are no reason to write to a flash, and only an owner or root can leave them out.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    return flags | os.O_NOATIME if os.geteuid() == 0 else flags


class Folders:
    """The directories below ``root``.  Raises OSError when that is none."""

    def __init__(self, root: str) -> None:
        self.root = Directory(os.open(root, DIRECTORY_FLAGS), b"")
        self._open: dict[bytes, Directory] = {}

    def at(self, path: bytes) -> Directory:
        """The directory at ``path``, which has no ``.`` or ``..`` in it.

        Raises OSError: ENOENT, or ENOTDIR or ELOOP for what is no directory.
        """
        found = self._open.get(path)
        if found is not None:
            return found
        names: list[bytes] = []
        while path and path not in self._open:
            path, _, name = path.rpartition(b"/")
            names.append(name)
        here = self._open[path] if path else self.root
        for name in reversed(names):
            fd = os.open(name, DIRECTORY_FLAGS, dir_fd=here.fd)
            here = Directory(fd, join(here.path, name))
            if len(self._open) >= _MAX_OPEN:
                del self._open[next(iter(self._open))]
            self._open[here.path] = here
        return here
