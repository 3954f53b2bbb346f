"""Waiting for the right time: a board without a battery for its clock boots in 1970 or 2000.

No certificate is valid then.  A pull that fails because one is not valid *yet* goes on when
the clock has been set.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from isula_edge.sys.wallclock import ClockWatch
from isula_edge.version import BUILT_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from isula_edge.image.job import Job

__all__ = ["ClockWait", "earliest"]

STATUS = "Waiting for the clock"
_CLOSE_S = 120.0
"""How long a clock that may be right is waited for: it is behind by little, or not at all."""
_AGAIN_S = (2.0, 4.0, 8.0, 15.0)
"""A clock that is slewed, or simply reaches the time, makes no event."""
# systemd keeps them for the same purpose
_STAMPS = ("/usr/lib/clock-epoch", "/var/lib/systemd/timesync/clock")


def earliest(*paths: str) -> float:
    """A time that has passed for sure: this package was made, ``paths`` were written."""
    times = [float(BUILT_S)]
    for path in (*_STAMPS, *paths):
        with contextlib.suppress(OSError):
            times.append(os.stat(path).st_mtime)
    return max(times)


class ClockWait:
    """The waiting of one request, ``limit_s`` seconds in all; 0 for none.

    ``unset_before`` is what :func:`earliest` returns.  Only a clock that shows less is waited
    for as long as that; another one for two minutes.
    """

    def __init__(
        self,
        job: Job,
        limit_s: float,
        unset_before: float,
        *,
        wall: Callable[[], float] = time.time,
        watch: Callable[[], ClockWatch] = ClockWatch,
    ) -> None:
        self._job = job
        self._limit_s = limit_s
        self._unset_before = unset_before
        self._wall = wall
        self._make_watch = watch
        self._watch: ClockWatch | None = None
        self._since: float | None = None
        self._told: set[str] = set()
        self._times = 0

    def again(self, who: str) -> bool:
        """Waits; whether the certificate of ``who`` may be valid now.  False at the limit.

        Raises Aborted when the job is cancelled meanwhile.
        """
        now = self._job.now()
        since = self._since = now if self._since is None else self._since
        limit_s = self._limit_s
        if self._wall() >= self._unset_before:
            limit_s = min(limit_s, _CLOSE_S)
        left = since + limit_s - now
        if left <= 0:
            return False
        if self._watch is None:
            self._watch = self._make_watch()
        self._told.add(who)
        self._tell(who, STATUS)
        pause_s = _AGAIN_S[min(self._times, len(_AGAIN_S) - 1)]
        self._times += 1
        with self._job.closing(self._watch.wake):
            self._watch.wait(min(left, pause_s))
        self._job.check()
        return True

    def close(self) -> None:
        """Ends the waiting and what was shown of it."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        for who in sorted(self._told):
            self._tell(who, "Done")
        self._told.clear()

    def _tell(self, who: str, status: str) -> None:
        self._job.emit({"v": {"id": who, "status": status, "current": 0, "total": 0}})
