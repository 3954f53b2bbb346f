"""Case A23: overlay under its old name, under its new one, and not at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors, kernel
from isula_edge.snapshot.choose import choose_driver

if TYPE_CHECKING:
    from pathlib import Path

ROOT = "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n"

NEW, OLD, MANY = "overlay", "overlayfs_old_name", "overlay_multilower"
ANY = {MANY: "ENOTDIR"}
ONE = {MANY: "EINVAL"}

KERNELS = [
    # /proc/filesystems, answers to mount(2), the type, the driver
    ("nodev\toverlay\n", ANY, "overlay", "overlay"),
    ("nodev\toverlay\n", ONE, "overlay", "overlay1"),
    ("nodev\toverlay\n", {}, "overlay", "overlay1"),
    ("nodev\toverlayfs\n", {}, "overlayfs", "overlay1"),
    ("nodev\toverlayfs\n", ANY, "overlayfs", "overlay1"),
    ("nodev\toverlay\nnodev\toverlayfs\n", ANY, "overlay", "overlay"),
    ("nodev\ttmpfs\n", {}, None, "vfs"),
    # a module that is not loaded is not listed, but mounts
    ("nodev\ttmpfs\n", {NEW: "EINVAL", **ANY}, "overlay", "overlay"),
    ("nodev\ttmpfs\n", {NEW: "ENODEV", OLD: "EINVAL"}, "overlayfs", "overlay1"),
    ("nodev\ttmpfs\n", {NEW: "ENODEV", OLD: "ENODEV"}, None, "vfs"),
    # listed, but denied
    ("nodev\toverlay\n", {NEW: "EPERM", OLD: "EPERM"}, None, "vfs"),
]


def saved(root: Path, listed: str, answers: dict[str, str]) -> kernel.Features:
    """A made-up kernel below ``root``."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "status").write_text(ROOT)
    (root / "proc" / "filesystems").write_text(listed)
    mounts = {name: {"ret": -1, "errname": word} for name, word in answers.items()}
    (root / "syscalls.json").write_text(json.dumps({"mount": mounts}))
    return kernel.probe(kernel.Saved(str(root)))


@pytest.mark.parametrize(("listed", "answers", "fstype", "driver"), KERNELS)
def test_type_and_driver(
    tmp_path: Path, listed: str, answers: dict[str, str], fstype: str | None, driver: str
) -> None:
    features = saved(tmp_path / "kernel", listed, answers)
    assert features.overlay_type() == fstype
    graph = str(tmp_path / "graph")
    several = features.overlay_several()
    chosen = choose_driver(graph, "", "", features.overlay_type(), several=several)
    assert chosen.name == driver
    if fstype:
        assert ("Filesystem Type", fstype) in chosen.status()


def test_without_overlay_it_is_said(tmp_path: Path) -> None:
    features = saved(tmp_path, "nodev\ttmpfs\n", {})
    told = [item for item in features.degraded() if item.name == "overlay"]
    assert len(told) == 1
    assert "copying driver" in told[0].without
    assert "/proc/filesystems does not list overlay" in told[0].why


def test_a_store_of_another_driver_is_not_ignored(tmp_path: Path) -> None:
    none = saved(tmp_path / "kernel", "nodev\ttmpfs\n", {}).overlay_type()
    with pytest.raises(errors.FailedPrecondition):
        choose_driver(str(tmp_path / "graph"), "", "overlay", none)
    kept = choose_driver(str(tmp_path / "graph"), "", "vfs", "overlay")
    assert kept.name == "vfs"
