"""Texts for people: durations, sizes, points in time, and the keys that leave a container."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from isula_cli import human, times
from isula_cli.parser import UsageError
from isula_cli.terminal import DetachKeys

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTE, HOUR, DAY = 60, 3600, 86400
NOW = 10**19

DURATIONS = [
    (0, "Less than a second"),
    (1, "1 second"),
    (59, "59 seconds"),
    (MINUTE, "About a minute"),
    (2 * MINUTE - 1, "About a minute"),
    (2 * MINUTE, "2 minutes"),
    (HOUR - 1, "59 minutes"),
    (HOUR, "About an hour"),
    (2 * HOUR - 1, "About an hour"),
    (2 * HOUR, "2 hours"),
    (48 * HOUR - 1, "47 hours"),
    (48 * HOUR, "2 days"),
    (14 * DAY - 1, "13 days"),
    (14 * DAY, "2 weeks"),
    (90 * DAY - 1, "12 weeks"),
    (90 * DAY, "3 months"),
    (730 * DAY - 1, "24 months"),
    (730 * DAY, "2 years"),
    (3650 * DAY, "10 years"),
]


@pytest.mark.parametrize(("seconds", "text"), DURATIONS)
def test_a_duration(seconds: int, text: str) -> None:
    assert human.duration(NOW - seconds * 10**9, NOW) == text


@pytest.mark.parametrize("since", [0, -1, NOW + 10**9])
def test_never_and_the_future(since: int) -> None:
    assert human.duration(since, NOW) == "-"


def test_ago() -> None:
    assert human.ago(time.time_ns() - 5 * DAY * 10**9) == "5 days ago"
    assert human.ago(0) == "-"


SIZES = [
    (0, "0B"),
    (999, "999B"),
    (1000, "1kB"),
    (1234567, "1.23MB"),
    (999499, "999kB"),
    (999500, "1MB"),
    (5 * 10**9, "5GB"),
    (12 * 10**12, "12TB"),
]


@pytest.mark.parametrize(("count", "text"), SIZES)
def test_a_size(count: int, text: str) -> None:
    assert human.size(count) == text


def test_columns_are_aligned() -> None:
    rows = [["A", "LONG HEAD", "C"], ["1234", "x"], ["", "", "end"]]
    assert human.table(rows) == "A      LONG HEAD   C\n1234   x\n                   end\n"
    assert human.table([]) == ""


@pytest.fixture
def zone() -> Iterator[None]:
    """Two hours east of Greenwich, whatever the machine says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "TST-2")
        time.tzset()
        yield
    time.tzset()


POINTS = [
    ("2024-02-29", 1709157600 * 10**9),
    ("2024-02-29T12", 1709200800 * 10**9),
    ("2024-02-29T12:30", 1709202600 * 10**9),
    ("2024-02-29T12:30:45", 1709202645 * 10**9),
    ("2024-02-29T12:30:45.5", 1709202645 * 10**9 + 500_000_000),
    ("2024-02-29T12:30:45.123456789", 1709202645 * 10**9 + 123456789),
    ("2024-02-29T12:30:45Z", 1709209845 * 10**9),
    ("2024-02-29T12:30:45.000000001+05:30", 1709190045 * 10**9 + 1),
    ("1700000000", 1700000000 * 10**9),
]


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize(("text", "at"), POINTS)
def test_a_point_in_time(text: str, at: int) -> None:
    assert times.parse("since", text) == at


@pytest.mark.parametrize(
    ("text", "before_s"), [("10s", 10), ("5m", 300), ("2h", 7200), ("500ms", 0)]
)
def test_time_ago(text: str, before_s: int) -> None:
    low = time.time_ns() - before_s * 10**9 - 10**9
    assert low <= times.parse("since", text) <= time.time_ns() - before_s * 10**9


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "2024-13-01",
        "2024-02-30",
        "12:30",
        "2024-02-29T25",
        "1m30s",
        "-5m",
        "٣",
        "2024-02-29 12:30:45",
        "2024-02-29T12:30:45.1234567890",
        "9999-99-99",
    ],
)
def test_what_is_no_point_in_time(text: str) -> None:
    with pytest.raises(UsageError, match="of flag --since") as caught:
        times.parse("since", text)
    assert caught.value.exit_status == 1


@pytest.mark.usefixtures("zone")
def test_a_stamp_is_local_with_nanoseconds_and_zone() -> None:
    assert times.stamp(1709202645 * 10**9 + 5) == "2024-02-29T12:30:45.000000005+02:00"


KEYS = [
    ("", [b"a\x01q"], b"a", True),
    ("", [b"\x10\x11"], b"", True),
    ("", [b"\x01", b"q"], b"", True),
    ("", [b"\x01x"], b"\x01x", False),
    ("", [b"\x01", b"x"], b"\x01x", False),
    ("", [b"\x01\x01q"], b"\x01", True),
    ("", [b"\x10\x01q"], b"\x10", True),
    ("", [b"text\r"], b"text\r", False),
    ("ctrl-x,x", [b"\x01q\x18x"], b"\x01q", True),
    ("ctrl-x,x", [b"\x18y"], b"\x18y", False),
    ("a,a,b", [b"aaab"], b"a", True),
    ("ctrl-@", [b"x\0y"], b"x", True),
    ("ctrl-[", [b"\x1b"], b"", True),
]


@pytest.mark.parametrize(("keys", "typed", "sent", "left"), KEYS)
def test_keys_that_leave_a_container(
    keys: str, typed: list[bytes], sent: bytes, left: bool
) -> None:
    watch = DetachKeys(keys)
    passed, gone = b"", False
    for data in typed:
        more, gone = watch.feed(data)
        passed += more
    assert (passed, gone) == (sent, left)


@pytest.mark.parametrize("keys", [",", "ab", "ctrl-", "ctrl-A", "ctrl-1", "alt-x", "a,,b", "ü"])
def test_keys_that_do_not_exist(keys: str) -> None:
    with pytest.raises(UsageError, match="Invalid detach keys"):
        DetachKeys(keys)
