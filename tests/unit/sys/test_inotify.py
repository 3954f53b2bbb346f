"""Watching files: every callback hears of its own path, until it is removed."""

from __future__ import annotations

import asyncio
import os
import struct
from typing import TYPE_CHECKING

import pytest

from isula_edge.sys import syscalls
from isula_edge.sys.inotify import Watcher

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

MADE = syscalls.IN_CREATE | syscalls.IN_MOVED_TO
WRITTEN = syscalls.IN_MODIFY | syscalls.IN_CLOSE_WRITE


class Heard(asyncio.Queue[str]):
    """Names that a callback was called with."""

    def __call__(self, name: str) -> None:
        self.put_nowait(name)


def watching(work: Callable[[Watcher], Awaitable[None]]) -> None:
    async def main() -> None:
        watcher = Watcher()
        try:
            await work(watcher)
        finally:
            watcher.close()

    asyncio.run(main())


def test_a_new_file_is_heard_of_by_name(tmp_path: Path) -> None:
    async def work(watcher: Watcher) -> None:
        heard = Heard()
        watcher.add(str(tmp_path), MADE, heard)
        (tmp_path / "new").touch()
        os.rename(tmp_path / "new", tmp_path / "moved")
        assert [await heard.get(), await heard.get()] == ["new", "moved"]

    watching(work)


def test_a_watched_file_is_heard_of_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "log").touch()

    async def work(watcher: Watcher) -> None:
        heard = Heard()
        watcher.add(str(tmp_path / "log"), WRITTEN, heard)
        (tmp_path / "log").write_text("x")
        assert await heard.get() == ""

    watching(work)


def test_several_callbacks_share_a_path(tmp_path: Path) -> None:
    async def work(watcher: Watcher) -> None:
        one, two, end = Heard(), Heard(), Heard()
        number = watcher.add(str(tmp_path), MADE, one)
        watcher.add(str(tmp_path), MADE, two)
        (tmp_path / "a").touch()
        assert [await one.get(), await two.get()] == ["a", "a"]
        watcher.remove(number)
        watcher.add(str(tmp_path), MADE, end)
        (tmp_path / "b").touch()
        assert [await two.get(), await end.get()] == ["b", "b"]
        assert one.empty()

    watching(work)


def test_the_last_one_removed_ends_the_watch(tmp_path: Path) -> None:
    async def work(watcher: Watcher) -> None:
        other = tmp_path / "other"
        other.mkdir()
        gone, end = Heard(), Heard()
        number = watcher.add(str(tmp_path), MADE, gone)
        watcher.remove(number)
        watcher.remove(number)
        watcher.add(str(other), MADE, end)
        (tmp_path / "a").touch()
        (other / "b").touch()
        assert await end.get() == "b"
        assert gone.empty()

    watching(work)


def test_a_directory_that_goes_away_takes_its_watch_along(tmp_path: Path) -> None:
    async def work(watcher: Watcher) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        gone, end = Heard(), Heard()
        number = watcher.add(str(folder), MADE, gone)
        watcher.add(str(tmp_path), MADE, end)
        folder.rmdir()
        (tmp_path / "after").touch()
        assert await end.get() == "after"
        assert gone.empty()
        watcher.remove(number)

    watching(work)


def test_after_an_overflow_everybody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(watcher: Watcher) -> None:
        one, two = Heard(), Heard()
        other = tmp_path / "other"
        other.mkdir()
        watcher.add(str(tmp_path), MADE, one)
        watcher.add(str(other), MADE, two)
        event = struct.pack("iIII", -1, 0x4000, 0, 0)
        monkeypatch.setattr(os, "read", lambda _fd, _size: event)
        watcher._readable()
        monkeypatch.undo()
        assert [one.get_nowait(), two.get_nowait()] == ["", ""]

    watching(work)


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    async def work(watcher: Watcher) -> None:
        with pytest.raises(FileNotFoundError) as caught:
            watcher.add(str(tmp_path / "absent"), MADE, Heard())
        assert caught.value.filename == str(tmp_path / "absent")

    watching(work)


def test_closing_twice_is_fine(tmp_path: Path) -> None:
    async def work(watcher: Watcher) -> None:
        before = len(os.listdir("/proc/self/fd"))
        watcher.add(str(tmp_path), MADE, Heard())
        watcher.close()
        watcher.close()
        assert len(os.listdir("/proc/self/fd")) == before - 1

    watching(work)
