"""A file system on a block device of its own, so that what reaches the device can be counted."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Disk"]

_SECTOR = 512
_WRITTEN = 6  # Documentation/block/stat.rst


class Disk:
    """An ext4 of ``size_bytes`` in a sparse file, mounted at ``place``.

    It writes nothing by itself: tables and journal are initialised when it is made.
    """

    def __init__(self, file: Path, place: Path, size_bytes: int) -> None:
        self.place = place
        place.mkdir(parents=True)
        with file.open("wb") as out:
            out.truncate(size_bytes)
        options = "lazy_itable_init=0,lazy_journal_init=0"
        subprocess.run(["mkfs.ext4", "-q", "-E", options, file], check=True)
        subprocess.run(["mount", "-o", "loop", file, place], check=True)
        device = os.stat(place).st_dev
        self._stat = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat"

    def written_bytes(self) -> int:
        """Bytes that the device was given to write since it exists."""
        with open(self._stat, encoding="ascii") as file:
            return int(file.read().split()[_WRITTEN]) * _SECTOR

    def used_bytes(self) -> int:
        """Bytes in use, those of data that is not written yet included."""
        found = os.statvfs(self.place)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def sync(self) -> None:
        """Writes everything of this file system that is only in memory."""
        subprocess.run(["sync", "-f", self.place], check=True)

    def close(self) -> None:
        """Takes the file system away; what an engine has mounted inside goes with it."""
        subprocess.run(["umount", "-R", "-l", self.place], check=False)
