"""Makes files, links, devices and directories of the entries of a layer.

Owner before mode and mode before extended attributes, since each step can undo the one
before it: a change of owner clears setuid bits and file capabilities (case A16).
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.image import tar
from isula_edge.image.tree import MODE_OF_MISSING, Directory, clean, join

if TYPE_CHECKING:
    from collections.abc import Callable

    from isula_edge.image.recorder import Recorder
    from isula_edge.image.tar import Entry, TarReader
    from isula_edge.image.whiteout import LayerTree

__all__ = ["Files"]

_WHITEOUT = b".wh."
_AUFS = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_AUFS_LINKS = b".wh..wh.plnk"
"""Where layers made on aufs (before 2016) keep files with several names."""

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL = 0o7000
_LATEST_NS = (1 << 33 if sys.maxsize > 1 << 32 else (1 << 31) - 1) * 1_000_000_000
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DEVICES = {
    tar.CHARACTER_DEVICE: stat.S_IFCHR,
    tar.BLOCK_DEVICE: stat.S_IFBLK,
    tar.FIFO: stat.S_IFIFO,
}
# set by the engine, never by an image: they redirect overlayfs
_ENGINE_XATTR = b"trusted.overlay."
_MAX_LOST = 16
# attributes of directories are kept until the end
_MAX_DIRECTORY_XATTRS = 16 << 20
_MAX_SIZE = 1 << 62


class Files:
    """Puts the entries of ``reader`` below ``tree``.

    ``recorder`` is told what of the tar is found in the tree afterwards; ``check`` is called
    for every entry, and what it raises ends the work.  ``size_bytes`` sums up the files'
    sizes; ``lost`` counts attributes that the file system does not take, ``lost_xattrs`` are
    some of their names.
    """

    def __init__(
        self,
        reader: TarReader,
        tree: LayerTree,
        recorder: Recorder | None = None,
        check: Callable[[], object] | None = None,
    ) -> None:
        self._reader = reader
        self._check = check
        self._tree = tree
        self._recorder = recorder
        tree.recorder = recorder
        # only root can give files away; others unpack for themselves
        self._owners = os.geteuid() == 0
        self._ids = (os.geteuid(), os.getegid())
        self.size_bytes = 0
        self.entries = 0
        self.lost = 0
        self.lost_xattrs: set[str] = set()
        self._kept_bytes = 0
        self._makers: dict[bytes, Callable[[Entry, Directory, bytes], None]] = {
            tar.REGULAR: self._regular,
            tar.DIRECTORY: self._directory,
            tar.SYMLINK: self._symlink,
            tar.HARD_LINK: self._hard_link,
            tar.CHARACTER_DEVICE: self._device,
            tar.BLOCK_DEVICE: self._device,
            tar.FIFO: self._device,
        }

    def unpack(self) -> None:
        """All entries to the end; raises EngineError that names the entry, or "no space"."""
        while (entry := self._reader.next()) is not None:
            self.entries += 1
            if self._check is not None:
                self._check()
            try:
                self._entry(entry)
            except (errors.EngineError, OSError, ValueError, OverflowError) as error:
                raise _named(entry, error) from error
        self._finish()
        if self._recorder is not None:
            self._reader.rest()
            self._recorder.finish()

    def _entry(self, entry: Entry) -> None:
        path = clean(entry.name)
        if not path:
            if entry.kind != tar.DIRECTORY:
                raise errors.InvalidArgument("it has no name")
            self._until_the_end(b"", entry)
            return
        above, _, name = path.rpartition(b"/")
        parent = self._tree.directory(above)
        if name.startswith(_WHITEOUT):
            self._whiteout(parent, name)
            return
        maker = self._makers.get(entry.kind)
        if maker is None:
            raise errors.InvalidArgument(f"type {entry.kind!r} is unknown")
        maker(entry, parent, name)
        self._tree.brought(join(parent.path, name))

    def _whiteout(self, parent: Directory, name: bytes) -> None:
        if name == _OPAQUE:
            self._tree.make_opaque(parent)
        elif not name.startswith(_AUFS):
            hidden = name[len(_WHITEOUT) :]
            if hidden in (b"", b".", b".."):
                raise errors.InvalidArgument("the whiteout names no file")
            self._tree.hide(parent, hidden)

    def _regular(self, entry: Entry, parent: Directory, name: bytes) -> None:
        mode = entry.mode & 0o777
        if self.size_bytes + entry.size > _MAX_SIZE:
            raise errors.InvalidArgument(f"the layer's files have more than {_MAX_SIZE} bytes")
        try:
            fd = os.open(name, _CREATE, mode, dir_fd=parent.fd)
        except FileExistsError:
            self._tree.remove(parent, name)
            fd = os.open(name, _CREATE, mode, dir_fd=parent.fd)
        try:
            self._reader.keep()
            if entry.sparse is None:
                while part := self._reader.part():
                    _write(fd, part)
            else:
                self._sparse(fd, entry.sparse, entry.size)
            self._reader.kept()
            if self._recorder is not None and entry.size:
                self._recorder.file(join(parent.path, name), entry.size, entry.sparse)
            if self._gives_away(entry, parent):
                os.chown(fd, entry.uid, entry.gid)
            if entry.mode & _SPECIAL:
                os.chmod(fd, entry.mode & 0o7777)
            if entry.xattrs:
                self._xattrs(fd, entry.xattrs)
            time = min(entry.mtime_ns, _LATEST_NS)
            os.utime(fd, ns=(time, time))
        finally:
            os.close(fd)
        self.size_bytes += entry.size

    def _sparse(self, fd: int, pieces: list[tuple[int, int]], size: int) -> None:
        for offset, length in pieces:
            os.lseek(fd, offset, os.SEEK_SET)
            left = length
            while left > 0:
                part = self._reader.part(left)
                left -= len(part)
                _write(fd, part)
        os.ftruncate(fd, size)

    def _gives_away(self, entry: Entry, parent: Directory) -> bool:
        """Whether the new file does not have its owner yet."""
        return self._owners and (parent.inherits or (entry.uid, entry.gid) != self._ids)

    def _directory(self, entry: Entry, parent: Directory, name: bytes) -> None:
        self._tree.make_directory(parent, name)
        self._until_the_end(join(parent.path, name), entry)

    def _until_the_end(self, path: bytes, entry: Entry) -> None:
        """Keeps what the directory gets when nothing is made in it any more."""
        if entry.xattrs:
            self._kept_bytes += sum(map(len, entry.xattrs)) + sum(map(len, entry.xattrs.values()))
            if self._kept_bytes > _MAX_DIRECTORY_XATTRS:
                raise errors.ResourceExhausted(
                    "extended attributes of the layer's directories have more than "
                    f"{_MAX_DIRECTORY_XATTRS >> 20} MiB"
                )
        self._tree.directories[path] = entry

    def _symlink(self, entry: Entry, parent: Directory, name: bytes) -> None:
        try:
            os.symlink(entry.link, name, dir_fd=parent.fd)
        except FileExistsError:
            self._tree.remove(parent, name)
            os.symlink(entry.link, name, dir_fd=parent.fd)
        self._node(entry, parent, name)

    def _device(self, entry: Entry, parent: Directory, name: bytes) -> None:
        mode = _DEVICES[entry.kind] | entry.mode & 0o777
        device = os.makedev(*entry.device)
        try:
            os.mknod(name, mode, device, dir_fd=parent.fd)
        except FileExistsError:
            self._tree.remove(parent, name)
            os.mknod(name, mode, device, dir_fd=parent.fd)
        self._node(entry, parent, name)

    def _node(self, entry: Entry, parent: Directory, name: bytes) -> None:
        """Attributes of what cannot be opened: it was just made, nobody else touches it."""
        if self._gives_away(entry, parent):
            os.chown(name, entry.uid, entry.gid, dir_fd=parent.fd, follow_symlinks=False)
        if entry.mode & _SPECIAL and entry.kind != tar.SYMLINK:
            os.chmod(name, entry.mode & 0o7777, dir_fd=parent.fd)
        if entry.xattrs:
            # the working directory is this thread's own
            os.fchdir(parent.fd)
            self._xattrs(name, entry.xattrs)
        time = min(entry.mtime_ns, _LATEST_NS)
        os.utime(name, ns=(time, time), dir_fd=parent.fd, follow_symlinks=False)

    def _hard_link(self, entry: Entry, parent: Directory, name: bytes) -> None:
        above, _, source = clean(entry.link).rpartition(b"/")
        where = self._tree.find(above)
        try:
            if where is None or not source:
                raise FileNotFoundError
            found = os.stat(source, dir_fd=where.fd, follow_symlinks=False)
        except FileNotFoundError:
            target = tar.shown(entry.link)
            raise errors.InvalidArgument(
                f"it is a hard link to {target}, which the layer does not have"
            ) from None
        try:
            _link(source, where, name, parent)
        except FileExistsError:
            there = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
            if not os.path.samestat(found, there):
                self._tree.remove(parent, name)
                _link(source, where, name, parent)
            else:
                return
        if self._recorder is not None:
            self._recorder.linked(join(parent.path, name))

    def _xattrs(self, target: int | bytes, xattrs: dict[bytes, bytes]) -> None:
        for name, value in xattrs.items():
            if name.startswith(_ENGINE_XATTR):
                continue
            try:
                if isinstance(target, int):
                    os.setxattr(target, name, value)
                else:
                    os.setxattr(target, name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM):
                    raise
                self.lost += 1
                if len(self.lost_xattrs) < _MAX_LOST:
                    self.lost_xattrs.add(tar.shown(name))

    def _finish(self) -> None:
        tree = self._tree
        tree.remove(tree.root, _AUFS_LINKS)
        tree.finish()
        # deepest first: who is not root may not pass a directory that has its mode
        for path in sorted(tree.directories, reverse=True):
            if self._check is not None:
                self._check()
            directory = tree.find(path)
            if directory is None or directory.path != path:
                continue
            entry = tree.directories[path]
            try:
                self._finish_directory(directory, entry)
            except (OSError, OverflowError) as error:
                raise _named(entry or tar.Entry(path, tar.DIRECTORY), error) from error

    def _finish_directory(self, directory: Directory, entry: Entry | None) -> None:
        fd = directory.fd
        if entry is None:
            if self._owners:
                os.chown(fd, *self._ids)
            os.chmod(fd, MODE_OF_MISSING)
            return
        if self._owners:
            os.chown(fd, entry.uid, entry.gid)
        os.chmod(fd, entry.mode & 0o7777)
        if entry.xattrs:
            self._xattrs(fd, entry.xattrs)
        time = min(entry.mtime_ns, _LATEST_NS)
        os.utime(fd, ns=(time, time))


def _write(fd: int, part: memoryview) -> None:
    while len(part) > (count := os.write(fd, part)):
        part = part[count:]


def _link(source: bytes, where: Directory, name: bytes, parent: Directory) -> None:
    os.link(source, name, src_dir_fd=where.fd, dst_dir_fd=parent.fd, follow_symlinks=False)


def _named(entry: Entry, error: Exception) -> Exception:
    """``error`` with the entry's name; "no space" stays what it is."""
    name = tar.shown(entry.name)
    if isinstance(error, errors.EngineError):
        kind = type(error)
        why = error.message
    elif isinstance(error, OSError):
        if error.errno in _FULL:
            return error
        denied = error.errno in (errno.EPERM, errno.EACCES)
        kind = errors.PermissionDenied if denied else errors.FailedPrecondition
        why = os.strerror(error.errno or 0)
    else:
        kind, why = errors.InvalidArgument, str(error)
    return kind(f"cannot unpack {name}: {why}", kind="layer", ref=name)
