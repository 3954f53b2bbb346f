"""How many bytes on disk a tree takes, and parts of it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["survey"]

_BLOCK = 512


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
    seen: set[int] = set()
    try:
        first = os.lstat(top)
    except FileNotFoundError:
        return found
    found[top] += first.st_blocks * _BLOCK
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
            found[owner] += status.st_blocks * _BLOCK
            if is_folder:
                pending.append((path, owner))
    return found


def _entries(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        with os.scandir(folder) as entries:
            listed = list(entries)
    except OSError:
        return
    for entry in listed:
        with contextlib.suppress(OSError):
            yield entry.path, entry.stat(follow_symlinks=False)
