"""How many blobs are transferred at once, over all workers of an engine.

Owns ``<tmpdir>/slots``: a transfer holds flock(2) on one of the files ``0``, ``1`` … in it.
The lock ends with the process, so a killed worker takes no slot along.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
from typing import TYPE_CHECKING

from isula_edge.sys import atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isula_edge.image.job import Job

__all__ = ["FOLDER", "Slots"]

FOLDER = "slots"
"""Its name below the directory for temporary files."""
_AGAIN_S = 0.1


class Slots:
    """``count`` slots, shared by all who give the same ``tmpdir``."""

    def __init__(self, tmpdir: str, count: int) -> None:
        self._folder = f"{tmpdir}/{FOLDER}"
        self._count = max(1, count)
        atomic.make_dir(self._folder)

    @contextlib.contextmanager
    def one(self, job: Job) -> Iterator[None]:
        """While inside, a slot is taken; waits for it until ``job`` is cancelled (Aborted)."""
        while (fd := self._take()) < 0:
            job.sleep(_AGAIN_S * random.uniform(0.5, 1.0))  # noqa: S311  # whose turn it is
        try:
            yield
        finally:
            os.close(fd)

    def _take(self) -> int:
        """Descriptor of a free slot, or -1."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        for number in range(self._count):
            path = f"{self._folder}/{number}"
            with atomic.space_errors(path):
                fd = os.open(path, flags, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
            else:
                return fd
        return -1
