"""System calls that tell whether the kernel knows them, without doing anything.

Each is asked with an argument that makes it fail or do nothing: a descriptor that is never
open, a null pointer, an unknown sub-command.  The kernel answers ENOSYS or EINVAL where it
lacks the call and something else where it has it.  What cannot be asked without doing it
(unshare(2)) is done in one more process.  Nothing waits: getrandom(2) and devices neither.

Names are those of ``syscalls.json`` in a saved set of files, and so is the meaning of
an answer, so that probes read both alike.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import sys
from typing import TYPE_CHECKING, Any

from isula_edge.kernel import _probe_netlink
from isula_edge.kernel.source import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DEVICES", "ask"]

DEVICES = ("/dev/net/tun", "/dev/fuse", "/dev/loop-control", "/dev/kvm", "/dev/vhost-vsock")

_AT_FDCWD = -100
_BAD_FD = 0x7FFFFFFF
"""Above any limit on open files, so it can never be a descriptor."""

_NUMBERS = (
    "memfd_create",
    "getrandom",
    "seccomp",
    "renameat2",
    "copy_file_range",
    "add_key",
    "bpf",
    "waitid",
    "execveat",
    "statx",
    "finit_module",
)
_BY_ARCH = {
    "x86_64": (319, 318, 317, 316, 326, 248, 321, 247, 322, 332, 313),
    "i386": (356, 355, 354, 353, 377, 286, 357, 284, 358, 383, 350),
    "arm": (385, 384, 383, 382, 391, 309, 386, 280, 387, 397, 379),
    "generic": (279, 278, 277, 276, 285, 217, 280, 95, 281, 291, 273),
}
_SINCE_5_1 = {
    "clock_gettime64": 403,
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "landlock_create_ruleset": 444,
}
"""Every architecture has the same numbers since Linux 5.1."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.quotactl.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p)
_libc.clone.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


def _abi() -> str:
    machine = os.uname().machine
    wide = sys.maxsize > 1 << 32
    if machine == "x86_64":
        return "x86_64" if wide else "i386"
    if machine.startswith("i") and machine.endswith("86"):
        return "i386"
    if machine.startswith("arm") or (machine == "aarch64" and not wide):
        return "arm"
    return "generic" if machine in ("aarch64", "riscv64", "loongarch64") else ""


def _numbers() -> dict[str, int]:
    own = _BY_ARCH.get(_abi())
    if own is None:
        return {}
    return {**_SINCE_5_1, **{name: own[place] for place, name in enumerate(_NUMBERS)}}


_NR = _numbers()


def _answer(ret: int) -> Answer:
    return Answer.of(ret, ctypes.get_errno())


def _call(name: str, *args: int | bytes | ctypes.Array[Any] | None) -> Answer:
    """syscall(2); KeyError on an architecture whose numbers are not known here."""
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in args]
    return _answer(_libc.syscall(ctypes.c_long(_NR[name]), *words))


def _prctl(option: int, arg2: int = 0, arg3: int = 0) -> Answer:
    words = [ctypes.c_ulong(word) for word in (arg2, arg3, 0, 0)]
    return _answer(_libc.prctl(option, *words))


def _descriptor(answer: Answer) -> Answer:
    """Closes a descriptor that a successful call returned."""
    if not answer.ok:
        return answer
    os.close(answer.ret)
    return Answer(0)


def _from_oserror(error: OSError) -> Answer:
    return Answer.of(-1, error.errno or 0)


def _o_tmpfile() -> Answer:
    # O_TMPFILE without write access is EINVAL; before 3.11 the flag is not known and what
    # is left of it (O_DIRECTORY) opens the directory
    try:
        fd = os.open("/", os.O_TMPFILE | os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return Answer(0) if error.errno == errno.EINVAL else _from_oserror(error)
    os.close(fd)
    return Answer(-1, "EISDIR")


def _fchdir_o_path() -> Answer:
    """fchdir(2) to where we are already, by an O_PATH descriptor (EBADF before 3.5)."""
    try:
        fd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fchdir(fd)
        finally:
            os.close(fd)
    except OSError as error:
        return _from_oserror(error)
    return Answer(0)


def _tiocgptpeer() -> Answer:
    tiocgptpeer = 0x5441
    try:
        fd = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return Answer(-1, "ENOENT")
    try:
        os.close(fcntl.ioctl(fd, tiocgptpeer, os.O_RDWR | os.O_NOCTTY))
    except OSError as error:
        # EIO: the terminal is still locked, but the request was understood
        return Answer(0) if error.errno == errno.EIO else _from_oserror(error)
    finally:
        os.close(fd)
    return Answer(0)


def _clone(flags: int) -> Answer:
    """clone(2) of a child that only exits; no Python code runs in it.

    The child shares our memory on a stack of its own while we wait (vfork).  It has no
    exit signal, so no SIGCHLD is sent and waitpid(-1) of another thread does not see it.
    """
    clone_vm, clone_vfork, wait_all = 0x100, 0x4000, 0x40000000
    size = 1 << 16
    stack = ctypes.create_string_buffer(size)
    top = (ctypes.addressof(stack) + size) & ~15
    leave = ctypes.cast(_libc._exit, ctypes.c_void_p)
    answer = _answer(_libc.clone(leave, top, flags | clone_vm | clone_vfork, None))
    if answer.ok:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(answer.ret, wait_all)
        return Answer(0)
    return answer


def _apart(act: Callable[[], Answer | None]) -> Answer | None:
    """Answer of what changes the process that does it, done by one more; None when that
    ended without an answer."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = act()
            if answer is not None:
                os.write(into, f"{answer.ret} {answer.errname}".encode())
        finally:
            os._exit(0)
    os.close(into)
    text = os.read(out, 256).decode()
    os.close(out)
    os.waitpid(pid, 0)
    ret, _, errname = text.partition(" ")
    return Answer(int(ret), errname) if text else None


def _unshare(flags: int) -> Answer:
    return _answer(_libc.unshare(flags))


def _unshare_as_nobody() -> Answer:
    nobody = 65534
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(nobody, nobody, nobody)
        os.setresuid(nobody, nobody, nobody)
    return _unshare(_NEWUSER)


def _overlay_in_userns() -> Answer | None:
    if not _unshare(_NEWUSER | _NEWNS).ok:
        return None
    return _mount("overlay", "")


def _tmpfs_xattr() -> Answer | None:
    """user.* attribute of the root of a tmpfs that nobody else sees."""
    private_recursive = 1 << 18 | 16384
    if not _unshare(_NEWNS).ok:
        return None
    made = _answer(_libc.mount(b"none", b"/", b"", private_recursive, None))
    if made.ok:
        made = _answer(_libc.mount(b"none", b"/dev", b"tmpfs", 0, b""))
    if not made.ok:
        return None
    try:
        os.setxattr("/dev", "user.probe", b"1")
    except OSError as error:
        return _from_oserror(error)
    return Answer(0)


def _setns_pidfd() -> Answer:
    """setns(2) to the uts namespace that the asker is in already."""
    pidfd = _call("pidfd_open", os.getpid(), 0)
    if not pidfd.ok:
        return pidfd
    try:
        return _answer(_libc.setns(pidfd.ret, _NEWUTS))
    finally:
        os.close(pidfd.ret)


def _device(path: str) -> Callable[[], Answer]:
    def ask_device() -> Answer:
        # open(2) of a node without driver would load its module
        try:
            os.stat(path)
        except OSError as error:
            return _from_oserror(error)
        return Answer(0)

    return ask_device


def _time64() -> Answer | None:
    return None if sys.maxsize > 1 << 32 else _call("clock_gettime64", 0, None)


def _mount(fstype: str, options: str) -> Answer:
    """mount(2) on a file, which never succeeds: ENOTDIR says that nothing else is wrong.

    Silent, so that the kernel's log does not get a line at each start of the engine.
    """
    ms_rdonly, ms_silent = 1, 32768
    flags = ms_rdonly | ms_silent
    target = b"/proc/version"
    return _answer(_libc.mount(b"none", target, fstype.encode(), flags, options.encode()))


def _idmapped() -> Answer:
    mount_attr_idmap = 0x00100000
    attr = (ctypes.c_uint64 * 4)(mount_attr_idmap, 0, 0, _BAD_FD)
    return _call("mount_setattr", _AT_FDCWD, b"/", 0, attr, ctypes.sizeof(attr))


def _action(value: int) -> Callable[[], Answer]:
    def ask_action() -> Answer:
        get_action_avail = 2
        action = (ctypes.c_uint64 * 1)(value)
        if sys.byteorder == "big":
            action[0] = value << 32
        return _call("seccomp", get_action_avail, 0, action)

    return ask_action


def _device_program() -> Answer:
    """Loads, and at once drops, a BPF program that lets every device pass."""
    prog_load, cgroup_device = 5, 15
    code = (ctypes.c_uint64 * 2)(0x00000001000000B7, 0x0000000000000095)  # r0 = 1; exit
    gpl = ctypes.create_string_buffer(b"Apache-2.0")
    attr = (ctypes.c_uint64 * 6)(
        cgroup_device | 2 << 32, ctypes.addressof(code), ctypes.addressof(gpl), 0, 0, 0
    )
    return _descriptor(_call("bpf", prog_load, attr, ctypes.sizeof(attr)))


def _project_quota() -> Answer:
    q_getfmt, project = 0x800004, 2
    return _answer(_libc.quotactl(q_getfmt << 8 | project, b"/proc/none", 0, None))


def _link(kind: str) -> Callable[[], Answer]:
    return lambda: _probe_netlink.link(kind)


_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER = 0x00020000, 0x04000000, 0x08000000, 0x10000000
_NEWPID, _NEWNET = 0x20000000, 0x40000000
_FILTER = 1  # SECCOMP_SET_MODE_FILTER
_ASK: dict[str, Callable[[], Answer | None]] = {
    "syscalls.pidfd_open": lambda: _descriptor(_call("pidfd_open", os.getpid(), 0)),
    "syscalls.waitid_P_PIDFD": lambda: _call("waitid", 3, _BAD_FD, None, 4 | 1, None),
    "syscalls.pidfd_send_signal": lambda: _call("pidfd_send_signal", -1, 0, None, 0),
    "syscalls.pidfd_getfd": lambda: _call("pidfd_getfd", -1, 0, 0),
    "syscalls.setns_pidfd": _setns_pidfd,
    "syscalls.clone3_null": lambda: _call("clone3", None, 0),
    "syscalls.close_range": lambda: _call("close_range", _BAD_FD, _BAD_FD, 0),
    "syscalls.close_range_cloexec": lambda: _call("close_range", _BAD_FD, _BAD_FD, 4),
    "syscalls.openat2": lambda: _call("openat2", _AT_FDCWD, b"/", None, 0),
    "syscalls.memfd_create": lambda: _call("memfd_create", None, 0),
    "syscalls.memfd_create_exec": lambda: _call("memfd_create", None, 0x10),
    "syscalls.execveat": lambda: _call("execveat", -1, b"x", None, None, 0),
    "syscalls.statx": lambda: _call("statx", -1, None, 0, 0, None),
    "syscalls.landlock_create_ruleset": lambda: _call("landlock_create_ruleset", None, 0, 1),
    "syscalls.quotactl_fd": lambda: _call("quotactl_fd", -1, 0x800004 << 8, 0, None),
    "syscalls.getrandom": lambda: _call("getrandom", ctypes.create_string_buffer(1), 1, 1),
    "syscalls.renameat2_0": lambda: _call("renameat2", -1, b"", -1, b"", 0xFF),
    "syscalls.copy_file_range": lambda: _call("copy_file_range", -1, None, -1, None, 0, 0),
    "syscalls.add_key": lambda: _call("add_key", None, None, None, 0, 0),
    "syscalls.inotify_init1": lambda: _descriptor(
        _answer(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
    ),
    "syscalls.open_O_TMPFILE": _o_tmpfile,
    "syscalls.fchdir_o_path": _fchdir_o_path,
    "syscalls.quotactl_project": _project_quota,
    "ioctl.TIOCGPTPEER": _tiocgptpeer,
    "prctl.get_no_new_privs": lambda: _prctl(39),
    "prctl.get_child_subreaper": lambda: _prctl(37, _address_of_int()),
    "prctl.cap_ambient": lambda: _prctl(47, 1),
    "seccomp.prctl_get_seccomp": lambda: _prctl(21),
    "seccomp.prctl_mode_filter_null": lambda: _prctl(22, 2),
    "seccomp.seccomp_filter": lambda: _call("seccomp", _FILTER, 0, None),
    "seccomp.seccomp_log": lambda: _call("seccomp", _FILTER, 2, None),
    "seccomp.seccomp_tsync": lambda: _call("seccomp", _FILTER, 1, None),
    "seccomp.seccomp_spec_allow": lambda: _call("seccomp", _FILTER, 4, None),
    "seccomp.seccomp_new_listener": lambda: _call("seccomp", _FILTER, 8, None),
    "seccomp.seccomp_tsync_esrch": lambda: _call("seccomp", _FILTER, 16, None),
    # only with NEW_LISTENER
    "seccomp.seccomp_wait_killable_recv": lambda: _call("seccomp", _FILTER, 32 | 8, None),
    "seccomp.action_ERRNO": _action(0x00050000),
    "seccomp.action_LOG": _action(0x7FFC0000),
    "seccomp.action_USER_NOTIF": _action(0x7FC00000),
    "seccomp.action_KILL_PROCESS": _action(0x80000000),
    "clone.mnt": lambda: _clone(_NEWNS),
    "clone.uts": lambda: _clone(_NEWUTS),
    "clone.ipc": lambda: _clone(_NEWIPC),
    "clone.user": lambda: _clone(_NEWUSER),
    "clone.pid": lambda: _clone(_NEWPID),
    "clone.net": lambda: _clone(_NEWNET),
    "syscalls.finit_module": lambda: _call("finit_module", -1, b"", 0),
    "mount.tmpfs_xattr_user": lambda: _apart(_tmpfs_xattr),
    "unshare.pid": lambda: _apart(lambda: _unshare(_NEWPID)),
    "unshare.unpriv_user": lambda: _apart(_unshare_as_nobody),
    "mount.overlay_userns": lambda: _apart(_overlay_in_userns),
    "mount.open_tree_clone": lambda: _call("open_tree", -1, b"", 1),
    "mount.move_mount_bad": lambda: _call("move_mount", -1, b"", -1, b"", 0),
    "mount.overlay": lambda: _mount("overlay", ""),
    # directories that are there, on file systems that every overlay takes
    "mount.overlay_multilower": lambda: _mount("overlay", "lowerdir=/dev:/dev/pts"),
    "mount.overlay_volatile": lambda: _mount("overlay", "lowerdir=/dev:/dev/pts,volatile"),
    "mount.overlayfs_old_name": lambda: _mount("overlayfs", ""),
    "mount.fsopen_tmpfs": lambda: _call("fsopen", None, 0),
    "mount.mount_setattr_bad": lambda: _call("mount_setattr", -1, b"", 0, None, 0),
    "mount.idmapped_root": _idmapped,
    "bpf.prog_cgroup_device": _device_program,
    "net.link_veth": _link("veth"),
    "net.link_bridge": _link("bridge"),
    "net.link_macvlan": _link("macvlan"),
    "net.link_ipvlan": _link("ipvlan"),
    "net.link_vlan": _link("vlan"),
    "net.link_vxlan": _link("vxlan"),
    "net.link_dummy": _link("dummy"),
    "net.nft_getgen": _probe_netlink.nft_getgen,
    "net.nft_batch": _probe_netlink.nft_batch,
    "abi.page_size": lambda: Answer(os.sysconf("SC_PAGE_SIZE")),
    "abi.word_bits": lambda: Answer(64 if sys.maxsize > 1 << 32 else 32),
    "time64.clock_gettime64": _time64,
    **{f"devices.{path}": _device(path) for path in DEVICES},
}

_number = ctypes.c_int()


def _address_of_int() -> int:
    return ctypes.addressof(_number)


def ask(name: str) -> Answer | None:
    """Answer of the call, or None when it is not one of these or has no number here."""
    call = _ASK.get(name)
    if call is None:
        return None
    ctypes.set_errno(0)
    try:
        return call()
    except (KeyError, AttributeError):
        # no call number for this architecture, or no such function in this C library
        return None
