"""Logs of containers: lines and their parts, the last ones, and those still to come."""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isula_edge.container import logs
from isula_edge.container.logs import LogLine, follow, parse, read_tail, stamp_ns, utc
from isula_edge.sys.inotify import Watcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

STAMP = "2024-02-29T12:30:45.123456789+00:00"
AT = 1709209845 * 10**9 + 123456789


def line(text: str, *, stream: str = "stdout", part: str = "F") -> bytes:
    return f"{STAMP} {stream} {part} {text}\n".encode()


PARSED = [
    (b"T stdout F text", LogLine("T", False, b"text\n")),
    (b"T stderr F text", LogLine("T", True, b"text\n")),
    (b"T stdout P par", LogLine("T", False, b"par")),
    (b"T stdout F ", LogLine("T", False, b"\n")),
    (b"T stdout P ", LogLine("T", False, b"")),
    (b"T stdout F  two  blanks ", LogLine("T", False, b" two  blanks \n")),
    (b"T stdout F \xff\0\x1b[1m", LogLine("T", False, b"\xff\0\x1b[1m\n")),
    (b"T stdout F F P F", LogLine("T", False, b"F P F\n")),
    (b"", None),
    (b"text", None),
    (b"T stdout F", None),
    (b"T stdout X text", None),
    (b"\0" * 100, None),
]


@pytest.mark.parametrize(("raw", "parsed"), PARSED)
def test_a_line(raw: bytes, parsed: LogLine | None) -> None:
    assert parse(raw) == parsed


@given(st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_line_or_none(raw: bytes) -> None:
    found = parse(raw)
    assert found is None or found.data.rstrip(b"\n") in raw


STAMPS = [
    (STAMP, AT, "2024-02-29T12:30:45.123456789Z"),
    ("2024-02-29T14:30:45.123456789+02:00", AT, "2024-02-29T12:30:45.123456789Z"),
    ("2024-02-29T07:00:45.123456789-05:30", AT, "2024-02-29T12:30:45.123456789Z"),
    ("2024-02-29T12:30:45.123456789Z", AT, "2024-02-29T12:30:45.123456789Z"),
    ("2038-01-19T03:14:08.000000001+00:00", 2**31 * 10**9 + 1, "2038-01-19T03:14:08.000000001Z"),
]


@pytest.mark.parametrize(("stamp", "at", "shown"), STAMPS)
def test_a_time_stamp(stamp: str, at: int, shown: str) -> None:
    assert stamp_ns(stamp) == at
    assert utc(stamp) == shown


@pytest.mark.parametrize("stamp", ["", "x", "2024", "2024-02-29", "2024-02-29T12:30:45", "T" * 40])
def test_a_time_stamp_that_cannot_be_read(stamp: str) -> None:
    assert stamp_ns(stamp) == 0
    assert utc(stamp) == stamp


def texts(path: Path, tail: int) -> list[bytes]:
    return [found.data for found in read_tail(str(path), tail)[0]]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "console.log"
    parts = [
        line("one"),
        line("tw", part="P"),
        line("o", part="F"),
        line("err", stream="stderr"),
        line("th", part="P"),
        line("re", part="P"),
        line("e"),
    ]
    path.write_bytes(b"".join(parts))
    return path


TAILS = [
    (0, []),
    (1, [b"th", b"re", b"e\n"]),
    (2, [b"err\n", b"th", b"re", b"e\n"]),
    (3, [b"tw", b"o\n", b"err\n", b"th", b"re", b"e\n"]),
    (4, [b"one\n", b"tw", b"o\n", b"err\n", b"th", b"re", b"e\n"]),
    (5, [b"one\n", b"tw", b"o\n", b"err\n", b"th", b"re", b"e\n"]),
    (-1, [b"one\n", b"tw", b"o\n", b"err\n", b"th", b"re", b"e\n"]),
]


@pytest.mark.parametrize(("tail", "found"), TAILS)
def test_the_last_lines_have_all_their_parts(log: Path, tail: int, found: list[bytes]) -> None:
    assert texts(log, tail) == found


@pytest.mark.parametrize("tail", [-1, 0, 5])
def test_the_offset_is_behind_the_last_whole_line(log: Path, tail: int) -> None:
    size = log.stat().st_size
    with open(log, "ab") as file:
        file.write(line("unfinished")[:-4])
    found, offset = read_tail(str(log), tail)
    assert offset == size
    assert b"unfin" not in b"".join(item.data for item in found)


@pytest.mark.parametrize("tail", [-1, 0, 3])
def test_a_container_that_never_ran_has_no_log(tmp_path: Path, tail: int) -> None:
    found, offset = read_tail(str(tmp_path / "absent"), tail)
    assert (list(found), offset) == ([], 0)


@pytest.mark.parametrize("tail", [-1, 0, 3])
def test_an_empty_log(tmp_path: Path, tail: int) -> None:
    (tmp_path / "log").touch()
    found, offset = read_tail(str(tmp_path / "log"), tail)
    assert (list(found), offset) == ([], 0)


def test_damaged_lines_are_left_out(log: Path) -> None:
    whole = log.read_bytes()
    log.write_bytes(b"\0" * 500 + b"\n" + whole + b"garbage\n" + line("last"))
    assert texts(log, 1) == [b"last\n"]
    assert texts(log, 2) == [b"th", b"re", b"e\n", b"last\n"]
    assert texts(log, -1)[-1] == b"last\n"


def test_what_is_written_while_the_log_is_read_is_for_the_follower(log: Path) -> None:
    found, offset = read_tail(str(log), -1)
    with open(log, "ab") as file:
        file.write(line("later"))
    assert len(list(found)) == 7
    with open(log, "rb") as file:
        file.seek(offset)
        assert file.read() == line("later")


@pytest.mark.parametrize("block", [1, 7, 64, 100])
def test_blocks_of_any_size_give_the_same_lines(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_BLOCK", block)
    source = random.Random(block)
    pieces = [
        line("x" * source.randrange(0, 90), part=source.choice("PFF"), stream="stderr")
        for _ in range(60)
    ]
    pieces.append(line("end"))
    (tmp_path / "log").write_bytes(b"".join(pieces))
    everything = texts(tmp_path / "log", -1)
    whole = [at for at, data in enumerate(everything) if data.endswith(b"\n")]
    for tail in range(1, len(whole) + 2):
        first = whole[-tail - 1] + 1 if tail < len(whole) else 0
        assert texts(tmp_path / "log", tail) == everything[first:]


class Following:
    """A reader that follows a log, and what it has read so far."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.ended = asyncio.Event()
        self._watcher = Watcher()
        self._source: AsyncIterator[LogLine] = follow(str(path), offset, self._watcher, self.ended)
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for found in self._source:
            self.lines.put_nowait(found.data)

    async def end(self) -> list[bytes]:
        """What is still read after the end of the container."""
        self.ended.set()
        await self._task
        self._watcher.close()
        return [self.lines.get_nowait() for _ in range(self.lines.qsize())]


def append(path: Path, data: bytes) -> None:
    with open(path, "ab") as file:
        file.write(data)


def following(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await work()

    asyncio.run(main())


def test_lines_are_followed_as_they_come(log: Path) -> None:
    async def work() -> None:
        reader = Following(log, log.stat().st_size)
        for number in range(3):
            append(log, line(str(number)))
            assert await reader.lines.get() == b"%d\n" % number
        assert await reader.end() == []

    following(work)


def test_a_log_that_does_not_exist_yet_is_waited_for(tmp_path: Path) -> None:
    async def work() -> None:
        reader = Following(tmp_path / "log")
        append(tmp_path / "other", b"x")
        append(tmp_path / "log", line("first"))
        assert await reader.lines.get() == b"first\n"
        assert await reader.end() == []

    following(work)


def test_everything_is_read_before_a_follower_ends(log: Path) -> None:
    async def work() -> None:
        reader = Following(log)
        append(log, line("last words"))
        found = await reader.end()
        assert len(found) == 8
        assert found[-1] == b"last words\n"

    following(work)


def test_a_line_is_followed_when_it_is_whole(log: Path) -> None:
    async def work() -> None:
        reader = Following(log, log.stat().st_size)
        whole = line("a long line")
        append(log, whole[:-5])
        append(log, whole[-5:] + line("next"))
        assert [await reader.lines.get(), await reader.lines.get()] == [b"a long line\n", b"next\n"]
        append(log, line("never finished")[:-1])
        assert await reader.end() == []

    following(work)


def test_a_rotated_log_is_read_on_from_the_start_of_the_new_one(log: Path) -> None:
    async def work() -> None:
        reader = Following(log, log.stat().st_size)
        append(log, line("before"))
        assert await reader.lines.get() == b"before\n"
        new = log.with_suffix(".tmp")
        new.write_bytes(line("x" * 1000) + line("after"))
        os.rename(new, log)
        assert await reader.lines.get() == b"x" * 1000 + b"\n"
        assert await reader.lines.get() == b"after\n"
        append(log, line("on"))
        assert await reader.lines.get() == b"on\n"
        assert await reader.end() == []

    following(work)


def test_a_log_that_was_cut_short_is_read_from_its_start(log: Path) -> None:
    async def work() -> None:
        reader = Following(log, log.stat().st_size)
        append(log, line("before"))
        assert await reader.lines.get() == b"before\n"
        log.write_bytes(line("again"))
        assert await reader.lines.get() == b"again\n"
        assert await reader.end() == []

    following(work)


def test_a_follower_that_is_given_up_leaves_no_watch(log: Path) -> None:
    async def work() -> None:
        watcher = Watcher()
        source = follow(str(log), 0, watcher, asyncio.Event())
        async for found in source:
            assert found.data == b"one\n"
            break
        await source.aclose()  # type: ignore[attr-defined]
        assert watcher._callbacks == {}
        watcher.close()

    following(work)
