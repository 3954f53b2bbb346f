"""storage-opts: what an administrator wants of the storage driver."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.daemon import config
from isula_edge.service.storage_options import parse
from isula_edge.snapshot import StorageOptions
from isula_edge.sys import syscalls

if TYPE_CHECKING:
    from pathlib import Path

GOOD = [
    ([], StorageOptions()),
    (["overlay2.override_kernel_check=true"], StorageOptions()),
    (["overlay2.skip_mount_home=false"], StorageOptions()),
    (["overlay2.size=10G"], StorageOptions(10 << 30)),
    (["Overlay2.SIZE=4096"], StorageOptions(4096)),
    (["overlay.basesize=1m"], StorageOptions(1 << 20)),
    (["overlay2.size=1m", "overlay2.size=2m"], StorageOptions(2 << 20)),
    (["overlay2.size=0"], StorageOptions()),
    (["overlay2.mountopt=nodev"], StorageOptions(0, syscalls.MS_NODEV)),
    (
        ["overlay2.mountopt=nodev,nosuid,metacopy=on,redirect_dir=on"],
        StorageOptions(
            0, syscalls.MS_NODEV | syscalls.MS_NOSUID, ("metacopy=on", "redirect_dir=on")
        ),
    ),
]


@pytest.mark.parametrize(("items", "found"), GOOD)
def test_options_are_read(items: list[str], found: StorageOptions) -> None:
    assert parse(items) == found


BAD = [
    ("overlay2.size", "Invalid storage option 'overlay2.size'"),
    ("overlay2.color=red", "Unknown storage option: overlay2.color"),
    ("dm.fs=ext4", "Unknown storage option: dm.fs"),
    ("size=1g", "Unknown storage option: size"),
    ("overlay2.size=much", "Invalid quota size: 'much'"),
    ("overlay2.size=4095", "Illegal storage quota size 4095, 4096 at least"),
    ("overlay2.override_kernel_check=perhaps", "perhaps"),
    ("overlay2.mountopt=lowerdir=/", "lowerdir=/ is no option"),
    ("overlay2.mountopt=nodev,upperdir=/etc", "upperdir=/etc is no option"),
    # a crash would cost every container what it has written
    ("overlay2.mountopt=volatile", "volatile is no option"),
    ("overlay2.mountopt=nodev,userxattr", "userxattr is not supported"),
]


@pytest.mark.parametrize(("item", "text"), BAD)
def test_a_wrong_option_is_named(item: str, text: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        parse([item])
    assert text in caught.value.message


def test_those_of_the_file_come_before_those_of_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps({"storage-opts": ["overlay2.size=1m", "overlay2.mountopt=nodev"]}))
    words = ["--config", str(path), "--storage-opt", "overlay2.size=2m"]
    found = config.load(config.parse_arguments(words))
    assert found.engine.storage_options == StorageOptions(2 << 20, syscalls.MS_NODEV)
    assert found.problems == ()


def test_the_daemon_does_not_start_with_a_wrong_one(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps({"storage-opts": ["dm.fs=ext4"]}))
    with pytest.raises(errors.InvalidArgument, match="storage-opts: Unknown storage option: dm"):
        config.load(config.parse_arguments(["--config", str(path)]))
