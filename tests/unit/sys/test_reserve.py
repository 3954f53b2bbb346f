"""Spare files: a write that takes no block and no inode, whole or not at all."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.sys import atomic
from isula_edge.sys.reserve import Reserve

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def reserve(tmp_path: Path) -> Reserve:
    found = Reserve(str(tmp_path / "spare"), count=2, size=32768)
    assert found.refill()
    return found


class NoSpace:
    """A file system on which nothing new can be made; what is there can be changed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        real = os.open

        def opened(path: str, flags: int, mode: int = 0o777, **more: int) -> int:
            if flags & os.O_CREAT and not os.path.exists(path):
                self.made.append(path)
                raise OSError(errno.ENOSPC, "No space left on device", path)
            return real(path, flags, mode, **more)

        monkeypatch.setattr(os, "open", opened)


@pytest.fixture
def full(reserve: Reserve, monkeypatch: pytest.MonkeyPatch) -> NoSpace:
    del reserve  # made before the disk is full
    return NoSpace(monkeypatch)


def spares(reserve: Reserve) -> dict[str, tuple[int, bool]]:
    """Sizes of the spare files, and whether they have all their blocks."""
    found = {}
    for name in sorted(os.listdir(reserve.folder)):
        status = os.stat(f"{reserve.folder}/{name}")
        found[name] = status.st_size, status.st_blocks * 512 >= status.st_size
    return found


def test_spare_files_have_their_blocks(reserve: Reserve) -> None:
    assert spares(reserve) == {"0": (32768, True), "1": (32768, True)}


def test_nothing_is_made_before_it_is_asked_for(tmp_path: Path) -> None:
    Reserve(str(tmp_path / "spare"))
    assert not (tmp_path / "spare").exists()


def test_a_full_disk_takes_a_write_that_has_a_spare(
    reserve: Reserve, full: NoSpace, tmp_path: Path
) -> None:
    target = tmp_path / "record"
    fd = os.open(str(tmp_path / "spare" / "0"), os.O_RDONLY)
    inode = os.fstat(fd).st_ino
    os.close(fd)
    target.write_bytes(b"old")
    with pytest.raises(errors.NoSpace):
        atomic.write(str(target), b"new", 0o640)
    assert target.read_bytes() == b"old"
    for text in (b"first", b"second"):
        atomic.write(str(target), text, 0o640, spare=reserve)
        assert target.read_bytes() == text
        assert target.stat().st_mode & 0o777 == 0o640
    assert target.stat().st_ino == inode
    # both are gone, and no other can be made
    with pytest.raises(errors.NoSpace):
        atomic.write(str(target), b"third", spare=reserve)
    assert target.read_bytes() == b"second"
    assert full.made
    assert not [name for name in os.listdir(tmp_path) if name.startswith(atomic.TEMP_PREFIX)]


def test_what_was_used_is_made_again(reserve: Reserve, tmp_path: Path) -> None:
    target = tmp_path / "record"
    target.write_bytes(b"old")
    assert reserve.write(str(target), b"new")
    assert target.read_bytes() == b"new"
    assert spares(reserve) == {"0": (32768, True), "1": (32768, True)}


@pytest.mark.parametrize("left", [b"", b"x" * 100, b"x" * 40_000])
def test_a_spare_that_a_crash_left_is_made_whole(
    reserve: Reserve, left: bytes, tmp_path: Path
) -> None:
    (tmp_path / "spare" / "1").write_bytes(left)
    assert reserve.refill()
    assert spares(reserve) == {"0": (32768, True), "1": (32768, True)}


def test_it_grows_to_the_largest_record(reserve: Reserve, tmp_path: Path) -> None:
    target = tmp_path / "record"
    target.write_bytes(b"old")
    large = os.urandom(50_000)
    assert not reserve.write(str(target), large)
    reserve.fit(len(large))
    assert spares(reserve) == {"0": (65536, True), "1": (65536, True)}
    assert reserve.write(str(target), large)
    assert target.read_bytes() == large
    reserve.fit(10)
    assert reserve.refill()
    assert spares(reserve) == {"0": (65536, True), "1": (65536, True)}


def test_growing_without_space_is_said_and_leaves_what_there_was(
    reserve: Reserve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = os.posix_fallocate

    def refuse(fd: int, offset: int, size: int) -> None:
        if size > 32768:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(errors.NoSpace):
        reserve.fit(40_000)
    target = tmp_path / "record"
    target.write_bytes(b"old")
    assert reserve.write(str(target), b"new")
    assert spares(reserve) == {"0": (32768, True), "1": (32768, True)}


def test_a_target_of_another_file_system_is_no_success(
    reserve: Reserve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link", source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="cross-device"):
        reserve.write(str(tmp_path / "record"), b"new")
