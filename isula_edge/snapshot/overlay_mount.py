"""Mounts an overlay, whatever the number of its lower directories and the kernel's age.

mount(2) takes one page of options (case A24), so names are short: lower directories are
given relative to the driver's home, from a thread whose working directory is its own
(unshare(CLONE_FS)).  About 150 layers fit.  More are given one by one where the kernel can
(fsconfig(2) with ``lowerdir+``, Linux 6.7), else by links of one or two letters that lie
beside the writable layer.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.snapshot.quota import CAP_SYS_RESOURCE
from isula_edge.sys import syscalls

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Sequence

__all__ = ["MAX_LOWERS", "Mounter", "Request", "enter", "new_overlay", "short_names"]

MAX_LOWERS = 500
"""OVL_MAX_STACK of every kernel since Linux 4.0."""

_PAGE = os.sysconf("SC_PAGE_SIZE")
_LINKS = "lower"
# absent, forbidden by a sandbox, or before Linux 6.7 without lowerdir+
_NO_NEW_API = (errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP)
_ATTRIBUTES = {
    syscalls.MS_RDONLY: 1,
    syscalls.MS_NOSUID: 2,
    syscalls.MS_NODEV: 4,
    syscalls.MS_NOEXEC: 8,
}


@dataclass(frozen=True, slots=True)
class Request:
    """What to mount at ``<base>/merged``; all paths are relative to the driver's home.

    ``options`` go to the file system as they are, ``flags`` are those of mount(2).  With
    ``place``, an absolute path, it is mounted there, without anything writable.
    """

    base: str
    lowers: tuple[str, ...]
    flags: int = 0
    options: tuple[str, ...] = ()
    workdir: bool = True
    place: str = ""

    @property
    def target(self) -> str:
        """Where it is mounted."""
        return self.place or f"{self.base}/merged"

    def above(self, up: str = "") -> list[tuple[str, str]]:
        """Options for what is written; ``up`` leads to ``base`` in place of its name."""
        if self.place:
            return []
        base = up or self.base
        words = [("upperdir", f"{base}/diff")]
        return [*words, ("workdir", f"{base}/work")] if self.workdir else words

    def data(self, lowers: tuple[str, ...] | None = None, up: str = "") -> str:
        """The options of mount(2)."""
        words = [f"lowerdir={':'.join(lowers or self.lowers)}"]
        words += ["=".join(pair) for pair in self.above(up)]
        return ",".join((*words, *self.options))

    def fits(self) -> bool:
        """Whether mount(2) takes the options: a page, and its last byte is the end."""
        return len(os.fsencode(self.data())) < _PAGE


def short_names(count: int) -> list[str]:
    """``count`` different names of one letter or digit, then of two."""
    signs = string.digits + string.ascii_lowercase
    pairs = (one + two for one in signs for two in signs)
    return list(itertools.islice(itertools.chain(signs, pairs), count))


class Mounter:
    """Mounts of type ``fstype`` below ``home``; no thread before the first one."""

    def __init__(self, home: str, fstype: str) -> None:
        self._home = home
        self._fstype = fstype
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    def mount(self, request: Request) -> None:
        """Raises OSError, or Unimplemented for more layers than the kernel takes."""
        count = len(request.lowers)
        if count > MAX_LOWERS:
            raise errors.Unimplemented(
                f"the image has {count} layers, the kernel mounts {MAX_LOWERS}",
                kind="image",
                hint="build it with fewer layers, or use the driver vfs on a new --graph",
            )
        if self._pool is None:
            # a worker that only unpacks never mounts, and never loads this
            import concurrent.futures

            self._pool = concurrent.futures.ThreadPoolExecutor(1, "mount", initializer=enter)
        self._pool.submit(self._mount, request).result()

    def close(self) -> None:
        """Ends the thread."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _mount(self, request: Request) -> None:
        os.chdir(self._home)
        try:
            if request.fits():
                self._classic(request.target, request.flags, request.data())
            else:
                self._many(request)
        finally:
            # else the thread would keep the file system busy
            os.chdir("/")

    def _many(self, request: Request) -> None:
        try:
            _one_by_one(self._fstype, request)
        except OSError as error:
            if error.errno not in _NO_NEW_API or request.place:
                raise
            _make_links(request)
            os.chdir(f"{request.base}/{_LINKS}")
            names = tuple(short_names(len(request.lowers)))
            self._classic("../merged", request.flags, request.data(names, ".."))

    def _classic(self, target: str, flags: int, data: str) -> None:
        syscalls.mount(self._fstype, target, self._fstype, flags, data)


def enter() -> None:
    """The mounting thread: a working directory of its own, and bound by quotas.

    Overlay does what a container writes as whoever has mounted it, and ext4 lets anybody
    who has CAP_SYS_RESOURCE exceed a quota.
    """
    syscalls.unshare(syscalls.CLONE_FS)
    with contextlib.suppress(OSError):
        syscalls.drop_effective(CAP_SYS_RESOURCE)


def _one_by_one(fstype: str, request: Request) -> None:
    words = [*(("lowerdir+", lower) for lower in request.lowers), *request.above()]
    made = new_overlay(fstype, request, words)
    try:
        syscalls.move_mount(made, request.target)
    finally:
        os.close(made)


def new_overlay(fstype: str, request: Request, words: Sequence[tuple[str, str]]) -> int:
    """A detached overlay of the layers that ``words`` name, with the request's options."""
    fd = syscalls.fsopen(fstype)
    try:
        text = syscalls.FSCONFIG_SET_STRING
        syscalls.fsconfig(fd, text, "source", fstype)
        for name, path in words:
            syscalls.fsconfig(fd, text, name, path)
        for option in request.options:
            key, equals, value = option.partition("=")
            syscalls.fsconfig(fd, text if equals else syscalls.FSCONFIG_SET_FLAG, key, value)
        if request.flags & syscalls.MS_RDONLY:
            syscalls.fsconfig(fd, syscalls.FSCONFIG_SET_FLAG, "ro")
        syscalls.fsconfig(fd, syscalls.FSCONFIG_CMD_CREATE)
        attributes = sum(bit for flag, bit in _ATTRIBUTES.items() if request.flags & flag)
        return syscalls.fsmount(fd, attributes)
    finally:
        os.close(fd)


def _make_links(request: Request) -> None:
    """``lower/0``, ``lower/1`` … beside the writable layer; those of an earlier time go."""
    folder = f"{request.base}/{_LINKS}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    for name, lower in zip(short_names(len(request.lowers)), request.lowers, strict=True):
        link = f"{folder}/{name}"
        # rw, the container, lower: three levels below the home
        target = f"../../../{lower}"
        try:
            os.symlink(target, link)
        except FileExistsError:
            if os.readlink(link) != target:
                os.unlink(link)
                os.symlink(target, link)
