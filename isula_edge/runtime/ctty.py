"""A program of about 250 bytes that gives a container's init its controlling terminal.

Stock LXC calls setsid(2) for init and leaves it without a controlling terminal, so a shell
says "can't access tty; job control turned off"; and it switches the outer terminal to
ONLCR while it starts, which doubles every carriage return.  For containers with a terminal
this program is what LXC executes.  It waits at :data:`GATE` until the daemon has set the
outer terminal to raw, does ioctl(0, TIOCSCTTY, 0) and executes its arguments in the same
process, which stays pid 1.  It must run in any root file system, hence no interpreter and
no library: the few instructions are assembled here, per architecture.
"""

from __future__ import annotations

import errno
import os
import struct

from isula_edge import errors
from isula_edge.sys import atomic
from isula_edge.sys.elf_program import BASE, HEADERS, elf_program

__all__ = ["GATE", "MACHINES", "NAME", "build", "install"]

NAME = "isula-ctty"
"""The program's name inside a container."""
GATE = "/dev/isula-gate"
"""The FIFO it reads one byte from before it goes on; absent is fine."""

_TIOCSCTTY = 0x540E


def _x86_64(path: int) -> bytes:
    code = bytes.fromhex("bf9cffffff") + b"\xbe" + struct.pack("<I", path)  # AT_FDCWD, path
    code += b"\xba" + struct.pack("<I", os.O_CLOEXEC)  # O_RDONLY | O_CLOEXEC
    code += bytes.fromhex("b801010000 0f05")  # openat
    code += bytes.fromhex("89c7 488d742480 ba01000000 31c0 0f05")  # read(fd, sp - 128, 1)
    code += bytes.fromhex("31ff") + b"\xbe" + struct.pack("<I", _TIOCSCTTY)  # edi=0; request
    code += bytes.fromhex("31d2 b810000000 0f05")  # edx=0; ioctl
    code += bytes.fromhex("488b7c2410")  # rdi = argv[1]
    code += bytes.fromhex("488d742410")  # rsi = &argv[1]
    code += bytes.fromhex("488b0c24 488d54cc10")  # rdx = envp = rsp + 16 + 8 * argc
    code += bytes.fromhex("b83b000000 0f05")  # execve
    code += bytes.fromhex("bf7f000000")  # edi = 127
    code += bytes.fromhex("83f8f3 7505 bf7e000000")  # 126 for -EACCES
    return code + bytes.fromhex("b8e7000000 0f05")  # exit_group


def _aarch64(path: int) -> bytes:
    def movz(register: int, value: int) -> int:
        return 0xD2800000 | (value << 5) | register

    def movk16(register: int, value: int) -> int:
        return 0xF2A00000 | (value << 5) | register

    svc = 0xD4000001
    words = [
        0x92800C60,  # mov x0, #-100          AT_FDCWD
        movz(1, path & 0xFFFF), movk16(1, path >> 16),
        movz(2, os.O_CLOEXEC & 0xFFFF), movk16(2, os.O_CLOEXEC >> 16), movz(8, 56), svc,  # openat
        0xD10203E1,  # sub x1, sp, #128
        movz(2, 1), movz(8, 63), svc,  # read
        movz(0, 0), movz(1, _TIOCSCTTY), movz(2, 0), movz(8, 29), svc,  # ioctl
        0xF94003E3,  # ldr x3, [sp]           argc
        0x910043E1,  # add x1, sp, #16        &argv[1]
        0xF9400BE0,  # ldr x0, [sp, #16]      argv[1]
        0x8B030C22,  # add x2, x1, x3, lsl #3 envp
        movz(8, 221), svc,  # execve
        0xB100341F,  # cmn x0, #13            -EACCES?
        movz(0, 127), movz(1, 126),
        0x9A800020,  # csel x0, x1, x0, eq
        movz(8, 94), svc,  # exit_group
    ]  # fmt: skip
    return struct.pack(f"<{len(words)}I", *words)


MACHINES = {"x86_64": (62, _x86_64), "aarch64": (183, _aarch64)}
"""uname's machine word -> (ELF e_machine, assembler)."""


def build(machine: str) -> bytes:
    """The ELF file for ``machine``; Unimplemented for one without code here."""
    if machine not in MACHINES:
        raise errors.Unimplemented(
            f"runtime lxc has no terminal helper for {machine}",
            kind="architecture",
            ref=machine,
            hint="use --runtime runc for containers with a terminal",
        )
    number, assemble = MACHINES[machine]
    # the path lies between headers and code, so its address is known beforehand
    path = GATE.encode() + b"\0" * (16 - len(GATE) % 16)
    return elf_program(number, path, assemble(BASE + HEADERS))


def install(folder: str, machine: str) -> str:
    """Writes the helper into ``folder`` when it is not there yet; its path.

    ``folder`` must be on a file system that is not mounted noexec.
    """
    path = f"{folder}/ctty-{machine}"
    data = build(machine)
    try:
        with open(path, "rb") as file:
            if file.read() == data:
                return path
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
    atomic.make_dir(folder, 0o755)
    atomic.write(path, data, 0o755)
    os.chmod(path, 0o755)  # noqa: S103  # any user of a container runs it
    return path
