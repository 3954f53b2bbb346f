"""Runs one process in a running LXC container, then leaves it to the daemon.

A short-lived helper program, started per exec: it asks liblxc (ABI of ``lxc/lxccontainer.h``
and ``lxc/attach_options.h``, LXC 5 and later) to enter the container's namespaces and
cgroup, drop to its capabilities, LSM label, no_new_privs and seccomp filter, set
supplementary groups, uid and gid, and executes the command with the umask and the ambient
capabilities of the container.  The ``lxc-attach`` tool can do neither of these, nor working
directory and groups.

The helper then ends; the process becomes a child of the daemon, a child subreaper, which
waits for it.  Request: one CBOR frame on descriptor 0.  Answer: one on descriptor 1,
``{"pid": N}`` or ``{"errno": N, "step": text}``.  Descriptors 3, 4, 5 become 0, 1, 2 of the
process.

The helper makes itself non-dumpable before it enters: the container must not reach the
host's interpreter through /proc/PID/exe (the attack of CVE-2019-5736).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

from isula_edge import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["main"]

_CLEAR_ENV = 1
_DEFAULT_FLAGS = 0x0000FFFF
_LSM_EXEC = 0x00000008
_SETGROUPS = 0x00200000
_DETECT = -1
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAPABILITY_VERSION_3 = 0x20080522
_STEPS = {
    b"u": "take the user's capabilities",
    b"c": "change to the working directory",
    b"x": "execute",
}
_ATTACH_SLOT = 36
"""Index of ``attach`` among the function pointers of struct lxc_container."""


class _Groups(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("list", ctypes.POINTER(ctypes.c_uint32)))


class _Options(ctypes.Structure):
    _fields_ = (
        ("attach_flags", ctypes.c_int),
        ("namespaces", ctypes.c_int),
        ("personality", ctypes.c_long),
        ("initial_cwd", ctypes.c_char_p),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("env_policy", ctypes.c_int),
        ("extra_env_vars", ctypes.c_void_p),
        ("extra_keep_env", ctypes.c_void_p),
        ("stdin_fd", ctypes.c_int),
        ("stdout_fd", ctypes.c_int),
        ("stderr_fd", ctypes.c_int),
        ("log_fd", ctypes.c_int),
        ("lsm_label", ctypes.c_char_p),
        ("groups", _Groups),
    )


class _Container(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("configfile", ctypes.c_char_p),
        ("pidfile", ctypes.c_char_p),
        ("slock", ctypes.c_void_p),
        ("privlock", ctypes.c_void_p),
        ("numthreads", ctypes.c_int),
        ("lxc_conf", ctypes.c_void_p),
        ("error_string", ctypes.c_char_p),
        ("error_num", ctypes.c_int),
        ("daemonize", ctypes.c_bool),
        ("config_path", ctypes.c_char_p),
        ("methods", ctypes.c_void_p * (_ATTACH_SLOT + 1)),
    )


_EXEC_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_ATTACH = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.POINTER(_Container),
    _EXEC_FUNCTION,
    ctypes.c_void_p,
    ctypes.POINTER(_Options),
    ctypes.POINTER(ctypes.c_int),
)


def _answer(value: dict[str, Any]) -> None:
    os.write(1, wire.pack(value))


def _enter(path: str) -> None:
    """Changes to ``path``, which is made when it is missing, as iSulad does."""
    try:
        os.chdir(path)
    except FileNotFoundError:
        os.makedirs(path, 0o755, exist_ok=True)
        os.chdir(path)


def _execute(argv: list[str], env: dict[str, str]) -> int:
    """Tries ``argv`` along the container's PATH; the errno of the failure that counts."""
    program = argv[0]
    if "/" in program:
        candidates = [program]
    else:
        candidates = [
            f"{part or '.'}/{program}" for part in env.get("PATH", "/bin:/usr/bin").split(":")
        ]
    worst = 2
    for path in candidates:
        try:
            os.execve(path, argv, env)
        except OSError as error:
            number = error.errno or 2
            if number not in (2, 20):
                worst = number
                if number != 13:
                    break
    return worst


def _prepare(request: dict[str, Any]) -> None:
    """What liblxc has no option for: the umask, and a user with ambient capabilities."""
    if request["umask"] is not None:
        os.umask(request["umask"])
    ambient = request["ambient"]
    if not ambient:
        return
    library = ctypes.CDLL(None, use_errno=True)
    uid = request["uid"]
    wanted = sum(1 << number for number in ambient)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # effective, permitted, inheritable, each of 32 capabilities, then those of the others
    sets = (ctypes.c_uint32 * 6)()
    _check(library.capget(header, sets))
    if uid:
        for fd in range(3):
            # as liblxc does: whoever opens /dev/stdout again is another user now
            with contextlib.suppress(OSError):
                os.fchown(fd, uid, -1)
        _check(_prctl(library, _PR_SET_KEEPCAPS, 1))
        os.setresuid(uid, uid, uid)
    for half in range(2):
        part = wanted >> 32 * half & 0xFFFFFFFF
        for number in (0, 1):
            sets[3 * half + number] = part if uid else sets[3 * half + number] | part
        sets[3 * half + 2] = part
    _check(library.capset(header, sets))
    for number in ambient:
        _check(_prctl(library, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number))


def _prctl(library: Any, option: int, *args: int) -> int:
    words = [ctypes.c_ulong(word) for word in (*args, 0, 0, 0, 0)[:4]]
    return int(library.prctl(option, *words))


def _check(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "capabilities")


def main() -> int:
    """Serves the one request."""
    size = int.from_bytes(os.read(0, 4), "big")
    data = b""
    while len(data) < size:
        chunk = os.read(0, size - len(data))
        if not chunk:
            return 1
        data += chunk
    request = wire.decode(data)
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    try:
        library = ctypes.CDLL("liblxc.so.1", use_errno=True)
    except OSError as error:
        _answer({"errno": 38, "step": f"load liblxc: {error}"})
        return 1
    library.lxc_container_new.restype = ctypes.POINTER(_Container)
    library.lxc_container_new.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
    container = library.lxc_container_new(
        os.fsencode(request["name"]), os.fsencode(request["path"])
    )
    if not container:
        _answer({"errno": 2, "step": "open the container"})
        return 1
    return _attach(container, request)


def _attach(container: Any, request: dict[str, Any]) -> int:
    argv = [os.fsencode(word) for word in request["argv"]]
    env = dict(pair.partition("=")[::2] for pair in request["env"])
    read_fd, write_fd = os.pipe()  # close-on-exec: end of file means executed

    def run(_payload: int | None) -> int:
        step = b"u"
        try:
            os.close(read_fd)
            _prepare(request)
            step = b"c"
            if request["cwd"] != "/":
                _enter(request["cwd"])
            number = _execute([os.fsdecode(word) for word in argv], env)
        except OSError as error:
            os.write(write_fd, step + b"%d" % (error.errno or 5))
            return 126
        os.write(write_fd, b"x%d" % number)
        return 127

    groups = request["groups"]
    array = (ctypes.c_uint32 * len(groups))(*groups)
    flags = _DEFAULT_FLAGS | (_SETGROUPS if groups else 0)
    if not request["lsm"]:
        flags &= ~_LSM_EXEC
    options = _Options(
        attach_flags=flags,
        namespaces=-1,
        personality=_DETECT,
        initial_cwd=b"/",
        # with ambient capabilities _prepare changes it, since liblxc would lose them
        uid=0 if request["ambient"] else request["uid"],
        gid=request["gid"],
        env_policy=_CLEAR_ENV,
        stdin_fd=3,
        stdout_fd=4,
        stderr_fd=5,
        log_fd=-1,
        groups=_Groups(len(groups), array),
    )
    pid = ctypes.c_int(0)
    attach = _ATTACH(container.contents.methods[_ATTACH_SLOT])
    if attach(container, _EXEC_FUNCTION(run), None, ctypes.byref(options), ctypes.byref(pid)) < 0:
        _answer({"errno": ctypes.get_errno() or 5, "step": "enter the container"})
        return 1
    os.close(write_fd)
    failed = os.read(read_fd, 64)
    if failed:
        os.waitpid(pid.value, 0)
        _answer({"errno": int(failed[1:]), "step": _STEPS[failed[:1]]})
        return 1
    _answer({"pid": pid.value})
    return 0


if __name__ == "__main__":
    sys.exit(main())
