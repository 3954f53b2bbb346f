"""Being told of a clock that is set, with the kernel's help and without."""

from __future__ import annotations

import os
import select
import threading
from typing import TYPE_CHECKING

import pytest

from isula_edge.sys import syscalls
from isula_edge.sys.wallclock import ClockWatch

if TYPE_CHECKING:
    from collections.abc import Iterator


class Hands:
    """Two clocks that move when they are told to."""

    def __init__(self) -> None:
        self.wall = 946684800.0
        self.monotonic = 5.0

    def watch(self) -> ClockWatch:
        return ClockWatch(wall=lambda: self.wall, monotonic=lambda: self.monotonic)


@pytest.fixture(params=["clock_timer", "clock_timer_arm"])
def no_timer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without timerfd, or without TFD_TIMER_CANCEL_ON_SET."""

    def absent(*_arguments: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(syscalls, request.param, absent)


class Poller:
    """poll(2) that takes its time on ``hands`` and finds nothing."""

    def __init__(self, hands: Hands, set_at: float) -> None:
        self._hands, self._set_at = hands, set_at
        self.calls = 0

    def register(self, _fd: int, _events: int) -> None:
        """Nothing is ever ready."""

    def poll(self, timeout_ms: float) -> list[tuple[int, int]]:
        self.calls += 1
        self._hands.monotonic += timeout_ms / 1000
        self._hands.wall += timeout_ms / 1000
        if self._hands.monotonic >= self._set_at:
            self._set_at = float("inf")
            self._hands.wall += 10**9
        return []


@pytest.mark.usefixtures("no_timer")
def test_without_the_kernels_help_the_clocks_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hands = Hands()
    watch = hands.watch()
    poller = Poller(hands, 8.0)
    monkeypatch.setattr(select, "poll", lambda: poller)
    assert watch.wait(100)
    assert poller.calls == 3
    assert not watch.wait(4)
    assert poller.calls == 8
    watch.close()


@pytest.fixture
def watch() -> Iterator[ClockWatch]:
    found = ClockWatch()
    yield found
    found.close()


def test_nothing_happens(watch: ClockWatch) -> None:
    assert not watch.wait(0)
    assert not watch.wait(0.01)


def test_woken(watch: ClockWatch) -> None:
    thread = threading.Timer(0.01, watch.wake)
    thread.start()
    assert not watch.wait(60)
    thread.join()
    assert not watch.wait(60)


def test_a_jump_between_two_waits_is_noticed() -> None:
    hands = Hands()
    watch = hands.watch()
    hands.wall += 3600
    hands.monotonic += 1
    assert watch.wait(0)
    assert not watch.wait(0)
    watch.close()
    watch.close()


def test_the_timer_is_armed() -> None:
    """The kernel takes it, nothing is ready yet, and it can be armed again."""
    fd = syscalls.clock_timer()
    try:
        assert os.get_inheritable(fd) is False
        for _ in range(2):
            syscalls.clock_timer_arm(fd)
            assert select.select([fd], [], [], 0)[0] == []
    finally:
        os.close(fd)


@pytest.mark.native  # qemu-user passes the call on, and emulators of it differ
def test_a_descriptor_that_is_no_timer() -> None:
    with pytest.raises(OSError, match="timerfd_settime"):
        syscalls.clock_timer_arm(0)
