"""Which boot of the machine this is."""

from __future__ import annotations

__all__ = ["boot_id"]

_boot_id = ""


def boot_id() -> str:
    """The kernel's random id of this boot."""
    global _boot_id
    if not _boot_id:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            _boot_id = file.read().strip()
    return _boot_id
