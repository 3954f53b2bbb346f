"""System calls that Python 3.11 does not have, one thin function each.

A failure is an OSError with the errno and a text that names the call and its main
argument; ENOSYS says that the kernel lacks the call.
"""

from __future__ import annotations

import ctypes
import errno
import os

__all__ = [
    "CLONE_FS",
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWUSER",
    "CLONE_NEWUTS",
    "FSCONFIG_CMD_CREATE",
    "FSCONFIG_SET_FLAG",
    "FSCONFIG_SET_STRING",
    "IN_CLOSE_WRITE",
    "IN_CREATE",
    "IN_DELETE",
    "IN_DELETE_SELF",
    "IN_MODIFY",
    "IN_MOVED_FROM",
    "IN_MOVED_TO",
    "IN_MOVE_SELF",
    "IN_ONESHOT",
    "MNT_DETACH",
    "MOUNT_ATTR_IDMAP",
    "MOUNT_ATTR_NODEV",
    "MOUNT_ATTR_NOEXEC",
    "MOUNT_ATTR_NOSUID",
    "MOUNT_ATTR_RDONLY",
    "MS_BIND",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_PRIVATE",
    "MS_RDONLY",
    "MS_REC",
    "MS_REMOUNT",
    "MS_SILENT",
    "RESOLVE_IN_ROOT",
    "clock_timer",
    "clock_timer_arm",
    "drop_effective",
    "effective",
    "fsconfig",
    "fsmount",
    "fsopen",
    "inotify_add_watch",
    "inotify_init",
    "inotify_rm_watch",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "openat2",
    "pivot_root",
    "prctl",
    "quotactl",
    "quotactl_fd",
    "set_child_subreaper",
    "set_effective",
    "setfsgid",
    "setfsuid",
    "setns",
    "syncfs",
    "umount",
    "unshare",
]

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWNET = 0x40000000
CLONE_NEWUSER = 0x10000000

IN_MODIFY = 0x00000002
IN_CLOSE_WRITE = 0x00000008
IN_MOVED_FROM = 0x00000040
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
IN_DELETE = 0x00000200
IN_DELETE_SELF = 0x00000400
IN_MOVE_SELF = 0x00000800
IN_ONESHOT = 0x80000000

MNT_DETACH = 2

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_SILENT = 32768
MS_PRIVATE = 1 << 18

PR_SET_CHILD_SUBREAPER = 36
"""Linux 3.4."""

RESOLVE_IN_ROOT = 0x10
"""openat2(2), Linux 5.6."""

AT_FDCWD = -100
AT_RECURSIVE = 0x8000
_AT_EMPTY_PATH = 0x1000
OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 4
MOVE_MOUNT_T_SYMLINKS = 0x10

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_IDMAP = 0x100000

FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1

_CAPABILITY_VERSION_3 = 0x20080522
"""Two words per set, Linux 2.6.26."""

_NR_OPEN_TREE = 428
_NR_MOVE_MOUNT = 429
_NR_FSOPEN = 430
_NR_FSCONFIG = 431
_NR_FSMOUNT = 432
_NR_OPENAT2 = 437
_NR_MOUNT_SETATTR = 442
_CLOCK_REALTIME = 0
_TFD_TIMER_ABSTIME = 1
_TFD_TIMER_CANCEL_ON_SET = 2
_NR_QUOTACTL_FD = 443

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


def _check(result: int, call: str, subject: str = "") -> int:
    if result >= 0:
        return result
    number = ctypes.get_errno()
    if number == errno.ENOSYS:
        text = f"kernel {os.uname().release} has no {call}(2)"
    else:
        text = f"{call}: {os.strerror(number)}"
    raise OSError(number, text, subject or None)


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), os.fsencode(fstype), flags, os.fsencode(data)
    )
    _check(result, "mount", target)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), "umount2", target)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _check(_libc.pivot_root(os.fsencode(new), os.fsencode(old)), "pivot_root", new)


def unshare(flags: int) -> None:
    """unshare(2) for the calling thread."""
    _check(_libc.unshare(flags), "unshare")


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2) with integer arguments."""
    words = [ctypes.c_ulong(word) for word in (arg2, arg3, arg4, arg5)]
    return _check(_libc.prctl(option, *words), "prctl", str(option))


def set_child_subreaper() -> bool:
    """Makes orphans of our children ours; False where the kernel (before 3.4) cannot."""
    try:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
    except OSError:
        return False
    return True


def syncfs(fd: int) -> None:
    """syncfs(2), Linux 2.6.39."""
    _check(_libc.syncfs(fd), "syncfs")


def openat2(dir_fd: int, path: str, flags: int, resolve: int) -> int:
    """openat2(2), Linux 5.6: a file descriptor, close-on-exec."""

    class OpenHow(ctypes.Structure):
        _fields_ = (
            ("flags", ctypes.c_uint64),
            ("mode", ctypes.c_uint64),
            ("resolve", ctypes.c_uint64),
        )

    how = OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    result = _libc.syscall(
        ctypes.c_long(_NR_OPENAT2),
        ctypes.c_int(dir_fd),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    return _check(result, "openat2", path)


def open_tree(path: str, *, recursive: bool = True) -> int:
    """open_tree(2), Linux 5.2: a detached copy of the mounts at and below ``path``.

    Without ``recursive`` what is mounted below is left out.
    """
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    result = _libc.syscall(
        ctypes.c_long(_NR_OPEN_TREE),
        ctypes.c_int(AT_FDCWD),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.c_uint(flags),
    )
    return _check(result, "open_tree", path)


def move_mount(fd: int, target: str) -> None:
    """move_mount(2), Linux 5.2: attaches a detached mount at ``target``."""
    result = _libc.syscall(
        ctypes.c_long(_NR_MOVE_MOUNT),
        ctypes.c_int(fd),
        ctypes.c_char_p(b""),
        ctypes.c_int(AT_FDCWD),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS),
    )
    _check(result, "move_mount", target)


def mount_setattr(
    fd: int, attributes: int, *, propagation: int = 0, userns: int = 0, recursive: bool = True
) -> None:
    """mount_setattr(2), Linux 5.12: sets ``attributes`` of the mount that ``fd`` is open on.

    ``userns`` is a descriptor of a user namespace for MOUNT_ATTR_IDMAP, ``propagation`` one
    of MS_PRIVATE and its like; ``recursive`` includes what is mounted below.
    """
    words = (ctypes.c_uint64 * 4)(attributes, 0, propagation, userns)
    result = _libc.syscall(
        ctypes.c_long(_NR_MOUNT_SETATTR),
        ctypes.c_int(fd),
        ctypes.c_char_p(b""),
        ctypes.c_uint(_AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)),
        words,
        ctypes.c_size_t(ctypes.sizeof(words)),
    )
    _check(result, "mount_setattr")


def setfsuid(uid: int) -> None:
    """setfsuid(2) for the calling thread: to whom files that it makes belong."""
    _libc.setfsuid(ctypes.c_uint(uid))


def setfsgid(gid: int) -> None:
    """setfsgid(2) for the calling thread."""
    _libc.setfsgid(ctypes.c_uint(gid))


def fsopen(fstype: str) -> int:
    """fsopen(2), Linux 5.2: a descriptor that a new file system is described to."""
    result = _libc.syscall(
        ctypes.c_long(_NR_FSOPEN),
        ctypes.c_char_p(os.fsencode(fstype)),
        ctypes.c_uint(_FSOPEN_CLOEXEC),
    )
    return _check(result, "fsopen", fstype)


def fsconfig(fd: int, command: int, key: str = "", value: str = "") -> None:
    """fsconfig(2), Linux 5.2: one option, or the order to make the file system."""
    result = _libc.syscall(
        ctypes.c_long(_NR_FSCONFIG),
        ctypes.c_int(fd),
        ctypes.c_uint(command),
        ctypes.c_char_p(os.fsencode(key) if key else None),
        ctypes.c_char_p(os.fsencode(value) if value else None),
        ctypes.c_int(0),
    )
    _check(result, "fsconfig", key)


def fsmount(fd: int, attributes: int = 0) -> int:
    """fsmount(2), Linux 5.2: a detached mount of what :func:`fsconfig` has made."""
    result = _libc.syscall(
        ctypes.c_long(_NR_FSMOUNT),
        ctypes.c_int(fd),
        ctypes.c_uint(_FSMOUNT_CLOEXEC),
        ctypes.c_uint(attributes),
    )
    return _check(result, "fsmount")


def quotactl(command: int, device: str, number: int, data: ctypes.Array[ctypes.c_char]) -> None:
    """quotactl(2) on the block device at ``device``; ``data`` is read or filled."""
    result = _libc.quotactl(
        ctypes.c_int(command), ctypes.c_char_p(os.fsencode(device)), ctypes.c_int(number), data
    )
    _check(result, "quotactl", device)


def quotactl_fd(fd: int, command: int, number: int, data: ctypes.Array[ctypes.c_char]) -> None:
    """quotactl_fd(2), Linux 5.14: the same for the file system that ``fd`` is open on."""
    result = _libc.syscall(
        ctypes.c_long(_NR_QUOTACTL_FD),
        ctypes.c_uint(fd),
        ctypes.c_uint(command & 0xFFFFFFFF),
        ctypes.c_int(number),
        data,
    )
    _check(result, "quotactl_fd")


def effective() -> int:
    """capget(2): the effective capabilities of the calling thread, one bit each."""
    sets = (ctypes.c_uint32 * 6)()
    _check(_libc.capget((ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), sets), "capget")
    return int(sets[0]) | int(sets[3]) << 32


def set_effective(capabilities: int) -> None:
    """capset(2): the calling thread has these alone in effect; others keep theirs."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    _check(_libc.capget(header, sets), "capget")
    sets[0], sets[3] = capabilities & 0xFFFFFFFF, capabilities >> 32
    _check(_libc.capset(header, sets), "capset")


def drop_effective(capability: int) -> None:
    """The calling thread does without ``capability``; others keep it."""
    set_effective(effective() & ~(1 << capability))


def setns(fd: int, kind: int) -> None:
    """setns(2), Linux 3.0: the calling process enters the namespace of ``fd``."""
    _check(_libc.setns(fd, kind), "setns")


def inotify_init() -> int:
    """A non-blocking, close-on-exec inotify descriptor."""
    return _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    """A watch descriptor for ``path``."""
    return _check(_libc.inotify_add_watch(fd, os.fsencode(path), mask), "inotify_add_watch", path)


def inotify_rm_watch(fd: int, watch: int) -> None:
    """Ends a watch."""
    _check(_libc.inotify_rm_watch(fd, watch), "inotify_rm_watch")


def clock_timer() -> int:
    """timerfd_create(2), Linux 2.6.25: a timer by the wall clock, non-blocking, close-on-exec."""
    flags = os.O_NONBLOCK | os.O_CLOEXEC
    return _check(_libc.timerfd_create(_CLOCK_REALTIME, flags), "timerfd_create")


def clock_timer_arm(fd: int) -> None:
    """timerfd_settime(2): ``fd`` becomes readable when somebody sets the wall clock (Linux 3.0)."""
    never = (1 << (8 * ctypes.sizeof(ctypes.c_long) - 1)) - 1
    wanted = (ctypes.c_long * 4)(0, 0, never, 0)
    flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
    _check(_libc.timerfd_settime(fd, flags, wanted, None), "timerfd_settime")
