"""Being woken when somebody sets the wall clock."""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import TYPE_CHECKING

from isula_edge.sys import syscalls

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ClockWatch"]

_STEP_S = 1.0
_JUMP_S = 0.5


class ClockWatch:
    """Waits for the clock to be set: by NTP's first step, by date(1), by a person.

    The kernel tells (timerfd with TFD_TIMER_CANCEL_ON_SET, Linux 3.0); without it the clock is
    compared with the monotonic one every second.  A clock that is only slewed is not noticed.
    """

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._offset = wall() - monotonic()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._timer = -1
        with contextlib.suppress(OSError):
            self._timer = syscalls.clock_timer()
        self._arm()

    def wait(self, seconds: float) -> bool:
        """Whether the clock was set (since the last call) before ``seconds`` had passed.

        :meth:`wake` ends the wait with False.
        """
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        if self._timer >= 0:
            poller.register(self._timer, select.POLLIN)
        until = self._monotonic() + seconds
        while True:
            left = max(0.0, until - self._monotonic())
            ready = {fd for fd, _ in poller.poll(1000 * min(left, self._step()))}
            if self._wake in ready:
                return False
            if self._timer in ready or self._has_jumped():
                self._again()
                return True
            if left <= 0:
                return False

    def wake(self) -> None:
        """Ends a wait in another thread, and every later one."""
        # it may have been closed meanwhile
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Gives the descriptors back; a second call does nothing."""
        for fd in (self._wake, self._timer):
            if fd >= 0:
                os.close(fd)
        self._wake = self._timer = -1

    def _step(self) -> float:
        return 3600.0 if self._timer >= 0 else _STEP_S

    def _has_jumped(self) -> bool:
        return abs(self._wall() - self._monotonic() - self._offset) > _JUMP_S

    def _again(self) -> None:
        """Arms the timer anew: the one that has told is spent."""
        self._offset = self._wall() - self._monotonic()
        if self._timer >= 0:
            with contextlib.suppress(OSError):
                os.read(self._timer, 8)
        self._arm()

    def _arm(self) -> None:
        if self._timer >= 0:
            try:
                syscalls.clock_timer_arm(self._timer)
            except OSError:
                os.close(self._timer)
                self._timer = -1
