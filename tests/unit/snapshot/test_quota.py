"""Project quotas: which numbers are taken is the file system's to know."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.snapshot import quota
from isula_edge.snapshot.filesystem import Mount
from isula_edge.snapshot.quota import ProjectQuota
from isula_edge.sys import syscalls

if TYPE_CHECKING:
    from pathlib import Path

MB = 1 << 20
GET, SET, STATE = 0x580302, 0x580402, 0x580502


class Disk:
    """A file system with project quotas, and the projects of directories on it."""

    def __init__(self) -> None:
        self.flags = 0x30
        self.limits: dict[int, int] = {}
        self.files: dict[int, int] = {}
        self.projects: dict[str, int] = {}
        self.failure = 0
        self.devices: list[str] = []

    def quotactl_fd(
        self, _fd: int, command: int, number: int, data: ctypes.Array[ctypes.c_char]
    ) -> None:
        if self.failure:
            raise OSError(self.failure, os.strerror(self.failure))
        if command == STATE:
            ctypes.memmove(data, b"\1\0" + self.flags.to_bytes(2, sys.byteorder), 4)
        elif command == SET:
            version, kind, fields, number_in, hard, soft, *_ = quota._QUOTA.unpack(data.raw)
            assert (version, kind, fields, number_in) == (1, 2, 12, number)
            assert hard == soft
            self.limits[number] = hard * 512
        elif number not in self.files and number not in self.limits:
            raise OSError(errno.ENOENT, "No such file or directory")
        else:
            hard = self.limits.get(number, 0) // 512
            row = (1, 2, 0, number, hard, hard, 0, 0, 0, self.files.get(number, 0))
            ctypes.memmove(data, quota._QUOTA.pack(*row), quota._QUOTA.size)

    def quotactl(
        self, command: int, device: str, number: int, data: ctypes.Array[ctypes.c_char]
    ) -> None:
        self.devices.append(device)
        failure, self.failure = self.failure, 0
        self.quotactl_fd(-1, command, number, data)
        self.failure = failure

    def set_project(self, folder: str, number: int) -> None:
        self.projects[folder] = number
        self.files[number] = self.files.get(number, 0) + 1


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(syscalls, "quotactl_fd", made.quotactl_fd)
    monkeypatch.setattr(syscalls, "quotactl", made.quotactl)
    monkeypatch.setattr(quota, "_set_project", made.set_project)
    monkeypatch.setattr(quota, "backing_mount", lambda _path: Mount("ext4", "/dev/null", ()))
    return made


def test_every_layer_has_a_project_of_its_own(disk: Disk, tmp_path: Path) -> None:
    found = ProjectQuota(str(tmp_path))
    assert found.why_not() == ""
    found.require("a size")
    for number, name in enumerate("abc", 1):
        found.limit(name, number * MB)
    assert len(set(disk.projects.values())) == 3
    assert sorted(disk.limits.values()) == [MB, 2 * MB, 3 * MB]
    assert min(disk.limits) >= 1 << 30


def test_what_others_use_is_left_alone(disk: Disk, tmp_path: Path) -> None:
    found = ProjectQuota(str(tmp_path))
    disk.files = {found._first: 7, found._first + 1: 1}
    found.limit("a", MB)
    assert disk.projects == {"a": found._first + 2}
    assert disk.limits == {found._first + 2: MB}


def test_a_new_engine_knows_them_again(disk: Disk, tmp_path: Path) -> None:
    ProjectQuota(str(tmp_path)).limit("a", MB)
    ProjectQuota(str(tmp_path)).limit("b", 2 * MB)
    assert disk.projects["a"] != disk.projects["b"]


def test_a_number_is_free_again_when_its_files_are_gone(disk: Disk, tmp_path: Path) -> None:
    found = ProjectQuota(str(tmp_path))
    found.limit("a", MB)
    number = disk.projects["a"]
    found.release(number)
    assert disk.limits[number] == MB
    disk.files[number] = 0
    found.release(number)
    assert disk.limits[number] == 0
    found.limit("b", 2 * MB)
    assert disk.projects["b"] == number


def test_a_limit_that_a_crash_left_is_no_hindrance(disk: Disk, tmp_path: Path) -> None:
    found = ProjectQuota(str(tmp_path))
    disk.limits[found._first] = 5 * MB
    found.limit("a", MB)
    assert disk.limits == {found._first: MB}


@pytest.mark.parametrize("number", [0, 1, 1000, (1 << 31) + (1 << 30)])
def test_projects_of_others_keep_their_limits(disk: Disk, tmp_path: Path, number: int) -> None:
    disk.limits[number] = MB
    ProjectQuota(str(tmp_path)).release(number)
    assert disk.limits == {number: MB}


def test_sizes_are_rounded_up_to_blocks(disk: Disk, tmp_path: Path) -> None:
    ProjectQuota(str(tmp_path)).limit("a", 4097)
    assert list(disk.limits.values()) == [4608]


def test_without_the_newer_call_the_device_is_named(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.failure = errno.ENOSYS
    monkeypatch.setattr(quota, "_is_device", lambda path, _number: path == "/dev/null")
    ProjectQuota(str(tmp_path)).limit("a", MB)
    assert set(disk.devices) == {"/dev/null"}
    assert list(disk.limits.values()) == [MB]


@pytest.mark.root
def test_where_dev_has_no_device_one_is_made_for_the_time(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.failure = errno.EPERM
    monkeypatch.setattr(quota, "_is_device", lambda _path, _number: False)
    seen = []

    def quotactl(command: int, device: str, number: int, data: Any) -> None:
        found = os.stat(device)
        seen.append((stat.S_ISBLK(found.st_mode), found.st_rdev))
        disk.quotactl(command, device, number, data)

    monkeypatch.setattr(syscalls, "quotactl", quotactl)
    assert ProjectQuota(str(tmp_path)).why_not() == ""
    assert seen == [(True, os.stat(tmp_path).st_dev)]
    assert os.listdir(tmp_path) == []


def test_another_failure_is_not_tried_again(disk: Disk, tmp_path: Path) -> None:
    disk.failure = errno.EIO
    assert "Input/output error" in ProjectQuota(str(tmp_path)).why_not()
    assert disk.devices == []


WHY_NOT = [
    # type, what the kernel answers, flags, the reason, what would help
    ("tmpfs", 0, 0x30, "is on tmpfs", "ext4 or xfs with -o prjquota"),
    ("ext4", errno.ENOSYS, 0, "has no project quotas", "tune2fs -O project,quota"),
    ("ext4", 0, 0x10, "without prjquota", "tune2fs -O project,quota"),
    ("xfs", errno.EINVAL, 0, "has no project quotas", "mount it with -o prjquota"),
    ("xfs", 0, 0x0F, "without prjquota", "mount it with -o prjquota"),
]


@pytest.mark.parametrize(("kind", "number", "flags", "why", "hint"), WHY_NOT)
def test_why_a_size_cannot_be_kept(
    disk: Disk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    number: int,
    flags: int,
    why: str,
    hint: str,
) -> None:
    def refuses(*_arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    disk.flags = flags
    if number:
        monkeypatch.setattr(syscalls, "quotactl_fd", refuses)
        monkeypatch.setattr(syscalls, "quotactl", refuses)
        monkeypatch.setattr(quota, "_is_device", lambda path, _number: path == "/dev/null")
    monkeypatch.setattr(quota, "backing_mount", lambda _path: Mount(kind, "/dev/null", ()))
    with pytest.raises(errors.Unimplemented, match="--storage-opt size is supported only") as got:
        ProjectQuota(str(tmp_path)).require("--storage-opt size")
    assert why in got.value.message
    assert hint in got.value.hint


def test_a_directory_without_a_project_has_number_0(tmp_path: Path) -> None:
    found = ProjectQuota(str(tmp_path))
    assert found.project(str(tmp_path)) == 0
    assert found.project(str(tmp_path / "absent")) == 0
