"""How fast blobs are transferred, over all workers of an engine.

Owns one file of eight bytes: the monotonic time, in nanoseconds, at which everything that
was transferred so far would be through at the allowed rate.  Each transfer moves it on by
what it has read and waits until then.  The file belongs on tmpfs; elsewhere it is right as
well, since a time that a reboot has made senseless is not believed.
"""

from __future__ import annotations

import fcntl
import os
import threading
from typing import TYPE_CHECKING

from isula_edge.sys import atomic

if TYPE_CHECKING:
    from isula_edge.image.job import Job

__all__ = ["Throttle"]

_BURST_S = 0.1
"""What was not used is not saved for longer than this."""
_LONGEST_S = 30.0
"""No time further ahead than this is ever reached: it is from before a reboot."""
_PIECES_PER_S = 8
_LEAST_PIECE = 4096
_NS = 10**9


class Throttle:
    """At most ``rate`` bytes a second (0: no limit) by all who give the same ``path``."""

    def __init__(self, path: str, rate: int, job: Job) -> None:
        self._path = path
        self._rate = rate
        self._job = job
        self._lock = threading.Lock()
        self._fd = -1

    def piece(self, most: int) -> int:
        """How many bytes to read at once, at most ``most``: few when they take long."""
        if not self._rate:
            return most
        return min(most, max(_LEAST_PIECE, self._rate // _PIECES_PER_S))

    def passed(self, count: int) -> None:
        """``count`` bytes were transferred: waits until more may be; Aborted when cancelled."""
        if self._rate:
            wait_s = self._book(count)
            if wait_s > 0:
                self._job.sleep(wait_s)

    def _book(self, count: int) -> float:
        with self._lock, atomic.space_errors(self._path):
            if self._fd < 0:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                self._fd = os.open(self._path, flags, 0o600)
            # a lock of its own descriptor: threads of this process use the same one
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                now = int(self._job.now() * _NS)
                data = os.pread(self._fd, 8, 0)
                through = int.from_bytes(data, "little") if len(data) == 8 else 0
                if through > now + _LONGEST_S * _NS:
                    through = now
                through = max(through, now - int(_BURST_S * _NS)) + count * _NS // self._rate
                os.pwrite(self._fd, through.to_bytes(8, "little"), 0)
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        return (through - now) / _NS

    def close(self) -> None:
        """Gives the file back."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
