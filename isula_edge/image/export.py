"""Export: the root file system of a container as one tar.

The tree may be hostile and may change while it is read.  Every directory is opened from
the one above it without following links, and a file has in the tar the size that its
header says, whatever becomes of it: what it lacks is zeros, what is too much is left out.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import tarfile
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.image.folders import Folders, reading
from isula_edge.image.save import TarWriter
from isula_edge.image.tar_extensions import shown
from isula_edge.image.tree import join
from isula_edge.sys import syscalls

if TYPE_CHECKING:
    from isula_edge.image.job import Job
    from isula_edge.image.tree import Directory
    from isula_edge.snapshot import Driver

__all__ = ["Exporter", "export", "mounted"]

_log = logging.getLogger(__name__)
_CHUNK = 256 * 1024
_FIND = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# of overlay itself, and of the container's confinement
_OWN_XATTRS = ("trusted.overlay.", "user.overlay.", "security.selinux", "security.ima")
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.ENXIO)
_NO_XATTRS = (errno.ENOTSUP, errno.ENODATA, errno.EPERM, *_GONE)
_KINDS = {
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def mounted(driver: Driver, container: str, lowers: list[str]) -> str:
    """The root file system of ``container``, seen by this process alone.

    The mount ends with the process, so neither a start nor a removal meanwhile meets it,
    and nothing has to be undone after a crash.
    """
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    return driver.mount(container, lowers, read_only=True).path


def export(fd: int, root: str, job: Job) -> dict[str, Any]:
    """Writes everything below ``root`` to ``fd``; returns ``{"size": bytes}``.

    Sockets are left out, and what is mounted below ``root``.  Memory grows with the entries
    of one directory and with the files that have several names only.
    """
    writer = TarWriter(fd)
    Exporter(writer, root, job).run()
    writer.end()
    return {"size": writer.size_bytes}


class Exporter:
    """Writes everything below a directory, which may change meanwhile."""

    def __init__(self, writer: TarWriter, root: str, job: Job) -> None:
        self._writer = writer
        self._job = job
        try:
            self._folders = Folders(root)
        except OSError as error:
            raise errors.FailedPrecondition(
                f"Failed to export rootfs with error: {root}: {error.strerror}",
                kind="container",
                ref=root,
            ) from error
        self._device = os.fstat(self._folders.root.fd).st_dev
        self._links: dict[tuple[int, int], bytes] = {}
        self._skipped = 0
        self._flags = reading()

    def run(self) -> None:
        """Directory by directory, each before what is in it."""
        pending = [b""]
        while pending:
            path = pending.pop()
            self._job.check()
            try:
                here = self._folders.at(path)
            except OSError as error:
                if error.errno not in _GONE:
                    raise _failed(path, error) from error
                continue
            pending.extend(reversed(self.directory(here)))
        if self._skipped:
            _log.warning(
                "%d extended attributes have names that no tar can hold: they are left out",
                self._skipped,
            )

    def directory(self, here: Directory) -> list[bytes]:
        """Writes a directory and the files in it; gives the paths of the directories in it."""
        found = os.fstat(here.fd)
        self._header(join(here.path, b"") or b"./", found, tarfile.DIRTYPE, here.fd)
        if found.st_dev != self._device:
            return []
        inner = []
        with os.scandir(here.fd) as entries:
            names = sorted(os.fsencode(entry.name) for entry in entries)
        for name in names:
            self._job.check()
            child = join(here.path, name)
            try:
                if stat.S_ISDIR(os.stat(name, dir_fd=here.fd, follow_symlinks=False).st_mode):
                    inner.append(child)
                else:
                    self.entry(here, name, child)
            except OSError as error:
                if error.errno not in _GONE:
                    raise _failed(child, error) from error
        return inner

    def entry(self, parent: Directory, name: bytes, path: bytes) -> None:
        """Writes what is no directory."""
        found = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
        kind = stat.S_IFMT(found.st_mode)
        key = (found.st_dev, found.st_ino)
        if found.st_nlink > 1 and key in self._links:
            self._link(path, found, self._links[key])
            return
        if kind == stat.S_IFREG:
            self._file(parent, name, path)
        elif kind in _KINDS:
            target = os.readlink(name, dir_fd=parent.fd) if kind == stat.S_IFLNK else b""
            # what is no file is never opened: only a path has its attributes
            place = b"/proc/self/fd/%d/%s" % (parent.fd, name)
            self._header(path, found, _KINDS[kind], place, target)
        else:
            return
        if found.st_nlink > 1:
            self._links[key] = path

    def _file(self, parent: Directory, name: bytes, path: bytes) -> None:
        fd = self._open(parent, name)
        try:
            found = os.fstat(fd)
            self._header(path, found, tarfile.REGTYPE, fd)
            left = found.st_size
            while left > 0:
                self._job.check()
                data = os.read(fd, min(left, _CHUNK)) or bytes(min(left, _CHUNK))
                self._writer.write(data)
                left -= len(data)
        finally:
            os.close(fd)

    def _open(self, parent: Directory, name: bytes) -> int:
        """Opens a regular file and nothing else: to open a device may already do something."""
        place = os.open(name, _FIND, dir_fd=parent.fd)
        try:
            if not stat.S_ISREG(os.fstat(place).st_mode):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            return os.open(f"/proc/self/fd/{place}", self._flags)
        finally:
            os.close(place)

    def _link(self, path: bytes, found: os.stat_result, target: bytes) -> None:
        info = _info(path, found, tarfile.LNKTYPE)
        info.linkname = _text(target)
        self._writer.entry(info, pax=True)

    def _header(
        self,
        path: bytes,
        found: os.stat_result,
        kind: bytes,
        where: int | bytes,
        target: bytes = b"",
    ) -> None:
        info = _info(path, found, kind)
        info.linkname = _text(target)
        if kind == tarfile.REGTYPE:
            info.size = found.st_size
        xattrs = {}
        for name, data in _xattrs(where).items():
            if _fits(name):
                xattrs[f"SCHILY.xattr.{name}"] = _text(data)
            else:
                self._skipped += 1
        info.pax_headers = {**info.pax_headers, **xattrs}
        self._writer.entry(info, pax=True)


def _info(path: bytes, found: os.stat_result, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(_text(path))
    info.type = kind
    info.mode = stat.S_IMODE(found.st_mode)
    info.uid, info.gid = found.st_uid, found.st_gid
    seconds, rest = divmod(found.st_mtime_ns, 10**9)
    info.mtime = seconds
    if rest and seconds >= 0:
        info.pax_headers = {"mtime": f"{seconds}.{rest:09}"}
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
    return info


def _xattrs(where: int | bytes) -> dict[str, bytes]:
    """Extended attributes of a descriptor, or of a name in the working directory."""
    found: dict[str, bytes] = {}
    follow = isinstance(where, int)
    try:
        for name in os.listxattr(where, follow_symlinks=follow):
            if not name.startswith(_OWN_XATTRS):
                found[name] = os.getxattr(where, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno not in _NO_XATTRS:
            raise
    return found


def _fits(name: str) -> bool:
    """Whether a pax record can have an attribute of this name."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "=" not in name


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _failed(path: bytes, error: OSError) -> errors.FailedPrecondition:
    name = shown(path)
    return errors.FailedPrecondition(
        f"Failed to export rootfs with error: {name}: {error.strerror}", kind="file", ref=name
    )
