"""Logs at a path of the kubelet's: what may be one, rotation, the end of the last line."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.container import logs
from isula_edge.runtime.base import Bundle
from isula_edge.sys.inotify import Watcher
from isula_edge.types import ContainerId

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

STAMP = b"2024-02-29T12:30:45.123456789+00:00"


# paths (case A31d)


def test_paths_that_can_be_logs(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    for name in ("log", "new", "no/such/folder/0.log", "with a blank"):
        logs.check_log_path(f"{tmp_path}/{name}")
    assert os.listdir(tmp_path) == ["log"]


@pytest.mark.parametrize(
    "path", ["", "log", "/", "/var/log/", "/var/.", "/var/..", "/a\0b", "/a\nb"]
)
def test_paths_that_cannot(path: str) -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        logs.check_log_path(path)
    assert found.value.ref == path


def test_what_is_there_already(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "fifo")
    for name in ("folder", "link", "fifo", "file/below", "a:b", "x" * 300):
        with pytest.raises(errors.InvalidArgument):
            logs.check_log_path(f"{tmp_path}/{name}")
        with pytest.raises(errors.InvalidArgument):
            logs.make(f"{tmp_path}/{name}")


def test_a_log_is_made(tmp_path: Path) -> None:
    path = tmp_path / "pods/app/0.log"
    logs.make(str(path))
    assert path.read_bytes() == b""
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.write_bytes(b"kept\n")
    logs.make(str(path))
    assert path.read_bytes() == b"kept\n"


def test_a_log_that_cannot_be_made() -> None:
    with pytest.raises(errors.FailedPrecondition) as found:
        logs.make("/proc/isula/0.log")
    assert found.value.ref == "/proc/isula/0.log"


# the last line (case A31h)


def line(text: str) -> bytes:
    return STAMP + b" " + text.encode() + b"\n"


@pytest.mark.parametrize(
    ("lines", "streams"),
    [
        ([], []),
        (["stdout F whole"], []),
        (["stdout P open"], ["stdout"]),
        (["stdout P open", "stdout F "], []),
        (["stdout F whole", "stderr P open", "stdout F whole"], ["stderr"]),
        (["stderr P open", "stdout P open"], ["stderr", "stdout"]),
        (["damaged", "stdout X what"], []),
    ],
)
def test_streams_end_with_a_whole_line(
    tmp_path: Path, lines: list[str], streams: list[str]
) -> None:
    path = tmp_path / "log"
    before = b"".join(map(line, lines))
    path.write_bytes(before)
    logs.terminate(str(path))
    data = path.read_bytes()
    assert data.startswith(before)
    added = data[len(before) :].decode().splitlines()
    assert [item.split(" ", 1)[1] for item in added] == [f"{stream} F " for stream in streams]
    for item in added:
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}\+00:00 ", item)
        assert logs.stamp_ns(item.split(" ")[0]) > 0
    logs.terminate(str(path))
    assert path.read_bytes() == data


def test_a_line_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(line("stdout F whole") + line("stdout P cut")[:-3])
    logs.terminate(str(path))
    assert [item.split(b" ", 1)[1] for item in path.read_bytes().splitlines()[1:]] == [
        b"stdout P c",
        b"stdout F ",
    ]


def test_a_long_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_LAST", 1000)
    path = tmp_path / "log"
    path.write_bytes(line("stderr P far away") + line("stdout F whole") * 50 + line("stdout P x"))
    logs.terminate(str(path))
    assert path.read_bytes().splitlines()[-1].endswith(b" stdout F ")


def test_a_log_that_is_gone(tmp_path: Path) -> None:
    logs.terminate(str(tmp_path / "gone"))
    assert os.listdir(tmp_path) == []


# rotation


class Conmon:
    """What conmon does with its control FIFO, in this process."""

    def __init__(self, bundle: Bundle, *, works: bool = True) -> None:
        self.bundle, self.works = bundle, works
        self.told: list[bytes] = []
        self.heard = asyncio.Event()
        os.makedirs(bundle.run_dir, exist_ok=True)
        os.mkfifo(f"{bundle.run_dir}/ctl")
        with open(f"{bundle.run_dir}/conmon.pid", "w") as file:
            file.write(str(os.getpid()))
        self.log = open(bundle.log_path, "ab")  # noqa: SIM115  # for as long as it lives
        self.fd = os.open(f"{bundle.run_dir}/ctl", os.O_RDWR | os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(self.fd, self.readable)

    def readable(self) -> None:
        self.told.append(os.read(self.fd, 200))
        self.heard.set()
        if self.works:
            beside = f"{self.bundle.log_path}.tmp"
            self.log.close()
            self.log = open(beside, "wb")  # noqa: SIM115  # the same
            os.rename(beside, self.bundle.log_path)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.fd)
        os.close(self.fd)
        self.log.close()


def rotate(
    tmp_path: Path, work: Callable[[Bundle, Watcher], Awaitable[None]]
) -> tuple[Path, Bundle]:
    path = tmp_path / "logs/0.log"
    path.parent.mkdir()
    bundle = Bundle(
        ContainerId("c" * 64), "box", str(tmp_path), str(tmp_path / "run"), str(path), {}
    )

    async def main() -> None:
        watcher = Watcher()
        try:
            await work(bundle, watcher)
        finally:
            watcher.close()

    asyncio.run(main())
    return path, bundle


def test_a_log_is_opened_again(tmp_path: Path) -> None:
    async def work(bundle: Bundle, watcher: Watcher) -> None:
        conmon = Conmon(bundle)
        conmon.log.write(b"old\n")
        os.rename(bundle.log_path, f"{bundle.log_path}.1")
        await logs.reopen(bundle, watcher, asyncio.Event())
        conmon.log.write(b"new\n")
        conmon.close()
        assert conmon.told == [b"2 0 0\n"]

    path, _ = rotate(tmp_path, work)
    assert path.read_bytes() == b"new\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert (path.parent / "0.log.1").read_bytes() == b"old\n"
    assert sorted(os.listdir(path.parent)) == ["0.log", "0.log.1"]


def test_a_log_that_was_not_renamed_is_left(tmp_path: Path) -> None:
    async def work(bundle: Bundle, watcher: Watcher) -> None:
        conmon = Conmon(bundle)
        await logs.reopen(bundle, watcher, asyncio.Event())
        assert conmon.told == []
        # another file at its place is not the supervisor's
        os.rename(bundle.log_path, f"{bundle.log_path}.1")
        os.close(os.open(bundle.log_path, os.O_CREAT))
        await logs.reopen(bundle, watcher, asyncio.Event())
        assert conmon.told == [b"2 0 0\n"]
        conmon.close()

    rotate(tmp_path, work)


def test_a_container_that_ends_meanwhile(tmp_path: Path) -> None:
    async def work(bundle: Bundle, watcher: Watcher) -> None:
        conmon = Conmon(bundle, works=False)
        os.rename(bundle.log_path, f"{bundle.log_path}.1")
        ended = asyncio.Event()
        task = asyncio.create_task(logs.reopen(bundle, watcher, ended))
        await conmon.heard.wait()
        ended.set()
        with pytest.raises(errors.FailedPrecondition, match="not running"):
            await task
        conmon.close()

    path, _ = rotate(tmp_path, work)
    assert os.listdir(path.parent) == ["0.log.1"]


def test_a_supervisor_that_is_gone(tmp_path: Path) -> None:
    async def work(bundle: Bundle, watcher: Watcher) -> None:
        with pytest.raises(errors.FailedPrecondition, match="not running"):
            await logs.reopen(bundle, watcher, asyncio.Event())

    path, _ = rotate(tmp_path, work)
    assert os.listdir(path.parent) == []


def test_a_supervisor_that_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_REOPEN_S", 0.01)

    async def work(bundle: Bundle, watcher: Watcher) -> None:
        conmon = Conmon(bundle, works=False)
        os.rename(bundle.log_path, f"{bundle.log_path}.1")
        with pytest.raises(errors.DeadlineExceeded):
            await logs.reopen(bundle, watcher, asyncio.Event())
        conmon.close()

    path, _ = rotate(tmp_path, work)
    assert os.listdir(path.parent) == ["0.log.1"]


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    async def work(bundle: Bundle, watcher: Watcher) -> None:
        conmon = Conmon(bundle)
        os.rename(bundle.log_path, f"{bundle.log_path}.1")
        os.mkdir(f"{bundle.log_path}.tmp")
        with pytest.raises(errors.FailedPrecondition, match="cannot be made"):
            await logs.reopen(bundle, watcher, asyncio.Event())
        # conmon would end, and the container with it
        assert conmon.told == []
        conmon.close()

    rotate(tmp_path, work)
