"""Copies of whole trees, deeper than any path and never through a link.

Both trees are walked from directory to directory by descriptors, two at a time: a path
that is longer than PATH_MAX (4096 bytes) is never given to the kernel, and a tree of any
depth needs the same few descriptors.  Up again it goes by ``..``, which is safe since
nobody else changes either tree.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from isula_edge.sys import atomic

__all__ = ["copy_tree", "link_tree"]

_FICLONE = 0x40049409
_CHUNK = 1 << 20
_LONGEST = 1000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# too many names (ext4: 65000), no hard links at all (FAT, some FUSE), not to this place
_NO_LINK = (errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV)
_NO_XATTR = (errno.ENOTSUP, errno.EPERM)


def copy_tree(source: str, target: str) -> None:
    """Copies a tree with owners, modes, times, xattrs, links, devices and holes.

    Raises NoSpace, or OSError.
    """
    _run(source, target, share=False)


def link_tree(source: str, target: str) -> None:
    """A tree of new directories in which every file is the source's own, by a hard link.

    For trees whose files nobody ever writes to.  What cannot be linked is copied.
    """
    _run(source, target, share=True)


def _run(source: str, target: str, *, share: bool) -> None:
    with atomic.space_errors(target):
        os.mkdir(target, 0o700)
        here = os.open(source, _DIRECTORY)
        try:
            root = os.open(target, _DIRECTORY)
        except BaseException:
            os.close(here)
            raise
        try:
            _Copy(here, root, share).run()
        finally:
            os.close(root)


class _Copy:
    """One walk; ``source`` and ``target`` are the directories it has reached."""

    def __init__(self, source: int, root: int, share: bool) -> None:
        self._source = source
        self._root = root
        self._target = os.dup(root)
        self._share = share
        self._path: list[str] = []
        # where the first name of a file with several names is, below the root
        self._links: dict[tuple[int, int], str] = {}

    def run(self) -> None:
        try:
            pending = [self._entries()]
            while True:
                if pending[-1]:
                    self._down(pending[-1].pop())
                    pending.append(self._entries())
                    continue
                pending.pop()
                if not pending:
                    _copy_attributes(self._source, self._target)
                    return
                self._up()
        finally:
            os.close(self._source)
            os.close(self._target)

    def _down(self, name: str) -> None:
        os.mkdir(name, 0o700, dir_fd=self._target)
        self._source = _exchange(self._source, name)
        self._target = _exchange(self._target, name)
        self._path.append(name)

    def _up(self) -> None:
        source, target = os.dup(self._source), os.dup(self._target)
        try:
            self._source = _exchange(self._source, "..")
            self._target = _exchange(self._target, "..")
            self._path.pop()
            # last, since everything made in a directory changes its time
            _copy_attributes(source, target)
        finally:
            os.close(source)
            os.close(target)

    def _entries(self) -> list[str]:
        """Copies the files of the directory that was reached; the directories in it."""
        folders = []
        with os.scandir(self._source) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif not (self._share and self._linked(entry.name)):
                    self._file(entry.name)
        return folders

    def _linked(self, name: str) -> bool:
        try:
            os.link(
                name,
                name,
                src_dir_fd=self._source,
                dst_dir_fd=self._target,
                follow_symlinks=False,
            )
        except OSError as error:
            if error.errno in _NO_LINK:
                return False
            raise
        return True

    def _file(self, name: str) -> None:
        found = os.stat(name, dir_fd=self._source, follow_symlinks=False)
        key = (found.st_dev, found.st_ino)
        if found.st_nlink > 1:
            known = self._links.get(key)
            if known is not None:
                self._again(known, name)
                return
            self._links[key] = "/".join((*self._path, name))
        if stat.S_ISREG(found.st_mode):
            self._regular(name, found.st_size)
            return
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=self._source), name, dir_fd=self._target)
        else:
            os.mknod(name, found.st_mode, found.st_rdev, dir_fd=self._target)
        self._node_attributes(name, found)

    def _again(self, known: str, name: str) -> None:
        """``name`` is another name of the file at ``known``."""
        folder, _, first = known.rpartition("/")
        fd = _open_below(self._root, folder)
        try:
            os.link(first, name, src_dir_fd=fd, dst_dir_fd=self._target, follow_symlinks=False)
        finally:
            os.close(fd)

    def _regular(self, name: str, size: int) -> None:
        src = os.open(name, _READ, dir_fd=self._source)
        try:
            dst = os.open(name, _CREATE, 0o600, dir_fd=self._target)
            try:
                try:
                    fcntl.ioctl(dst, _FICLONE, src)
                except OSError:
                    _copy_data(src, dst, size)
                _copy_attributes(src, dst)
            finally:
                os.close(dst)
        finally:
            os.close(src)

    def _node_attributes(self, name: str, found: os.stat_result) -> None:
        """Attributes of what cannot be opened."""
        os.chown(name, found.st_uid, found.st_gid, dir_fd=self._target, follow_symlinks=False)
        if not stat.S_ISLNK(found.st_mode):
            os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=self._target)
        source = f"/proc/self/fd/{self._source}/{name}"
        target = f"/proc/self/fd/{self._target}/{name}"
        for key in _xattrs(source):
            value = os.getxattr(source, key, follow_symlinks=False)
            _set_xattr(target, key, value)
        times = (found.st_atime_ns, found.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=self._target, follow_symlinks=False)


def _exchange(fd: int, name: str) -> int:
    """A descriptor of directory ``name`` in the one of ``fd``, which is closed."""
    found = os.open(name, _DIRECTORY, dir_fd=fd)
    os.close(fd)
    return found


def _open_below(root: int, path: str) -> int:
    """A descriptor of the directory at ``path``, whatever its length."""
    fd = os.dup(root)
    try:
        while path:
            # a path is cut at a slash, so that each part is one that the kernel takes
            cut = len(path) if len(path) <= _LONGEST else path.rindex("/", 0, _LONGEST)
            fd = _exchange(fd, path[:cut])
            path = path[cut + 1 :]
    except BaseException:
        os.close(fd)
        raise
    return fd


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


def _copy_attributes(source: int, target: int) -> None:
    """Owner before mode and mode before xattrs: each can undo the one before it."""
    found = os.fstat(source)
    os.fchown(target, found.st_uid, found.st_gid)
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    for name in _xattrs(source):
        _set_xattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _xattrs(target: int | str) -> list[str]:
    """Names of the attributes to copy: overlayfs's own speak about another place."""
    try:
        # a descriptor is never a link, and takes no follow_symlinks
        names = os.listxattr(target, follow_symlinks=isinstance(target, int))
    except OSError as error:
        if error.errno in _NO_XATTR:
            return []
        raise
    return [name for name in names if not name.startswith("trusted.overlay.")]


def _set_xattr(target: int | str, name: str, value: bytes) -> None:
    try:
        os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
    except OSError as error:
        if error.errno not in _NO_XATTR:
            raise
