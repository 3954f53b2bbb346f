"""ELF files of a few instructions, for what must run where no library is."""

from __future__ import annotations

import struct

__all__ = ["BASE", "HEADERS", "elf_program"]

BASE = 0x400000
"""Where the file is loaded."""
HEADERS = 64 + 56
"""Bytes of the two headers: data begins behind them."""


def elf_program(machine: int, data: bytes, code: bytes) -> bytes:
    """A static executable of one read-only segment: ``data``, then ``code``, which is entered.

    ``machine`` is ELF's e_machine.  The address of ``data`` is ``BASE + HEADERS``; its
    length must be a multiple of 4.
    """
    size = HEADERS + len(data) + len(code)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01" + bytes(9),
        *(2, machine, 1, BASE + HEADERS + len(data), 64, 0, 0, 64, 56, 1, 0, 0, 0),
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 0x10000)
    return header + segment + data + code
