"""A rate for all transfers together: counted on a clock that only moves by sleeping."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.image.throttle import Throttle
from tests.fakes.jobs import FakeClock, FakeDaemon

if TYPE_CHECKING:
    from pathlib import Path

    from isula_edge.image.job import Job

RATE = 100_000


def job_on(clock: FakeClock) -> Job:
    daemon = FakeDaemon()
    daemon.job.now = clock
    daemon.job._sleep = clock.sleep
    return daemon.job


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def throttle(tmp_path: Path, clock: FakeClock, rate: int = RATE) -> Throttle:
    return Throttle(str(tmp_path / "rate"), rate, job_on(clock))


def test_no_rate_no_wait_no_file(tmp_path: Path, clock: FakeClock) -> None:
    free = throttle(tmp_path, clock, 0)
    free.passed(10**9)
    assert free.piece(256 * 1024) == 256 * 1024
    free.close()
    assert clock.slept == []
    assert list(tmp_path.iterdir()) == []


def test_the_rate_is_kept(tmp_path: Path, clock: FakeClock) -> None:
    one = throttle(tmp_path, clock)
    before = clock.now
    for _ in range(100):
        one.passed(10_000)
    # a tenth of a second is given at the start
    assert sum(clock.slept) == pytest.approx(10.0 - 0.1)
    assert clock.now - before == pytest.approx(9.9)
    one.close()


def test_together(tmp_path: Path, clock: FakeClock) -> None:
    several = [throttle(tmp_path, clock) for _ in range(4)]
    before = clock.now
    for _ in range(25):
        for one in several:
            one.passed(10_000)
    assert clock.now - before == pytest.approx(9.9)


def test_what_was_not_used_is_not_saved(tmp_path: Path, clock: FakeClock) -> None:
    one = throttle(tmp_path, clock)
    one.passed(10_000)
    clock.now += 3600
    one.passed(30_000)
    assert clock.slept == [pytest.approx(0.2)]


@pytest.mark.parametrize("content", [b"", b"abc", (10**18).to_bytes(8, "little"), b"\xff" * 8])
def test_a_file_from_before_a_reboot_is_not_believed(
    tmp_path: Path, clock: FakeClock, content: bytes
) -> None:
    (tmp_path / "rate").write_bytes(content)
    one = throttle(tmp_path, clock)
    one.passed(50_000)
    assert sum(clock.slept) <= 0.5


def test_pieces_are_small_when_they_take_long(tmp_path: Path, clock: FakeClock) -> None:
    assert throttle(tmp_path, clock).piece(256 * 1024) == RATE // 8
    assert throttle(tmp_path, clock, 1000).piece(256 * 1024) == 4096
    assert throttle(tmp_path, clock, 1 << 30).piece(256 * 1024) == 256 * 1024


def test_a_cancelled_job_does_not_wait(tmp_path: Path, clock: FakeClock) -> None:
    job = job_on(clock)
    one = Throttle(str(tmp_path / "rate"), RATE, job)
    job.cancel()
    with pytest.raises(errors.Aborted):
        one.passed(10**6)
    assert clock.slept == []
    one.close()
    one.close()
