"""ELF files of a few instructions, for what must run where no library is."""

from __future__ import annotations

import struct

__all__ = ["BASE", "HEADERS", "elf_program", "headers"]

BASE = 0x400000
"""Where the file is loaded."""
HEADERS = 64 + 56
"""Bytes of the two headers of a 64-bit file: data begins behind them."""


def headers(bits: int) -> int:
    """Bytes of the two headers (elf(5)) of a file of this class."""
    return HEADERS if bits == 64 else 52 + 32


def elf_program(
    machine: int,
    data: bytes,
    code: bytes,
    *,
    bits: int = 64,
    flags: int = 0,
    align: int = 0x10000,
) -> bytes:
    """A static executable of one read-only segment: ``data``, then ``code``, which is entered.

    ``machine`` and ``flags`` are ELF's e_machine and e_flags; the file is little endian.
    The address of ``data`` is ``BASE + headers(bits)``; its length must be a multiple of 4.
    ``align`` is at least the size of a page, which is up to 64 KiB.
    """
    before = headers(bits)
    size = before + len(data) + len(code)
    entry = BASE + before + len(data)
    wide = bits == 64
    word = "Q" if wide else "I"
    ident = b"\x7fELF" + bytes((2 if wide else 1, 1, 1)) + bytes(9)
    sizes = (64, 56) if wide else (52, 32)
    header = struct.pack(
        f"<16sHHI{word}{word}{word}IHHHHHH",
        ident,
        *(2, machine, 1, entry, sizes[0], 0, flags, *sizes, 1, 0, 0, 0),
    )
    # PT_LOAD, readable and executable; p_flags has another place in each class
    if wide:
        segment = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, align)
    else:
        segment = struct.pack("<IIIIIIII", 1, 0, BASE, BASE, size, size, 5, align)
    return header + segment + data + code
