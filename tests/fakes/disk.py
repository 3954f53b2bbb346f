"""A disk of a test's own: ext4 on a loop device, that can be filled and lose its power."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Disk", "cut_power", "used_bytes"]

_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2


def cut_power(place: str) -> None:
    """Lets the file system at ``place`` forget everything that it has not made durable.

    FS_IOC_SHUTDOWN without a flush of the log: nothing is written any more, whoever asks.
    """
    fd = os.open(place, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
    finally:
        os.close(fd)


def used_bytes(folder: Path) -> int:
    """What ``du`` says: bytes on this file system below ``folder``, each file once."""
    words = ["du", "-s", "-x", "-B1", str(folder)]
    return int(subprocess.run(words, check=True, capture_output=True).stdout.split()[0])


class Disk:
    """An ext4 file system mounted at ``place``."""

    def __init__(self, image: Path, place: Path, *, size: int = 64 << 20, inodes: int = 0) -> None:
        self.image, self.place = image, place
        place.mkdir(parents=True, exist_ok=True)
        with image.open("wb") as file:
            file.truncate(size)
        more = ["-N", str(inodes)] if inodes else []
        words = ["mkfs.ext4", "-q", "-m", "0", *more, str(image)]
        subprocess.run(words, check=True, capture_output=True)
        self.mount()

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.place)], check=True)

    def power_cycle(self) -> None:
        """After :func:`cut_power`: the file system as it is after a boot.

        On another device: somebody's mount namespace may hold the dead one for a while.
        """
        subprocess.run(["umount", "-l", str(self.place)], check=True)
        copy = self.image.with_suffix(".copy")
        subprocess.run(["cp", "--sparse=always", str(self.image), str(copy)], check=True)
        copy.replace(self.image)
        self.mount()

    def fill(self) -> None:
        """Takes every inode, then every block."""
        many = self.place / "many"
        many.mkdir(exist_ok=True)
        with (self.place / "filler").open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                for number in range(1 << 20):
                    os.symlink("x", many / str(number))
            for size in (1 << 20, 4096, 1) * 3:
                with contextlib.suppress(OSError):
                    while file.write(b"x" * size) == size:
                        pass
                os.fsync(file.fileno())

    @property
    def free(self) -> tuple[int, int]:
        """Free bytes and free inodes."""
        found = os.statvfs(self.place)
        return found.f_bavail * found.f_frsize, found.f_ffree

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Disk]:
        """Unmounts it at the end."""
        try:
            yield self
        finally:
            if os.path.ismount(self.place):
                subprocess.run(["umount", "-l", str(self.place)], check=True)
