"""Instructions of programs that make a few system calls and execute another one.

For :func:`isula_edge.sys.elf_program.elf_program`: such a program runs in any root file
system, without an interpreter or a library, in the process that it is to prepare.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MACHINES", "Call", "aarch64", "code", "x86_64"]

MACHINES = {"x86_64": 62, "aarch64": 183}
"""uname's machine word -> ELF's e_machine."""

_NUMBERS = {
    "x86_64": {
        "capset": 126, "fchown": 93, "ioprio_set": 251, "prctl": 157, "sched_setattr": 314,
        "setresuid": 117, "umask": 95,
    },
    "aarch64": {
        "capset": 91, "fchown": 55, "ioprio_set": 30, "prctl": 167, "sched_setattr": 274,
        "setresuid": 147, "umask": 166,
    },
}  # fmt: skip
_EXIT = 126


@dataclass(frozen=True, slots=True)
class Call:
    """A system call with arguments of 32 bits; ``needed`` ends the program when it fails.

    ``said`` is the address and length of what is written to standard error before that.
    """

    name: str
    args: tuple[int, ...]
    needed: bool = True
    said: tuple[int, int] = (0, 0)


def code(machine: str, calls: Sequence[Call], environment: int = 0) -> bytes:
    """``calls``, then execve(argv[1], &argv[1], envp).

    ``environment`` is the address of the table of variables to give, 0 for the program's own.
    The program's exit status is 126 when a call that is needed or the execve fails, 127
    when there is nothing to execute.
    """
    make, execute = {"x86_64": (_x86_64, _x86_64_end), "aarch64": (_aarch64, _aarch64_end)}[machine]
    numbers = _NUMBERS[machine]
    return b"".join(make(numbers[call.name], call) for call in calls) + execute(environment)


def x86_64(number: int, *args: int) -> bytes:
    """A system call with arguments of 32 bits."""
    moves = (b"\xbf", b"\xbe", b"\xba", b"\x41\xba", b"\x41\xb8")  # edi, esi, edx, r10d, r8d
    found = b"".join(
        move + struct.pack("<I", word) for move, word in zip(moves, args, strict=False)
    )
    return found + b"\xb8" + struct.pack("<I", number) + bytes.fromhex("0f05")


def aarch64(number: int, *args: int) -> list[int]:
    """The same; instructions of 32 bits."""
    words = [word for register, value in enumerate(args) for word in _load(register, value)]
    return [*words, _movz(8, number), _SVC]


def _load(register: int, value: int) -> list[int]:
    words = [_movz(register, value & 0xFFFF)]
    if value >> 16:
        words.append(0xF2A00000 | ((value >> 16) << 5) | register)  # movk
    return words


def _movz(register: int, value: int) -> int:
    return 0xD2800000 | (value << 5) | register


_SVC = 0xD4000001


def _x86_64_end(environment: int) -> bytes:
    found = bytes.fromhex("488b7c2410")  # rdi = argv[1]
    found += bytes.fromhex("488d742410")  # rsi = &argv[1]
    if environment:
        found += b"\xba" + struct.pack("<I", environment)  # edx
    else:
        found += bytes.fromhex("488b0c24 488d54cc10")  # rdx = envp = rsp + 16 + 8 * argc
    return found + bytes.fromhex(
        "b83b000000 0f05"  # execve
        "bf7e000000"  # edi = 126
        "83f8fe 7505 bf7f000000"  # 127 for -ENOENT
        "b8e7000000 0f05"  # exit_group
    )


def _x86_64(number: int, call: Call) -> bytes:
    found = x86_64(number, *call.args)
    if call.needed:
        end = x86_64(1, 2, *call.said) if call.said[0] else b""  # write
        end += x86_64(231, _EXIT)  # exit_group
        found += bytes.fromhex("85c0 79") + bytes([len(end)]) + end  # test eax, eax; jns
    return found


def _aarch64(number: int, call: Call) -> bytes:
    words = aarch64(number, *call.args)
    if call.needed:
        end = aarch64(64, 2, *call.said) if call.said[0] else []  # write
        end += aarch64(94, _EXIT)
        words += [0xB6F80000 | (len(end) + 1 << 5), *end]  # tbz x0, #63, behind the end
    return struct.pack(f"<{len(words)}I", *words)


def _aarch64_end(environment: int) -> bytes:
    own = [
        0xF94003E3,  # ldr x3, [sp]           argc
        0x8B030C22,  # add x2, x1, x3, lsl #3 envp
    ]
    words = [
        0x910043E1,  # add x1, sp, #16        &argv[1]
        0xF9400BE0,  # ldr x0, [sp, #16]      argv[1]
        *(_load(2, environment) if environment else own),
        *aarch64(221),  # execve
        0xB100081F,  # cmn x0, #2             -ENOENT?
        _movz(0, _EXIT), _movz(1, 127),
        0x9A800020,  # csel x0, x1, x0, eq
        _movz(8, 94), _SVC,  # exit_group
    ]  # fmt: skip
    return struct.pack(f"<{len(words)}I", *words)
