"""The process that holds a pod's shared process id namespace: 4 KiB of memory, no image.

Only a pod whose containers share one process id namespace needs a process.  The program
clones a child into a new process id namespace and writes the child's pid, four bytes, to
its standard output.  The child, process 1 there, gives up its user ids and with them every
capability, ignores SIGCHLD, so that the kernel reaps whatever becomes its child, and
sleeps until it is killed.
"""

from __future__ import annotations

import os
import struct

from isula_edge import errors
from isula_edge.sys.elf_program import BASE, HEADERS, elf_program

__all__ = ["MACHINES", "build"]

_CLONE_FLAGS = 0x20000000 | 17  # CLONE_NEWPID, SIGCHLD
_NOBODY = 65534
_PR_SET_NO_NEW_PRIVS = 38
_SIGCHLD = 17
_IGNORE = struct.pack("<4Q", 1, 0, 0, 0)
"""The kernel's struct sigaction: SIG_IGN."""


def _x86_64(action: int) -> bytes:
    def call(number: int, *words: int) -> bytes:
        """mov edi, esi, edx, r10d; mov eax; syscall."""
        moves = (b"\xbf", b"\xbe", b"\xba", b"\x41\xba")
        code = b"".join(
            move + struct.pack("<I", word) for move, word in zip(moves, words, strict=False)
        )
        return code + b"\xb8" + struct.pack("<I", number) + bytes.fromhex("0f05")

    child = (
        call(3, 1)  # close(1)
        + call(116, 0, 0)  # setgroups(0, NULL)
        + call(119, _NOBODY, _NOBODY, _NOBODY)  # setresgid
        + call(117, _NOBODY, _NOBODY, _NOBODY)  # setresuid
        + call(157, _PR_SET_NO_NEW_PRIVS, 1, 0, 0)
        + call(13, _SIGCHLD, action, 0, 8)  # rt_sigaction
        + bytes.fromhex("b822000000 0f05 ebf7")  # pause(); again
    )
    parent = (
        bytes.fromhex("50 4889e6")  # push rax; mov rsi, rsp
        + bytes.fromhex("bf01000000 ba04000000 b801000000 0f05")  # write(1, rsp, 4)
        + call(231, 0)  # exit_group(0)
    )
    # clone(flags, 0, 0, 0); a fifth argument is not read without CLONE_SETTLS
    head = call(56, _CLONE_FLAGS, 0, 0, 0) + bytes.fromhex("85c0 74") + bytes([len(parent)])
    return head + parent + child


def _aarch64(action: int) -> bytes:
    def movz(register: int, value: int) -> int:
        return 0xD2800000 | (value << 5) | register

    def load(register: int, value: int) -> list[int]:
        words = [movz(register, value & 0xFFFF)]
        if value >> 16:
            words.append(0xF2A00000 | ((value >> 16) << 5) | register)
        return words

    def call(number: int, *values: int) -> list[int]:
        words = [word for place, value in enumerate(values) for word in load(place, value)]
        return [*words, movz(8, number), 0xD4000001]

    child = [
        *call(57, 1),  # close
        *call(159, 0, 0),
        *call(149, _NOBODY, _NOBODY, _NOBODY),
        *call(147, _NOBODY, _NOBODY, _NOBODY),
        *call(167, _PR_SET_NO_NEW_PRIVS, 1, 0, 0),
        *call(134, _SIGCHLD, action, 0, 8),
    ]
    sleep = call(73, 0, 0, 0, 0)  # ppoll(NULL, 0, NULL, NULL)
    sleep.append(0x14000000 | (-len(sleep) & 0x3FFFFFF))  # b: again
    parent = [
        0xD10043FF,  # sub sp, sp, #16
        0xB90003E0,  # str w0, [sp]
        *load(0, 1),
        0x910003E1,  # mov x1, sp
        *load(2, 4),
        *(movz(8, 64), 0xD4000001),  # write
        *call(94, 0),
    ]
    head = [
        *call(220, _CLONE_FLAGS, 0, 0, 0, 0),
        0x34000000 | ((len(parent) + 1) << 5),  # cbz w0, child
    ]
    words = [*head, *parent, *child, *sleep]
    return struct.pack(f"<{len(words)}I", *words)


MACHINES = {"x86_64": (62, _x86_64), "aarch64": (183, _aarch64)}
"""uname's machine word -> (ELF e_machine, assembler)."""


def build(machine: str = "") -> bytes:
    """The ELF file for ``machine`` ('' is this one); Unimplemented for one without code here."""
    machine = machine or os.uname().machine
    if machine not in MACHINES:
        raise errors.Unimplemented(
            f"pods with one process id namespace cannot be had on {machine}",
            kind="architecture",
            ref=machine,
            hint="set shareProcessNamespace to false",
        )
    number, assemble = MACHINES[machine]
    return elf_program(number, _IGNORE, assemble(BASE + HEADERS))
