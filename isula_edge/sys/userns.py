"""User namespaces: new ones with given maps, and files that belong to ids in one."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from isula_edge.sys import process, syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["IdMap", "acting_as", "host_id", "new_user_namespace", "why_none"]

IdMap = tuple[int, int, int]
"""Id inside, id on the host, size."""


def host_id(maps: Sequence[IdMap], number: int = 0) -> int:
    """What id ``number`` inside is on the host; -1 when it is not mapped."""
    for inside, outside, size in maps:
        if inside <= number < inside + size:
            return outside + number - inside
    return -1


_ABSENT = "the kernel has none (before Linux 3.8, or without CONFIG_USER_NS)"
_LIMIT = "a limit is reached: user.max_user_namespaces, or 32 of them inside each other"
_WHY = {
    errno.EINVAL: _ABSENT,
    errno.ENOSYS: _ABSENT,
    errno.ENOSPC: _LIMIT,
    # before Linux 4.9
    errno.EUSERS: _LIMIT,
    errno.EPERM: "forbidden by a sandbox or a security module, or isulad is in a chroot",
}


def why_none(number: int) -> str:
    """What it means that unshare(CLONE_NEWUSER) failed with this errno, unshare(2) and clone(2).

    Of a process with one thread: for another EINVAL says just that.
    """
    return _WHY.get(number) or os.strerror(number)


def new_user_namespace(uid_maps: Sequence[IdMap], gid_maps: Sequence[IdMap]) -> int:
    """A descriptor of a new user namespace with these maps; it lives as long as that is open.

    Raises OSError, which says why, where the kernel makes none, or refuses the maps.
    """
    ours_r, theirs_w = os.pipe()
    theirs_r, ours_w = os.pipe()
    try:
        # the helper of pods, here without any other namespace
        words = [*process.python_command("isula_edge.helper.pod_namespaces"), *[""] * 4]
        pid = process.spawn(words, stdin=theirs_r, stdout=theirs_w)
        os.close(theirs_w)
        theirs_w = -1
        answer = os.read(ours_r, 512).decode(errors="replace")
        if answer != "user\n":
            _, number, why = [*answer.strip().split(" ", 2), "", "", ""][:3]
            text = f"no user namespace: {why or 'its helper has ended'}"
            raise OSError(int(number or errno.ECHILD), text)
        for name, maps in (("uid", uid_maps), ("gid", gid_maps)):
            text = "".join(f"{inside} {host} {size}\n" for inside, host, size in maps)
            # one write(2): the kernel takes no second one
            with open(f"/proc/{pid}/{name}_map", "wb", buffering=0) as file:
                file.write(text.encode())
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        # what it reads ends, and so does the helper; the engine reaps it with the others
        for fd in (ours_r, theirs_w, theirs_r, ours_w):
            if fd >= 0:
                os.close(fd)


@contextlib.contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Files that the calling thread makes belong to ``uid`` and ``gid``; it may do what it could.

    On an id-mapped mount root of the host can make none: its id is not mapped there.
    """
    before = syscalls.effective()
    syscalls.setfsgid(gid)
    syscalls.setfsuid(uid)
    # leaving 0 has taken those that go with files
    syscalls.set_effective(before)
    try:
        yield
    finally:
        syscalls.setfsuid(0)
        syscalls.setfsgid(0)
        syscalls.set_effective(before)
