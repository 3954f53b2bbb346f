"""What processes hold open."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Descriptors", "count", "soft_limit"]


@dataclass(frozen=True, slots=True)
class Descriptors:
    """``processes`` that were there, and the open files and sockets of all of them."""

    processes: int = 0
    files: int = 0
    sockets: int = 0


def count(pids: Iterable[int]) -> Descriptors:
    """What ``pids`` hold open together; one that has ended counts nothing."""
    processes = files = sockets = 0
    for pid in pids:
        folder = f"/proc/{pid}/fd"
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        processes += 1
        files += len(names)
        for name in names:
            with contextlib.suppress(OSError):
                sockets += os.readlink(f"{folder}/{name}").startswith("socket:")
    return Descriptors(processes, files, sockets)


def soft_limit(pid: int) -> int | None:
    """How many files process ``pid`` may open, None when it is gone or has no limit."""
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/limits") as file:
        for line in file:
            if line.startswith("Max open files"):
                return int(line.split()[3])
    return None
