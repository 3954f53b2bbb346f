"""Bars on a terminal, lines in a pipe."""

from __future__ import annotations

import os
import posix
import re
from typing import TYPE_CHECKING, Any

import pytest

from isula_cli import progress
from isula_cli.progress import Bars, Lines
from isula_edge import errors
from tests.fakes.screen import Screen
from tests.unit.cli.answers import answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isula_edge.daemon.server import Session
    from tests.unit.cli.conftest import Isula
    from tests.unit.daemon.served import Served

MB = 1_000_000


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def item(name: str, status: str, current: int = 0, total: int = 0) -> dict[str, Any]:
    return {"id": name, "status": status, "current": current, "total": total}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def screen() -> Iterator[Screen]:
    with Screen() as found:
        yield found


@pytest.fixture
def bars(screen: Screen, clock: Clock) -> Bars:
    return Bars(screen.slave, clock)


def test_a_bar_has_the_width_of_the_terminal(bars: Bars, screen: Screen) -> None:
    bars.item(item("abc", "Downloading", 20 * MB, 40 * MB))
    (line,) = screen.lines()
    found = re.fullmatch(r"abc: Downloading \[(=+>)( +)\]   20MB/40MB", line)
    assert found is not None, line
    assert len(found[1]) == len(found[2])
    assert len(line) == screen.columns - 1


@pytest.mark.parametrize("columns", [200, 80, 60, 40, 30, 20, 10, 2])
def test_a_line_never_wraps(clock: Clock, columns: int) -> None:
    with Screen(24, columns) as screen:
        bars = Bars(screen.slave, clock)
        for current in (0, 1, 20 * MB, 40 * MB - 1, 40 * MB):
            bars.item(item("0123456789ab", "Downloading", current, 40 * MB))
            clock.now += 2
            bars.draw()
        assert max(map(len, screen.lines())) < columns


def test_what_is_left_out_on_a_narrow_terminal(bars: Bars, screen: Screen, clock: Clock) -> None:
    bars.item(item("0123456789ab", "Downloading", 0, 40 * MB))
    clock.now += 10
    bars.item(item("0123456789ab", "Downloading", 10 * MB, 40 * MB))
    assert re.search(r"\[=+> +\]   10MB/40MB 1MB/s 31s$", screen.lines()[0])
    screen.resize(24, 60)
    bars.draw()
    assert re.search(r"\[=+> +\]   10MB/40MB$", screen.lines()[0])
    screen.resize(24, 45)
    bars.draw()
    assert screen.lines() == ["0123456789ab: Downloading   10MB/40MB"]
    screen.resize(24, 10)
    bars.draw()
    assert screen.lines() == ["012345678"]


def test_the_speed_is_that_of_the_last_seconds(bars: Bars, screen: Screen, clock: Clock) -> None:
    def second(current: int) -> str:
        clock.now += 1
        bars.item(item("a", "Downloading", current, 100 * MB))
        return screen.lines()[0]

    bars.item(item("a", "Downloading", 30 * MB, 100 * MB))
    assert "/s" not in screen.lines()[0]
    # what was there before the client watched is no speed
    assert second(31 * MB).endswith(" 1MB/s 1m10s")
    for number in range(10):
        second((32 + number * 2) * MB)
    assert second(52 * MB).endswith(" 2MB/s 25s")
    # a connection that hangs
    for _ in range(10):
        line = second(52 * MB)
    assert "/s" not in line


def test_ten_redraws_a_second_at_most(bars: Bars, screen: Screen, clock: Clock) -> None:
    for number in range(1000):
        bars.item(item(f"layer{number % 5}", "Downloading", number, 1000))
        clock.now += 0.001
    redraws = screen.read().count("\x1b[J")
    assert 9 <= redraws <= 10


def test_the_last_change_is_drawn_when_nothing_follows(
    bars: Bars, screen: Screen, clock: Clock
) -> None:
    bars.item(item("a", "Downloading", 1, 2))
    assert bars.wait_ms() == -1
    bars.item(item("a", "Extracting", 2, 2))
    assert "Downloading" in screen.lines()[0]
    assert 0 < bars.wait_ms() <= 101
    bars.tick()
    assert "Downloading" in screen.lines()[0]
    clock.now += bars.wait_ms() / 1000
    bars.tick()
    assert screen.lines() == ["a: Extracting"]
    assert bars.wait_ms() == -1


def test_no_more_lines_than_the_screen_has(clock: Clock) -> None:
    with Screen(6, 80) as screen:
        bars = Bars(screen.slave, clock)
        with bars:
            for number in range(40):
                bars.item(item(f"layer{number}", "Waiting", 0, 5))
            for number in range(20):
                bars.item(item(f"layer{number}", "Done", 5, 5))
            bars.item(item("layer30", "Downloading", 0, 5))
            bars.item(item("layer10", "Extracting", 5, 5))
        assert screen.lines() == [
            "layer10: Extracting",
            "layer20: Waiting",
            "layer21: Waiting",
            f"layer30: Downloading [{'':46}]     0B/5B",
            "36 more: 19 Done, 17 Waiting",
        ]


def test_the_latest_of_finished_layers_stay(clock: Clock) -> None:
    with Screen(4, 80) as screen, Bars(screen.slave, clock) as bars:
        for number in range(9):
            bars.item(item(str(number), "Exists", 5, 5))
        bars.draw()  # type: ignore[attr-defined]
        assert screen.lines() == ["7: Exists", "8: Exists", "7 more: 7 Exists"]


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_hardly_any_rows(clock: Clock, rows: int) -> None:
    with Screen(rows, 80) as screen:
        with Bars(screen.slave, clock) as bars:
            for number in range(9):
                bars.item(item(str(number), "Downloading", number, 10))
                clock.now += 1
        assert len(screen.lines()) == rows - 1


def test_a_terminal_that_becomes_smaller_and_larger(
    bars: Bars, screen: Screen, clock: Clock
) -> None:
    os.write(screen.slave, b"before\r\n" * 40)
    for number in range(15):
        bars.item(item(str(number), "Waiting"))
    bars.draw()
    for rows in (8, 24, 3, 50):
        screen.resize(rows, 80)
        bars.draw()
    found = screen.lines()
    assert found[:40] == ["before"] * 40
    assert found[-15:] == [f"{number}: Waiting" for number in range(15)]


def test_a_terminal_without_a_size(clock: Clock) -> None:
    with Screen(0, 0) as screen:
        Bars(screen.slave, clock).item(item("a", "Downloading", 1, 2))
        assert re.search(r"\[=+> {25}\]     1B/2B$", screen.lines()[0])


def test_an_interrupt_leaves_the_cursor_on_an_empty_line(bars: Bars, screen: Screen) -> None:
    def interrupted() -> None:
        with bars:
            bars.item(item("a", "Downloading", 1, 2))
            os.write(screen.slave, b"^C")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    (line,) = screen.lines()
    assert line.startswith("a: Downloading [")
    assert screen.data.endswith("\r\n\x1b[J")
    # no mode was switched on that somebody would have to switch off
    assert set(re.findall(r"\x1b\[\d*(.)", screen.data)) <= set("AKJ")


def test_nothing_to_show_draws_nothing(bars: Bars, screen: Screen) -> None:
    with bars:
        pass
    bars.summary()
    assert screen.read() == ""


def test_what_a_registry_says_cannot_command_the_terminal(bars: Bars, screen: Screen) -> None:
    bars.item(item("a\x1b[2J", "Down\rload\u202e", 0, 0))
    assert screen.lines() == ["a?[2J: Down?load?"]


def test_a_summary_of_what_was_fetched(bars: Bars, screen: Screen) -> None:
    bars.item(item("a", "Exists", 30 * MB, 30 * MB))
    # the first 2 MB of b were there from an earlier try
    bars.item(item("b", "Downloading", 2 * MB, 12 * MB))
    bars.item(item("b", "Downloading", 12 * MB, 12 * MB))
    bars.item(item("b", "Done", 12 * MB, 12 * MB))
    bars.summary()
    bars.draw()
    assert screen.lines() == [
        "a: Exists",
        "b: Done",
        "2 layers, 42MB: 10MB fetched, 32MB already there",
    ]


def test_a_layer_that_is_fetched_again(bars: Bars, screen: Screen) -> None:
    for status, current in (("Downloading", 6), ("Downloading", 8), ("Downloading", 0)):
        bars.item(item("a", status, current * MB, 10 * MB))
    bars.item(item("a", "Done", 10 * MB, 10 * MB))
    bars.summary()
    assert screen.lines()[1] == "1 layer, 10MB: 12MB fetched, 0B already there"


def test_a_size_that_nobody_knows(bars: Bars, screen: Screen, clock: Clock) -> None:
    # -1 for a blob of an old manifest, 0 for what is no layer
    bars.item(item("a", "Downloading", 5 * MB, -1))
    clock.now += 1
    bars.item(item("registry.example", "Waiting for the clock"))
    assert screen.lines() == ["a: Downloading 5MB", "registry.example: Waiting for the clock"]
    bars.item(item("a", "Done", 6 * MB, -1))
    bars.item(item("registry.example", "Done"))
    bars.summary()
    assert screen.lines() == [
        "a: Done",
        "registry.example: Done",
        "1 layer, 6MB: 1MB fetched, 5MB already there",
    ]


def test_a_closed_terminal_is_no_reason_to_fail(clock: Clock) -> None:
    read, write = os.pipe()
    os.close(read)
    lines = Lines(write, clock)
    lines.item(item("a", "Downloading"))
    os.close(write)
    lines.item(item("a", "Done"))


# the commands


PULLED = [
    ("v", item("a", "Waiting", 0, 2000)),
    ("v", item("a", "Downloading", 0, 2000)),
    ("v", item("a", "Downloading", 1000, 2000)),
    ("v", item("b", "Exists", 500, 500)),
    ("v", item("a", "Extracting", 2000, 2000)),
    ("v", item("a", "Done", 2000, 2000)),
]
LINES = ["a: Waiting", "a: Downloading", "b: Exists", "a: Extracting", "a: Done"]
SUMMARY = "2 layers, 2.5kB: 2kB fetched, 500B already there"


def on_terminal(monkeypatch: pytest.MonkeyPatch, screen: Screen, *fds: int) -> None:
    """Makes the client take the screen for what these descriptors are."""
    real = progress.Bars
    monkeypatch.setattr("isula_cli.progress.posix.isatty", lambda fd: fd in fds)
    monkeypatch.setattr("isula_cli.progress.Bars", lambda fd: real(screen.slave))
    monkeypatch.setitem(posix.environ, b"TERM", b"xterm")
    monkeypatch.delitem(posix.environ, b"NO_COLOR", raising=False)


def test_pull_into_a_pipe(daemon: Served, isula: Isula) -> None:
    daemon.methods["image.pull"] = answer({"ref": "x:1", "id": "1"}, *PULLED)
    done = isula("pull", "x:1")
    assert (done.status, done.out) == (0, "")
    assert done.err.splitlines() == [
        'Image "x:1" pulling',
        *LINES,
        SUMMARY,
        'Image "x:1" pulled',
    ]
    assert isula("pull", "-q", "x:1") == (0, "x:1\n", "")


@pytest.mark.parametrize("fds", [(1, 2), (1,), (2,)])
def test_pull_on_a_terminal(
    daemon: Served,
    isula: Isula,
    monkeypatch: pytest.MonkeyPatch,
    screen: Screen,
    fds: tuple[int, ...],
) -> None:
    on_terminal(monkeypatch, screen, *fds)
    daemon.methods["image.pull"] = answer({"ref": "x:1", "id": "1"}, *PULLED)
    done = isula("pull", "x:1")
    assert (done.status, done.out) == (0, "")
    assert done.err.splitlines() == ['Image "x:1" pulling', 'Image "x:1" pulled']
    assert screen.lines() == ["a: Done", "b: Exists", SUMMARY]


@pytest.mark.parametrize(("name", "value"), [(b"TERM", b"dumb"), (b"NO_COLOR", b"1")])
def test_plain_lines_for_who_wants_them(
    daemon: Served,
    isula: Isula,
    monkeypatch: pytest.MonkeyPatch,
    screen: Screen,
    name: bytes,
    value: bytes,
) -> None:
    on_terminal(monkeypatch, screen, 1, 2)
    monkeypatch.setitem(posix.environ, name, value)
    daemon.methods["image.pull"] = answer({"ref": "x:1", "id": "1"}, *PULLED)
    assert isula("pull", "x:1").err.splitlines()[1:-2] == LINES
    assert screen.read() == ""


def test_a_pull_that_fails_has_no_summary(daemon: Served, isula: Isula) -> None:
    async def fail(_params: dict[str, Any], session: Session) -> dict[str, Any]:
        await session.item(item("a", "Downloading", 0, 5))
        raise errors.Unavailable("the registry is gone")

    daemon.methods["image.pull"] = fail
    done = isula("pull", "x:1")
    assert done.status == 1
    assert done.err.splitlines() == [
        'Image "x:1" pulling',
        "a: Downloading",
        "Error response from daemon: the registry is gone",
    ]


@pytest.mark.parametrize(
    ("words", "method", "result", "out"),
    [
        (("load", "-i", "/x.tar"), "image.load", {"images": ["x:1"]}, "Loaded image: x:1\n"),
        (("import", "/x.tar", "x:1"), "image.import", {"id": "1"}, "1\n"),
    ],
)
def test_load_and_import_show_progress_on_standard_error(
    daemon: Served,
    isula: Isula,
    words: tuple[str, ...],
    method: str,
    result: dict[str, Any],
    out: str,
) -> None:
    items = [("v", item("a", "Extracting", at, 3)) for at in range(3)]
    daemon.methods[method] = answer(result, *items, ("v", item("a", "Done", 3, 3)))
    assert isula(*words) == (0, out, "a: Extracting\na: Done\n")


def test_load_quietly(daemon: Served, isula: Isula) -> None:
    found = answer({"images": ["x:1"]}, ("v", item("a", "Done", 3, 3)))
    daemon.methods["image.load"] = found
    assert isula("load", "-q", "-i", "/x.tar") == (0, "Loaded image: x:1\n", "")


def test_what_is_sent_is_shown_too(
    daemon: Served, isula: Isula, monkeypatch: pytest.MonkeyPatch, screen: Screen, tmp_path: Any
) -> None:
    async def load(_params: dict[str, Any], session: Session) -> dict[str, Any]:
        total = 0
        async for kind, value in session.input():
            if kind == "eof":
                break
            total += len(value) if isinstance(value, bytes) else 0
        return {"images": [f"{total} bytes"]}

    daemon.methods["image.load"] = load
    archive = tmp_path / "x.tar"
    archive.write_bytes(bytes(200_000))
    kept = os.dup(0)
    try:
        with archive.open("rb") as file:
            os.dup2(file.fileno(), 0)
        assert isula("load", "-i", "-") == (
            0,
            "Loaded image: 200000 bytes\n",
            "stdin: Sending\nstdin: Sent\n",
        )
        on_terminal(monkeypatch, screen, 2)
        os.lseek(0, 50_000, os.SEEK_SET)
        assert isula("load", "-i", "-") == (0, "Loaded image: 150000 bytes\n", "")
    finally:
        os.dup2(kept, 0)
        os.close(kept)
    assert screen.lines() == ["stdin: Sent"]
    assert "/150kB" in screen.data
