"""Limits of writable layers by project quotas (xfs; ext4 since Linux 4.5).

A directory gets a project of its own, which all that is made in it inherits, and the
project gets a limit.  Which numbers are taken is asked of the file system itself: a number
that owns no file is free.  So nothing has to be remembered, and several engines and an
administrator's own projects live side by side.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import os
import stat
import struct
import threading
import time
import zlib
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.snapshot.filesystem import backing_mount
from isula_edge.sys import syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CAP_SYS_RESOURCE", "ProjectQuota"]

CAP_SYS_RESOURCE = 24
"""Whoever has it is not bound by quotas of ext4; overlay writes as whoever mounted it."""

_FSGETXATTR, _FSSETXATTR = 0x801C581F, 0x401C5820
_FSXATTR = struct.Struct("=IIIII8s")
_PROJINHERIT = 0x200

_PROJECT = 2
_GET_QUOTA, _SET_LIMIT, _GET_STATE = (
    (ord("X") << 8 | number) << 8 | _PROJECT for number in (3, 4, 5)
)
_STATE = struct.Struct("=bxH")
_ENFORCED = 1 << 5
# struct fs_disk_quota: version, flags, fields, id, hard and soft blocks, …
_QUOTA = struct.Struct("=bbHIQQQQQQ56x")
_BLOCK = 512
_SOFT_BLOCKS, _HARD_BLOCKS = 1 << 2, 1 << 3
_BACKGROUND_S = 1.0
_FIRST, _RANGE, _STEP = 1 << 30, 1 << 30, 4096

_NEEDED = {
    "ext4": "give it the features (unmounted: tune2fs -O project,quota -Q prjquota DEVICE) "
    "and mount it with -o prjquota",
    "xfs": "mount it with -o prjquota",
}


class ProjectQuota:
    """Project quotas of the file system that holds ``home``."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._lock = threading.Lock()
        where = zlib.crc32(os.fsencode(os.path.realpath(home))) % _RANGE
        # numbers side by side share a block of the quota file
        self._first = _FIRST + where // _STEP * _STEP

    def why_not(self) -> str:
        """Why no limit can be kept; '' if it can.  Asked anew each time: it may be remounted."""
        kind = backing_mount(self._home).kind
        if kind not in _NEEDED:
            return f"{self._home} is on {kind}"
        state = ctypes.create_string_buffer(256)
        state[0] = b"\1"
        try:
            self._call(_GET_STATE, 0, state)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ESRCH, errno.EINVAL, errno.ENOTSUP):
                return f"quotas of {kind} cannot be asked for: {error.strerror}"
            return f"{kind} below {self._home} has no project quotas"
        flags = _STATE.unpack_from(state.raw)[1]
        if not flags & _ENFORCED:
            return f"{kind} below {self._home} is mounted without prjquota"
        return ""

    def require(self, what: str) -> None:
        """Raises Unimplemented, naming ``what`` was wanted, where no limit can be kept."""
        why = self.why_not()
        if why:
            kind = backing_mount(self._home).kind
            raise errors.Unimplemented(
                f"{what} is supported only for overlay over xfs or ext4 with 'pquota' mount "
                f"option: {why}",
                kind="flag",
                ref="storage-opt",
                hint=_NEEDED.get(kind, "use a graph directory on ext4 or xfs with -o prjquota"),
            )

    def limit(self, folder: str, size: int) -> None:
        """What is made in ``folder``, an empty directory, may take ``size`` bytes."""
        with self._lock:
            number = self._free()
            _set_project(folder, number)
            self._set_limit(number, size)

    def project(self, folder: str) -> int:
        """The project of ``folder``; 0 for none, and where it is not there."""
        try:
            return _attributes(folder)[3]
        except OSError:
            return 0

    def release(self, number: int) -> None:
        """Ends the limit of a project that no file belongs to any more."""
        if not 0 <= number - self._first < _RANGE:
            return
        # XFS takes back what was deleted in the background (Linux 5.14); statfs hurries it
        deadline = time.monotonic() + _BACKGROUND_S
        while self._used(number) and time.monotonic() < deadline:
            os.statvfs(self._home)
            time.sleep(0.01)
        with self._lock:
            if self._used(number):
                return
            self._set_limit(number, 0)

    def _free(self) -> int:
        for number in itertools.count(self._first):
            if not self._used(number):
                return number
        raise AssertionError

    def _used(self, number: int) -> bool:
        data = ctypes.create_string_buffer(_QUOTA.size)
        try:
            self._call(_GET_QUOTA, number, data)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESRCH):
                return False
            raise
        *_, blocks, files = _QUOTA.unpack(data.raw)
        return bool(blocks or files)

    def _set_limit(self, number: int, size: int) -> None:
        blocks = -(-size // _BLOCK)
        fields = _SOFT_BLOCKS | _HARD_BLOCKS
        packed = _QUOTA.pack(1, _PROJECT, fields, number, blocks, blocks, 0, 0, 0, 0)
        self._call(_SET_LIMIT, number, ctypes.create_string_buffer(packed, len(packed)))

    def _call(self, command: int, number: int, data: ctypes.Array[ctypes.c_char]) -> None:
        fd = os.open(self._home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscalls.quotactl_fd(fd, command, number, data)
        except OSError as error:
            # EPERM: a sandbox that does not know the call
            if error.errno not in (errno.ENOSYS, errno.EPERM):
                raise
            with self._device(os.fstat(fd).st_dev) as device:
                syscalls.quotactl(command, device, number, data)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _device(self, number: int) -> Iterator[str]:
        """A file of the block device below; one of its own where /dev has none (/dev/root)."""
        listed = f"/dev/block/{os.major(number)}:{os.minor(number)}"
        for path in (backing_mount(self._home).source, listed):
            if _is_device(path, number):
                yield path
                return
        made = f"{self._home}/dead-{os.urandom(8).hex()}"
        os.mknod(made, stat.S_IFBLK | 0o600, number)
        try:
            yield made
        finally:
            os.unlink(made)


def _is_device(path: str, number: int) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return stat.S_ISBLK(found.st_mode) and found.st_rdev == number


def _attributes(folder: str) -> tuple[int, int, int, int, int, bytes]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        data = fcntl.ioctl(fd, _FSGETXATTR, bytes(_FSXATTR.size))
    finally:
        os.close(fd)
    found: tuple[int, int, int, int, int, bytes] = _FSXATTR.unpack(data)
    return found


def _set_project(folder: str, number: int) -> None:
    flags, extent, extents, _, cow, rest = _attributes(folder)
    data = _FSXATTR.pack(flags | _PROJINHERIT, extent, extents, number, cow, rest)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _FSSETXATTR, data)
    finally:
        os.close(fd)
