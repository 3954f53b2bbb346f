"""Rates between samples."""

from __future__ import annotations

from isula_edge.service.stats import _Rates

SECOND = 10**9


def test_a_rate_needs_a_sample_before() -> None:
    rates = _Rates()
    assert rates.add("a", 5 * SECOND, 100 * SECOND) is None
    assert rates.add("b", 0, 101 * SECOND) is None
    # half a CPU, over two seconds
    assert rates.add("a", 6 * SECOND, 102 * SECOND) == SECOND // 2
    assert rates.add("b", 0, 102 * SECOND) == 0


def test_a_moment_later_the_rate_is_the_same() -> None:
    rates = _Rates()
    rates.add("a", 0, 0)
    assert rates.add("a", SECOND, SECOND) == SECOND
    assert rates.add("a", SECOND + 1, SECOND + 1) == SECOND
    # the sample that counts is still the one before
    assert rates.add("a", SECOND, 2 * SECOND) == 0


def test_another_life_begins_anew() -> None:
    rates = _Rates()
    rates.add("a", 9 * SECOND, 0)
    assert rates.add("a", SECOND, SECOND) is None
    assert rates.add("a", 2 * SECOND, 2 * SECOND) == SECOND


def test_what_nobody_asks_for_is_forgotten() -> None:
    rates = _Rates()
    rates.add("a", 0, 0)
    rates.add("b", 0, 5 * SECOND)
    rates.forget(5 * SECOND)
    assert rates.add("a", SECOND, 6 * SECOND) is None
    assert rates.add("b", SECOND, 6 * SECOND) == SECOND
