"""A sandbox around the engine that answers EPERM to system calls newer than itself.

Seccomp filters of some years ago do that (of container engines and of service managers), and
C libraries, runtimes and programs in images take EPERM for an answer and ENOSYS for "use the
older call": with clone3(2) refused glibc starts no thread.  Of two filters that answer an errno
the later one decides, so another filter turns EPERM into ENOSYS, for the engine and all that
it starts.  Nothing is allowed by it that was not before.
"""

from __future__ import annotations

import ctypes
import errno
import struct

from isula_edge.sys import syscalls

__all__ = ["refused_as_absent"]

_SINCE_5_1 = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "faccessat2": 439,
    "epoll_pwait2": 441,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "fchmodat2": 452,
}
"""Every architecture has the same numbers since Linux 5.1."""
_OLDER = ("statx", "memfd_create", "getrandom", "renameat2", "copy_file_range")
_GENERIC = (291, 279, 278, 276, 285)
_BY_MACHINE = {
    3: (383, 356, 355, 353, 377),
    40: (397, 385, 384, 382, 391),
    62: (332, 319, 318, 316, 326),
    183: _GENERIC,
    243: _GENERIC,
    258: _GENERIC,
}
"""By e_machine of elf.h: i386, arm, x86_64, aarch64, riscv, loongarch."""

_CAP_SYS_ADMIN = 21
_PR_SET_SECCOMP = 22
_FILTER = 2
# classic BPF over struct seccomp_data: number at 0, architecture at 4
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def refused_as_absent() -> list[str]:
    """From now on calls that answer EPERM answer ENOSYS: their names, none on most machines.

    To be called while the process has one thread; filters go to threads and processes made
    later.  Raises OSError where the kernel takes no filter.  Without CAP_SYS_ADMIN nothing is
    done: some of the calls answer EPERM for its lack, and the kernel takes no filter either.
    """
    if not syscalls.effective() >> _CAP_SYS_ADMIN & 1:
        return []
    machine, arch = _architecture()
    numbers = dict(_SINCE_5_1)
    numbers.update(zip(_OLDER, _BY_MACHINE.get(machine, ()), strict=False))
    refused = {name: number for name, number in numbers.items() if _refused(number)}
    if refused:
        _install(arch, list(refused.values()))
    return list(refused)


def _refused(number: int) -> bool:
    """Asks with a descriptor and pointers that every one of the calls finds wrong."""
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_long(word) for word in (number, -1, 0, 0, 0, 0, 0)]
    return libc.syscall(*words) < 0 and ctypes.get_errno() == errno.EPERM


def _architecture() -> tuple[int, int]:
    """e_machine of this program, and its AUDIT_ARCH (linux/audit.h), which is made of it."""
    with open("/proc/self/exe", "rb") as file:
        head = file.read(20)
    little = head[5] == 1
    machine = int.from_bytes(head[18:20], "little" if little else "big")
    return machine, machine | (0x80000000 if head[4] == 2 else 0) | (0x40000000 if little else 0)


def _install(arch: int, numbers: list[int]) -> None:
    code = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, 0)]
    for number in numbers:
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    code.append((_RETURN, 0, 0, _ALLOW))
    data = b"".join(struct.pack("=HBBI", *line) for line in code)
    kept = ctypes.create_string_buffer(data, len(data))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(kept)))
    syscalls.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.addressof(head))
