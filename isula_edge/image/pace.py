"""Whether it is worth it to download layers ahead of the one that is being unpacked.

The commit of a layer writes all that the file system holds back, also what has come of the
blobs above it: on flash that is wear for nothing.  Where the link would bring all that is
missing within moments, unpacking is what takes time, and the next blob can wait until the
layer below it has been read.  On any other link, time that is not used for downloading is
lost, and the blobs come side by side.
"""

from __future__ import annotations

import threading

__all__ = ["SMALL_BYTES", "Pace"]

SMALL_BYTES = 1 << 20
"""A blob of this size is worth no waiting: its wear is less than the time of a request."""
_SOON_S = 3.0
"""What is missing may take as long as this, at most that much time is lost."""
_ENOUGH_S = 0.2
_ENOUGH_BYTES = 4 << 20


class Pace:
    """Measures the transfers of ``missing`` bytes; used by several threads."""

    def __init__(self, missing: int) -> None:
        self._missing = missing
        self._bytes = 0
        self._seconds = 0.0
        self._lock = threading.Lock()
        self._slow = False

    @property
    def slow(self) -> bool:
        """Whether the link is known to take its time over what is missing."""
        return self._slow

    def have(self, count: int) -> None:
        """``count`` bytes were there already: they say nothing about the link."""
        with self._lock:
            self._missing -= count

    def passed(self, count: int, seconds: float) -> bool:
        """``count`` bytes took a transfer so many seconds; whether :attr:`slow` is new now."""
        with self._lock:
            self._bytes += count
            self._seconds += seconds
            self._missing -= count
            known = self._seconds >= _ENOUGH_S or self._bytes >= _ENOUGH_BYTES
            # of one transfer: several at once are no slower together
            slow = known and self._missing * self._seconds > _SOON_S * self._bytes
            changed, self._slow = slow != self._slow, slow
            return changed and slow
