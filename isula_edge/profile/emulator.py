"""Emulators that the kernel starts for programs of other architectures (binfmt_misc)."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isula_edge.profile.profile import all_profiles

if TYPE_CHECKING:
    from isula_edge.profile.profile import Profile

__all__ = ["Entry", "advice", "entries", "handles", "pattern", "registered", "sample"]

BINFMT = "/proc/sys/fs/binfmt_misc"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry: programs whose bytes match are run by ``path``, if it is ``enabled``."""

    name: str
    path: str
    flags: str
    offset: int
    magic: bytes
    mask: bytes
    enabled: bool = True

    @property
    def held_open(self) -> bool:
        """Whether the emulator was opened when it was registered (flag F, Linux 4.8).

        Without, the kernel looks for it in each container's own root file system.
        """
        return "F" in self.flags

    def matches(self, data: bytes) -> bool:
        """Whether a file that begins with ``data`` is run by it."""
        part = data[self.offset : self.offset + len(self.magic)]
        return len(part) == len(self.magic) and all(
            got & mask == want & mask
            for got, want, mask in zip(part, self.magic, self.mask, strict=True)
        )


def _parse(name: str, text: str) -> Entry | None:
    fields = dict(line.partition(" ")[::2] for line in text.splitlines() if " " in line)
    if not text.startswith(("enabled", "disabled")) or "magic" not in fields:
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
            text.startswith("enabled"),
        )
    except ValueError:
        return None


def entries(folder: str = "", *, disabled: bool = False) -> list[Entry]:
    """Every enabled entry with a magic number; none where binfmt_misc is not mounted.

    With ``disabled`` also those that are switched off.
    """
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
            if entry is not None and (entry.enabled or disabled):
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
            if entry.matches(sample(profile)):
                found.append((profile.architecture, entry))
                break
    return found


def pattern(profile: Profile) -> tuple[bytes, bytes]:
    """Magic number and mask of the executables of a profile's architecture.

    An ELF file of its class and byte order, whatever its ABI's name; e_type is ET_EXEC or
    ET_DYN (position independent); the machine (elf(5)).
    """
    ident = b"\x7fELF" + bytes((profile.elf[1] // 32, 1, 1)) + bytes(9)
    magic = ident + b"\x02\x00" + profile.elf_machine.to_bytes(2, "little")
    return magic, b"\xff" * 7 + b"\x00" + b"\xff" * 8 + b"\xfe\xff\xff\xff"


def sample(profile: Profile) -> bytes:
    """The first bytes of an executable of a profile's architecture."""
    return pattern(profile)[0] + bytes(44)


def advice(machine: str, bits: int) -> str:
    """What to do so that programs for ``machine`` run."""
    for profile in all_profiles():
        if (machine, bits) == profile.elf:
            name, package = f"{profile.emulator}-static", profile.emulator_package
            return (
                f"run isula emulator install {profile.architecture} to register {name} in "
                f"binfmt_misc with the flags F and OC (package {package}), or pull the image for "
                "this platform"
            )
        for other in profile.compat:
            if (machine, bits) == other.elf and other.emulator:
                return (
                    f"register {other.emulator}-static in binfmt_misc with the flags F and OC "
                    f"(package {profile.emulator_package}), or pull the image for this platform"
                )
    return "pull the image for this platform"
