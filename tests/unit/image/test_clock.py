"""A clock that is not set: who waits for it, how long, and who does not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.image.clock import ClockWait, earliest
from isula_edge.image.places import try_each
from isula_edge.image.registry import Endpoint
from isula_edge.image.transport import NotYetValid, TlsFailed
from isula_edge.version import BUILT_S
from tests.fakes.jobs import FakeDaemon

if TYPE_CHECKING:
    from pathlib import Path

UNSET = 946684800.0  # 2000-01-01
FLOOR = float(BUILT_S)


class Watch:
    """Waits on the daemon's clock; the wall clock is set after ``set_after`` seconds of it."""

    def __init__(self, daemon: FakeDaemon, wall: list[float], set_after: float) -> None:
        self._clock, self._wall = daemon.clock, wall
        self._at = daemon.clock.now + set_after
        self.closed = 0

    def wait(self, seconds: float) -> bool:
        if self._clock.now + seconds >= self._at and self._wall[0] < FLOOR:
            self._clock.now = max(self._clock.now, self._at)
            self._wall[0] = FLOOR + 1000
            return True
        self._clock.now += seconds
        return False

    def wake(self) -> None:
        """Nothing waits in another thread."""

    def close(self) -> None:
        self.closed += 1


class Board:
    """One registry whose certificate is valid from FLOOR on, seen with a clock of its own."""

    def __init__(self, wall: float, *, limit_s: float, set_after: float = 1e9) -> None:
        self.daemon = FakeDaemon()
        self.wall = [wall]
        self.watches: list[Watch] = []
        self.tries = 0
        self._set_after = set_after
        self.valid_from = FLOOR
        self.clock = ClockWait(
            self.daemon.job, limit_s, FLOOR, wall=lambda: self.wall[0], watch=self._watch  # type: ignore[arg-type]
        )  # fmt: skip

    def _watch(self) -> Watch:
        self.watches.append(Watch(self.daemon, self.wall, self._set_after))
        return self.watches[-1]

    def _attempt(self, endpoint: Endpoint, *, patient: bool) -> str:
        assert patient
        self.tries += 1
        if self.wall[0] < self.valid_from:
            raise NotYetValid("not yet valid", retryable=True)
        return endpoint.host

    def pull(self) -> str:
        try:
            places = [Endpoint(("https",), "r.io")]
            return try_each(places, self._attempt, self.daemon.job, self.clock)
        finally:
            self.clock.close()

    @property
    def shown(self) -> list[str]:
        return [item["status"] for item in self.daemon.of("v")]


def test_a11_the_pull_goes_on_when_the_clock_is_set() -> None:
    board = Board(UNSET, limit_s=600, set_after=400)
    assert board.pull() == "r.io"
    assert board.shown[0] == "Waiting for the clock"
    assert board.shown[-1] == "Done"
    assert {item["id"] for item in board.daemon.of("v")} == {"r.io"}
    assert [watch.closed for watch in board.watches] == [1]


def test_the_event_ends_the_wait() -> None:
    board = Board(UNSET, limit_s=600, set_after=1)
    board.pull()
    assert board.tries == 2
    assert board.daemon.clock.now == 1001


def test_a_clock_that_stays_unset_is_given_up() -> None:
    board = Board(UNSET, limit_s=600)
    with pytest.raises(errors.Unavailable, match="not yet valid"):
        board.pull()
    assert board.daemon.clock.now == 1600
    assert board.tries < 60


def test_without_a_limit_it_fails_at_once() -> None:
    board = Board(UNSET, limit_s=0)
    with pytest.raises(errors.Unavailable):
        board.pull()
    assert (board.tries, board.shown, board.watches) == (1, [], [])


def test_a_clock_that_may_be_right_gets_two_minutes() -> None:
    board = Board(FLOOR + 1, limit_s=600)
    board.valid_from = FLOOR + 10**6
    with pytest.raises(errors.Unavailable):
        board.pull()
    assert board.daemon.clock.now == 1120
    short = Board(FLOOR + 1, limit_s=5)
    short.valid_from = FLOOR + 10**6
    with pytest.raises(errors.Unavailable):
        short.pull()
    assert short.daemon.clock.now == 1005


def test_the_limit_is_for_all_places_together() -> None:
    board = Board(UNSET, limit_s=600)
    tried: list[str] = []

    def attempt(endpoint: Endpoint, *, patient: bool) -> str:
        tried.append(f"{endpoint.host} {patient}")
        raise NotYetValid("not yet valid")

    places = [Endpoint(("https",), host) for host in ("a", "b", "c")]
    with pytest.raises(errors.Unavailable):
        try_each(places, attempt, board.daemon.job, board.clock)
    assert board.daemon.clock.now == 1600
    assert tried[-2:] == ["b False", "c True"]


def test_another_failure_of_tls_is_none_of_the_clock() -> None:
    board = Board(UNSET, limit_s=600)

    def attempt(endpoint: Endpoint, *, patient: bool) -> str:
        raise TlsFailed("unknown authority")

    with pytest.raises(errors.Unavailable, match="authority"):
        try_each([Endpoint(("https",), "a")], attempt, board.daemon.job, board.clock)
    assert board.daemon.clock.slept == []
    assert board.shown == []


def test_cancelled_while_waiting() -> None:
    board = Board(UNSET, limit_s=600)

    def watch() -> Watch:
        board.daemon.job.cancel()
        return Watch(board.daemon, board.wall, 1e9)

    clock = ClockWait(board.daemon.job, 600, FLOOR, wall=lambda: UNSET, watch=watch)  # type: ignore[arg-type]
    with pytest.raises(errors.Aborted):
        clock.again("h")


def test_what_has_been_written_was_written_before_now(tmp_path: Path) -> None:
    assert earliest(str(tmp_path / "none")) >= BUILT_S
    (tmp_path / "x").touch()
    os.utime(tmp_path / "x", (1, BUILT_S + 10**10))
    assert earliest(str(tmp_path / "x"), str(tmp_path / "none")) == BUILT_S + 10**10
    os.utime(tmp_path / "x", (1, 1))
    assert earliest(str(tmp_path / "x")) >= BUILT_S
