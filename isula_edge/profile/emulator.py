"""Emulators that the kernel starts for programs of other architectures (binfmt_misc)."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass

from isula_edge.profile.profile import all_profiles

__all__ = ["Entry", "advice", "entries", "handles", "registered"]

BINFMT = "/proc/sys/fs/binfmt_misc"
# what runs programs for a processor's 32-bit state, which a profile's emulator does not
_EMULATORS_32 = {"EM_386": "qemu-i386", "EM_ARM": "qemu-arm"}


@dataclass(frozen=True, slots=True)
class Entry:
    """An enabled entry: programs whose bytes match are run by ``path``."""

    name: str
    path: str
    flags: str
    offset: int
    magic: bytes
    mask: bytes

    def matches(self, data: bytes) -> bool:
        """Whether a file that begins with ``data`` is run by it."""
        part = data[self.offset : self.offset + len(self.magic)]
        return len(part) == len(self.magic) and all(
            got & mask == want & mask
            for got, want, mask in zip(part, self.magic, self.mask, strict=True)
        )


def _parse(name: str, text: str) -> Entry | None:
    fields = dict(line.partition(" ")[::2] for line in text.splitlines() if " " in line)
    if not text.startswith("enabled") or "magic" not in fields:
        return None
    try:
        magic = bytes.fromhex(fields["magic"])
        mask = bytes.fromhex(fields["mask"]) if "mask" in fields else b"\xff" * len(magic)
        flags = re.search(r"^flags: ?(\w*)", text, re.MULTILINE)
        return Entry(
            name,
            fields.get("interpreter", ""),
            flags[1] if flags else "",
            int(fields.get("offset", "0")),
            magic,
            mask,
        )
    except ValueError:
        return None


def entries(folder: str = "") -> list[Entry]:
    """Every enabled entry with a magic number; none where binfmt_misc is not mounted."""
    top = folder or BINFMT
    names: list[str] = []
    with contextlib.suppress(OSError):
        if folder or _on():
            names = sorted(set(os.listdir(top)) - {"register", "status"})
    found = []
    for name in names:
        # one that is taken away meanwhile holds up no other
        with (
            contextlib.suppress(OSError),
            open(f"{top}/{name}", encoding="ascii", errors="replace") as file,
        ):
            entry = _parse(name, file.read())
            if entry is not None:
                found.append(entry)
    return found


def _on() -> bool:
    with open(f"{BINFMT}/status", encoding="ascii") as file:
        return file.read().startswith("enabled")


def handles(data: bytes, folder: str = "") -> bool:
    """Whether the kernel has an emulator for a program that begins with ``data``."""
    return any(entry.matches(data) for entry in entries(folder))


def registered(folder: str = "") -> list[tuple[str, Entry]]:
    """Architectures (GOARCH words) of our profiles that the kernel emulates, with the entry."""
    found = []
    known = entries(folder)
    for profile in all_profiles():
        for entry in known:
            if entry.matches(_sample(profile.native[0])):
                found.append((profile.architecture, entry))
                break
    return found


def _sample(native: tuple[str, int]) -> bytes:
    """The first bytes of an executable for a processor."""
    from elftools.elf.enums import ENUM_E_MACHINE

    machine, bits = native
    ident = b"\x7fELF" + bytes((bits // 32, 1, 1)) + bytes(9)
    return ident + b"\x02\x00" + int(ENUM_E_MACHINE[machine]).to_bytes(2, "little") + bytes(44)


def advice(machine: str, bits: int) -> str:
    """What to do so that programs for ``machine`` run."""
    for profile in all_profiles():
        if (machine, bits) in profile.native:
            program = _EMULATORS_32.get(machine, profile.emulator)
            return (
                f"register {program}-static in binfmt_misc with the flags F and OC "
                "(package qemu-user-static), or pull the image for this platform"
            )
    return "pull the image for this platform"
