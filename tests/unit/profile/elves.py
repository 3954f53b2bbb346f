"""ELF files made in memory, just large enough to be looked at."""

from __future__ import annotations

import struct

__all__ = ["AARCH64", "ARM", "I386", "PPC64", "RISCV", "S390", "X86_64", "dynamic", "header"]

I386, S390, PPC64, ARM, X86_64, AARCH64, RISCV = 3, 22, 21, 40, 62, 183, 243


def header(machine: int, bits: int = 64, *, big: bool = False, phnum: int = 0) -> bytes:
    """The header of an executable; ``phnum`` program headers follow it at once."""
    order, word = (">" if big else "<"), ("Q" if bits == 64 else "I")
    ident = b"\x7fELF" + bytes((bits // 32, 2 if big else 1, 1)) + bytes(9)
    ehsize, phentsize = (64, 56) if bits == 64 else (52, 32)
    return ident + struct.pack(
        f"{order}HHI{word}{word}{word}IHHHHHH",
        *(2, machine, 1, 0, ehsize if phnum else 0, 0),
        *(0, ehsize, phentsize, phnum, 0, 0, 0),
    )


def dynamic(machine: int, interpreter: str) -> bytes:
    """A 64-bit little-endian executable with a PT_INTERP segment."""
    text = interpreter.encode() + b"\0"
    at = 64 + 56
    segment = struct.pack("<IIQQQQQQ", 3, 4, at, at, at, len(text), len(text), 1)
    return header(machine, phnum=1) + segment + text
