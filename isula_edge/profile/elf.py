"""Whether the machine can run a program, asked before it is tried (case A31k).

The kernel's own answer, "Exec format error", says neither what the program is for nor what
is missing.
"""

from __future__ import annotations

import functools
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from isula_edge import errors
from isula_edge.profile import emulator
from isula_edge.profile.profile import load

if TYPE_CHECKING:
    from isula_edge.profile.profile import Profile

__all__ = ["Header", "check_executable", "interpreter", "read_header"]

_IDENT = 16
_PT_INTERP = 3
_MAX_SEGMENTS = 512
_MAX_PATH = 4096


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes of an ELF file say: ``machine`` as elf.h calls it, and ``bits``."""

    machine: str
    bits: int
    data: bytes

    def __str__(self) -> str:
        return f"{self.machine.removeprefix('EM_').lower()} ({self.bits} bit)"


def read_header(data: bytes) -> Header | None:
    """The header of an ELF file that begins with ``data``; None for another kind of file."""
    if len(data) < 20 or data[:4] != b"\x7fELF" or data[4] not in (1, 2):
        return None
    (number,) = struct.unpack_from(">H" if data[5] == 2 else "<H", data, 18)
    return Header(_machine(number), 32 * data[4], data)


def _machine(number: int) -> str:
    from elftools.elf.enums import ENUM_E_MACHINE

    names = (name for name, value in ENUM_E_MACHINE.items() if value == number)
    return str(next(names, f"EM_{number}"))


def check_executable(path: str, profile: Profile | None = None) -> None:
    """Raises CommandNotExecutable when ``path`` is an ELF file that this machine cannot run.

    Nothing is raised for scripts and for what the kernel may know better (binfmt_misc).
    """
    machine = profile or load()
    try:
        with open(path, "rb") as file:
            data = file.read(128)
    except OSError:
        return
    if data[:4] != b"\x7fELF" or (data[4:6], data[18:20]) == _own():
        return
    header = read_header(data)
    if header is None or (header.machine, header.bits) in machine.native:
        return
    if emulator.handles(data):
        return
    raise errors.CommandNotExecutable(
        f"exec format error: {os.path.basename(path)} is a program for {header}, "
        f"this machine is {os.uname().machine}",
        kind="command",
        ref=path,
        hint=emulator.advice(header.machine, header.bits),
    )


@functools.cache
def _own() -> tuple[bytes, bytes]:
    """EI_CLASS with EI_DATA, and e_machine, of the engine's own interpreter."""
    with open("/proc/self/exe", "rb") as file:
        data = file.read(20)
    return data[4:6], data[18:20]


def interpreter(path: str) -> str:
    """The program interpreter (PT_INTERP) or, of a script, what its first line names; ''.

    Read by hand (elf(5)): every start of a container asks, and it is a few bytes.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(256)
            if head[:2] == b"#!":
                words = head[2:].partition(b"\n")[0].split()
                return os.fsdecode(words[0]) if words else ""
            return _loader(file, head)
    except (OSError, ValueError, struct.error, OverflowError):
        # a damaged file: places beyond its end, or beyond all files
        return ""


def _loader(file: BinaryIO, head: bytes) -> str:
    if len(head) < 52 or head[:4] != b"\x7fELF" or head[4] not in (1, 2):
        return ""
    order, wide = (">" if head[5] == 2 else "<"), head[4] == 2
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)
    size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
    layout = order + ("IIQQQQ" if wide else "IIIII")
    for number in range(min(count, _MAX_SEGMENTS)):
        file.seek(table + number * size)
        fields = struct.unpack(layout, file.read(struct.calcsize(layout)))
        if fields[0] == _PT_INTERP:
            at, length = (fields[2], fields[5]) if wide else (fields[1], fields[4])
            if length > _MAX_PATH:
                return ""
            file.seek(at)
            return file.read(length).partition(b"\0")[0].decode()
    return ""
