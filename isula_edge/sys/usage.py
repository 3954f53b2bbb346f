"""How much of a disk a tree takes, and parts of it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["TreeUsage", "survey", "tree_usage"]

_BLOCK = 512


@dataclass(frozen=True, slots=True)
class TreeUsage:
    """Bytes on disk and inodes that trees take."""

    bytes: int = 0
    inodes: int = 0


def survey(
    top: str, parts: Iterable[str], check: Callable[[], object] | None = None
) -> dict[str, int]:
    """Bytes on disk of everything below ``top``, by the innermost of ``parts`` it lies in.

    ``top`` itself is a part; paths are absolute.  A file with several names counts once,
    where it is met first; other file systems are left out, and links are not followed.
    What vanishes meanwhile does not count.  ``check`` is called for every directory.
    """
    wanted = {top, *parts}
    found = dict.fromkeys(wanted, 0)
    for part, status in _walk(top, wanted, check):
        found[part] += status.st_blocks * _BLOCK
    return found


def tree_usage(*tops: str) -> TreeUsage:
    """What everything below ``tops`` takes, themselves included, as in :func:`survey`; nothing
    where there is none.  Trees that share files by hard links count these once.
    """
    size = inodes = 0
    shared: set[tuple[int, int]] = set()
    for top in tops:
        for _, status in _walk(top, {top}):
            if status.st_nlink > 1:
                inode = (status.st_dev, status.st_ino)
                if inode in shared:
                    continue
                shared.add(inode)
            size += status.st_blocks * _BLOCK
            inodes += 1
    return TreeUsage(size, inodes)


def _walk(
    top: str, wanted: set[str], check: Callable[[], object] | None = None
) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below ``top`` with the innermost of ``wanted`` it lies in, each file once."""
    seen: set[int] = set()
    try:
        first = os.lstat(top)
    except FileNotFoundError:
        return
    yield top, first
    pending = [(top, top)]
    while pending:
        folder, part = pending.pop()
        if check is not None:
            check()
        for path, status in _entries(folder):
            if status.st_dev != first.st_dev:
                continue
            is_folder = (status.st_mode & 0o170000) == 0o040000
            # a bind mount shows a directory of the same file system twice
            if is_folder or status.st_nlink > 1:
                if status.st_ino in seen:
                    continue
                seen.add(status.st_ino)
            owner = path if path in wanted else part
            yield owner, status
            if is_folder:
                pending.append((path, owner))


def _entries(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        with os.scandir(folder) as entries:
            listed = list(entries)
    except OSError:
        return
    for entry in listed:
        with contextlib.suppress(OSError):
            yield entry.path, entry.stat(follow_symlinks=False)
