"""What the file system below a graph is, and what it can do."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

__all__ = ["Mount", "backing_filesystem", "backing_mount", "sharing", "tells_types"]


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system: its type, where it comes from, its own options."""

    kind: str = "unknown"
    source: str = ""
    options: tuple[str, ...] = ()


def backing_mount(path: str) -> Mount:
    """The file system that holds ``path``, from mountinfo."""
    best, found = "", Mount()
    real = os.path.realpath(path)
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            point = left.split()[4]
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                kind, source, options = (*right.split(), "", "")[:3]
                best, found = point, Mount(kind, source, tuple(options.split(",")))
    return found


def sharing(path: str) -> tuple[str, bool, bool]:
    """The mount point that holds ``path``, whether it is shared, whether it is a slave."""
    best, shared, slave = "", False, False
    real = os.path.realpath(path)
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            words = line.partition(" - ")[0].split()
            point = words[4]
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best = point
                shared = any(word.startswith("shared:") for word in words[6:])
                slave = any(word.startswith("master:") for word in words[6:])
    return best, shared, slave


def backing_filesystem(path: str) -> str:
    """Type of the file system that holds ``path``."""
    return backing_mount(path).kind


def tells_types(folder: str) -> bool:
    """Whether reading a directory tells what its entries are, without asking for each.

    Tried with a directory that is gone when its entry is asked: whoever has not been told
    before cannot find it out any more.  Overlay needs it (xfs: ftype=1).
    """
    top = f"{folder}/ingest-{os.urandom(8).hex()}"
    try:
        os.mkdir(top, 0o700)
        os.mkdir(f"{top}/entry", 0o700)
        with os.scandir(top) as entries:
            found = list(entries)
        os.rmdir(f"{top}/entry")
        return all(entry.is_dir(follow_symlinks=False) for entry in found)
    except OSError:
        # a full disk is no reason to deny it
        return True
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(top)
