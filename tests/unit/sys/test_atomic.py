"""Durable files: what is synced and in which order, and what a crash in between leaves."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NoReturn

import pytest

from isula_edge import errors
from isula_edge.sys import atomic

if TYPE_CHECKING:
    from pathlib import Path


class Calls:
    """What was asked of the file system, in order; ``fail_at`` is the one that fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.fail_at = ""
        self.error: BaseException = OSError(errno.EIO, "input/output error")
        self._fsync, self._rename = os.fsync, os.rename
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "rename", self.rename)

    def note(self, what: str) -> None:
        self.done.append(what)
        if what == self.fail_at:
            raise self.error

    def fsync(self, fd: int) -> None:
        self.note("fsync directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "fsync file")
        self._fsync(fd)

    def rename(self, source: str, target: str) -> None:
        assert os.path.dirname(source) == os.path.dirname(target)
        assert os.path.basename(source).startswith(atomic.TEMP_PREFIX)
        self.note("rename")
        self._rename(source, target)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


@pytest.fixture
def old(tmp_path: Path) -> str:
    path = tmp_path / "record"
    path.write_bytes(b"old")
    return str(path)


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def test_data_is_synced_before_the_name_and_the_name_before_the_return(
    calls: Calls, old: str
) -> None:
    atomic.write(old, b"new")
    assert calls.done == ["fsync file", "rename", "fsync directory"]
    assert read(old) == b"new"


def test_nothing_is_synced_on_tmpfs(calls: Calls, old: str) -> None:
    atomic.write(old, b"new", durable=False)
    assert calls.done == ["rename"]
    assert read(old) == b"new"


@pytest.mark.parametrize(
    ("fail_at", "left"),
    [("fsync file", b"old"), ("rename", b"old"), ("fsync directory", b"new")],
)
def test_a_failure_in_between_leaves_old_or_new(
    calls: Calls, old: str, fail_at: str, left: bytes
) -> None:
    calls.fail_at = fail_at
    with pytest.raises(OSError, match="input/output"):
        atomic.write(old, b"new")
    assert read(old) == left
    assert os.listdir(os.path.dirname(old)) == ["record"]


@pytest.mark.parametrize("fail_at", ["fsync file", "rename"])
def test_a_power_cut_in_between_leaves_the_old_file_and_what_sweep_removes(
    calls: Calls, old: str, fail_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_path: str) -> NoReturn:
        raise OSError(errno.EIO, "the machine is off")

    calls.fail_at = fail_at
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", never)
        with pytest.raises(OSError, match="input/output"):
            atomic.write(old, b"new")
    folder = os.path.dirname(old)
    assert read(old) == b"old"
    assert len(os.listdir(folder)) == 2
    assert atomic.sweep(folder) == 1
    assert os.listdir(folder) == ["record"]


def test_sweep_leaves_everything_else(tmp_path: Path) -> None:
    for name in ("record", "tmp-1", ".tmp", ".tmp-1-x", ".tmp-2"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".tmp-directory").mkdir()
    assert atomic.sweep(str(tmp_path)) == 2
    assert sorted(os.listdir(tmp_path)) == [".tmp", ".tmp-directory", "record", "tmp-1"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("fail_at", ["fsync file", "rename", "fsync directory"])
def test_a_full_file_system_is_no_space(calls: Calls, old: str, number: int, fail_at: str) -> None:
    calls.fail_at, calls.error = fail_at, OSError(number, "full")
    with pytest.raises(errors.NoSpace, match="no space left") as caught:
        atomic.write(old, b"new")
    assert caught.value.ref == old
    assert "isula rm" in caught.value.hint


def test_short_writes_are_continued(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    data = os.urandom(100)
    atomic.write(old, data)
    assert read(old) == data


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400])
def test_the_mode_is_the_one_asked_for(tmp_path: Path, mode: int) -> None:
    path = str(tmp_path / "file")
    atomic.write(path, b"x", mode)
    assert stat.S_IMODE(os.stat(path).st_mode) == mode


def test_a_symbolic_link_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"keep")
    (tmp_path / "link").symlink_to("elsewhere")
    atomic.write(str(tmp_path / "link"), b"new")
    assert (tmp_path / "elsewhere").read_bytes() == b"keep"
    assert not (tmp_path / "link").is_symlink()


def test_a_missing_folder_is_an_error_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        atomic.write(str(tmp_path / "absent" / "file"), b"x")


def test_no_descriptor_is_left_open(calls: Calls, old: str) -> None:
    def descriptors() -> list[str]:
        return sorted(os.listdir("/proc/self/fd"))

    before = descriptors()
    for fail_at in ("", "fsync file", "rename", "fsync directory"):
        calls.fail_at = fail_at
        if fail_at:
            with pytest.raises(OSError, match="input/output"):
                atomic.write(old, b"new")
        else:
            atomic.write(old, b"new")
    assert descriptors() == before


def test_directories_are_made_with_their_parents_and_each_is_durable(
    calls: Calls, tmp_path: Path
) -> None:
    atomic.make_dir(str(tmp_path / "a" / "b" / "c"))
    assert calls.done == ["fsync directory"] * 3
    assert stat.S_IMODE((tmp_path / "a" / "b" / "c").stat().st_mode) == 0o700
    atomic.make_dir(str(tmp_path / "a" / "b" / "c"))
    assert len(calls.done) == 3


def test_a_file_in_the_way_of_a_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"keep")
    with pytest.raises(NotADirectoryError):
        atomic.make_dir(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a").read_bytes() == b"keep"


def test_no_space_for_a_directory_is_no_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: str, _mode: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(errors.NoSpace):
        atomic.make_dir(str(tmp_path / "a"))


def test_a_whole_tree_is_synced(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    atomic.fsync_tree(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        atomic.fsync_tree(str(tmp_path / "absent"))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EROFS])
def test_other_errors_stay_what_they_are(number: int) -> None:
    with pytest.raises(OSError, match="text") as caught, atomic.space_errors("/x"):
        raise OSError(number, "text")
    assert caught.value.errno == number
