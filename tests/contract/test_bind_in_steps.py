"""Binds by mount(2) alone, as kernels before mount_setattr(2) have it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from isula_edge.sys import mounts, syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root]


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    """A mount without devices, and one below it."""
    source = tmp_path / "source"
    source.mkdir()
    syscalls.mount("outer", str(source), "tmpfs", syscalls.MS_NODEV)
    (source / "below").mkdir()
    syscalls.mount("inner", str(source / "below"), "tmpfs", syscalls.MS_NOSUID)
    yield source
    mounts.detach(str(source))


def flags(path: Path) -> int:
    wanted = os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC
    return os.statvfs(path).f_flag & wanted


def test_flags_are_added_to_the_mount_alone(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "run" / "0"
    mounts.bind_in_steps(str(source), str(place), syscalls.MS_NOEXEC, private=True)
    try:
        assert flags(place) == os.ST_NODEV | os.ST_NOEXEC
        assert flags(place / "below") == os.ST_NOSUID
        assert flags(source) == os.ST_NODEV
    finally:
        mounts.detach(str(place))


def test_read_only_reaches_what_is_below(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "0"
    mounts.bind_in_steps(str(source), str(place), private=True, read_only=True)
    try:
        assert flags(place) == os.ST_NODEV | os.ST_RDONLY
        assert flags(place / "below") == os.ST_NOSUID | os.ST_RDONLY
        (source / "below" / "file").touch()
        assert (place / "below" / "file").exists()
        with pytest.raises(OSError, match="Read-only"):
            (place / "below" / "other").touch()
    finally:
        mounts.detach(str(place))


def test_a_file(tmp_path: Path) -> None:
    file, place = tmp_path / "file", tmp_path / "places" / "1"
    file.write_text("text")
    mounts.bind_in_steps(str(file), str(place), syscalls.MS_NOSUID, read_only=True)
    try:
        assert place.read_text() == "text"
        assert flags(place) == os.ST_NOSUID | os.ST_RDONLY
    finally:
        mounts.detach(str(place))


def test_what_is_not_there_leaves_nothing_mounted(tmp_path: Path) -> None:
    place = tmp_path / "place"
    with pytest.raises(FileNotFoundError):
        mounts.bind_in_steps(str(tmp_path / "none"), str(place))
    assert mounts.below(str(tmp_path)) == []
