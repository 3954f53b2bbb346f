"""Directories below one root, reached without ever following a link out of it.

Every component is opened from its parent's descriptor with O_NOFOLLOW; a symbolic link is
read and its target walked in the same way, where ``/`` and what is above it are the root.
Paths are bytes without leading slash.  A path that :class:`Directory` carries has no links
in it.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import stat

from isula_edge import errors
from isula_edge.image.tar_extensions import shown

__all__ = ["DIRECTORY_FLAGS", "MODE_OF_MISSING", "Directory", "Tree", "clean", "join"]

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_OPEN = 128
_MAX_LINKS = 40
_MAX_STEPS = 4096
_MAX_ABOVE = 64
_MAX_PATH = 4095
MODE_OF_MISSING = 0o755
"""Of directories that have no entry (case A18)."""


class Directory:
    """An open directory; closed when nobody holds it any more.

    ``inherits``: what is made in it takes its group.
    """

    __slots__ = ("fd", "inherits", "path")

    def __init__(self, fd: int, path: bytes) -> None:
        self.fd = fd
        self.path = path
        self.inherits = bool(os.fstat(fd).st_mode & stat.S_ISGID)

    def __del__(self) -> None:
        os.close(self.fd)


class Tree:
    """The tree below the directory that ``root_fd`` is open on; takes the descriptor over."""

    def __init__(self, root_fd: int) -> None:
        self.root = Directory(root_fd, b"")
        self._open: dict[bytes, Directory] = {}
        self._linked: dict[bytes, bytes] = {}

    def find(self, path: bytes) -> Directory | None:
        """The directory at ``path`` if it is there; nothing is made."""
        try:
            return self._walk(path, create=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def directory(self, path: bytes) -> Directory:
        """The directory at ``path``; missing ones are made with mode 0755.

        Raises InvalidArgument when a file or a broken link is in the way.
        """
        if not path:
            return self.root
        found = self._open.get(path)
        if found is not None:
            return found
        real = self._linked.get(path)
        if real is not None:
            return self.directory(real)
        found = self._walk(path, create=True)
        if found.path != path:
            if len(self._linked) >= _MAX_OPEN:
                self._linked.clear()
            self._linked[path] = found.path
        return found

    def passed(self, path: bytes) -> None:
        """Called with a directory when it is entered or made on the way to an entry."""

    def removing(self, dir_fd: int, name: bytes, path: bytes) -> None:
        """Called with what is about to be deleted, if it is there; of trees with every file."""

    def removed(self, path: bytes) -> None:
        """Called with every directory that was deleted."""

    def in_the_way(self, parent: Directory, name: bytes) -> bool:
        """Called with what is no directory but should be; True when it was made one."""
        del parent, name
        return False

    def forget(self) -> None:
        """A directory or a link went away: nothing that is known of paths holds any more."""
        self._open.clear()
        self._linked.clear()

    def remove(self, parent: Directory, name: bytes) -> None:
        """Deletes a file or a whole tree; absent is fine."""
        self.removing(parent.fd, name, join(parent.path, name))
        try:
            os.unlink(name, dir_fd=parent.fd)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            self._remove_tree(parent, name)
            self.forget()
        if self._linked:
            # it may have been a link that a path leads through
            self.forget()

    def _remove_tree(self, parent: Directory, name: bytes) -> None:
        pending, found = [name], []
        while pending:
            path = pending.pop()
            found.append(path)
            fd = os.open(path, DIRECTORY_FLAGS, dir_fd=parent.fd)
            try:
                with os.scandir(fd) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(path + b"/" + os.fsencode(entry.name))
                        else:
                            child = os.fsencode(entry.name)
                            self.removing(fd, child, join(parent.path, path + b"/" + child))
                            os.unlink(child, dir_fd=fd)
            finally:
                os.close(fd)
        for path in reversed(found):
            os.rmdir(path, dir_fd=parent.fd)
            self.removed(join(parent.path, path))

    def _walk(self, path: bytes, *, create: bool) -> Directory:
        here, todo = self._nearest(path)
        above: collections.deque[Directory] = collections.deque(maxlen=_MAX_ABOVE)
        links = steps = 0
        while todo:
            name = todo.pop()
            steps += 1
            if name == b"..":
                steps += 0 if above else self._ascend(here, above)
                here = above.pop()
            if steps > _MAX_STEPS:
                raise errors.InvalidArgument(
                    f"{shown(path)} leads through more than {_MAX_STEPS} directories",
                    kind="layer",
                )
            if name == b"..":
                continue
            step = self._step(here, name, create)
            if isinstance(step, Directory):
                above.append(here)
                here = step
                continue
            links += 1
            if links > _MAX_LINKS:
                raise errors.InvalidArgument(f"too many symbolic links in {shown(path)}")
            if step.startswith(b"/"):
                here = self.root
                above.clear()
            todo.extend(part for part in reversed(step.split(b"/")) if part not in (b"", b"."))
        return here

    def _ascend(self, directory: Directory, above: collections.deque[Directory]) -> int:
        """Puts what ``directory`` lies in on ``above``: how many steps it took to get there."""
        here, todo = self._nearest(directory.path.rpartition(b"/")[0])
        steps = len(todo)
        above.append(here)
        while todo:
            step = self._step(here, todo.pop(), create=False)
            if not isinstance(step, Directory):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            here = step
            above.append(here)
        return steps

    def _nearest(self, path: bytes) -> tuple[Directory, list[bytes]]:
        """The nearest open directory above ``path``, and what is left, last part first."""
        todo: list[bytes] = []
        while path:
            found = self._open.get(path)
            if found is not None:
                return found, todo
            path, _, name = path.rpartition(b"/")
            todo.append(name)
        return self.root, todo

    def _step(self, parent: Directory, name: bytes, create: bool) -> Directory | bytes:
        """The directory ``name`` in ``parent``, or where the link of this name leads."""
        path = join(parent.path, name)
        found = self._open.get(path)
        if found is not None:
            return found
        if len(path) > _MAX_PATH:
            raise errors.InvalidArgument(f"path too long: {shown(path)}", kind="layer")
        try:
            fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent.fd)
        except FileNotFoundError:
            if not create:
                raise
            fd = self._make(parent, name)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            with contextlib.suppress(OSError):
                return os.readlink(name, dir_fd=parent.fd)
            if not create:
                raise
            if not self.in_the_way(parent, name):
                raise errors.InvalidArgument(
                    f"{shown(path)} is no directory", kind="layer"
                ) from error
            fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent.fd)
        found = Directory(fd, path)
        if create:
            if len(self._open) >= _MAX_OPEN:
                del self._open[next(iter(self._open))]
            self._open[path] = found
            self.passed(path)
        return found

    def _make(self, parent: Directory, name: bytes) -> int:
        os.mkdir(name, MODE_OF_MISSING, dir_fd=parent.fd)
        fd = os.open(name, DIRECTORY_FLAGS, dir_fd=parent.fd)
        if parent.inherits:
            os.fchown(fd, os.geteuid(), os.getegid())
            os.fchmod(fd, MODE_OF_MISSING)
        return fd


def clean(name: bytes) -> bytes:
    """``name`` relative to the root, without ``.``, ``..`` and double slashes; '' is the root.

    Raises InvalidArgument when it leads out of the root or cannot be a file's name.
    """
    if b"\0" in name or len(name) > _MAX_PATH:
        raise errors.InvalidArgument("invalid name", kind="layer")
    name = name.removeprefix(b"./")
    if b"/." not in name and b"//" not in name and name[:1] != b".":
        return name.strip(b"/")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise errors.InvalidArgument("the name leads out of the layer", kind="layer")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def join(path: bytes, name: bytes) -> bytes:
    """``name`` below ``path``, which may be the root."""
    return path + b"/" + name if path else name
