"""crun where the unified cgroup hierarchy has controllers of its own."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from isula_edge.cgroup import Host
from isula_edge.runtime import hybrid

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def controllers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What stands in for the file of the unified hierarchy."""
    file = tmp_path / "unified/cgroup.controllers"
    file.parent.mkdir()
    monkeypatch.setattr(hybrid, "_UNIFIED", str(file.parent))
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/bin/{name}")
    return file


def host(controllers: Path, version: str = "hybrid") -> Host:
    return Host(version, {"cpu": "/sys/fs/cgroup/cpu", "": str(controllers.parent)})


def test_crun_does_not_see_a_unified_hierarchy_with_controllers(controllers: Path) -> None:
    controllers.write_text("hugetlb\n")
    words = hybrid.words_before("/usr/bin/crun", host(controllers))
    assert words[0].endswith("/unshare")
    assert words[-1] == "sh"
    assert any("umount /sys/fs/cgroup/unified" in word for word in words)


@pytest.mark.parametrize("program", ["/usr/sbin/runc", "/usr/bin/youki", "/opt/crun/kata"])
def test_others_are_run_as_they_are(controllers: Path, program: str) -> None:
    controllers.write_text("hugetlb\n")
    assert hybrid.words_before(program, host(controllers)) == ()


def test_a_link_to_crun_is_crun(controllers: Path, tmp_path: Path) -> None:
    controllers.write_text("hugetlb\n")
    (tmp_path / "crun").touch()
    (tmp_path / "other").symlink_to("crun")
    assert hybrid.words_before(str(tmp_path / "other"), host(controllers))


def test_nothing_is_done_where_crun_runs_by_itself(controllers: Path) -> None:
    assert hybrid.words_before("/usr/bin/crun", host(controllers)) == ()
    controllers.write_text("\n")
    assert hybrid.words_before("/usr/bin/crun", host(controllers)) == ()
    controllers.write_text("hugetlb\n")
    for version in ("1", "2", ""):
        assert hybrid.words_before("/usr/bin/crun", host(controllers, version)) == ()
    assert hybrid.words_before("/usr/bin/crun", None) == ()
    elsewhere = Host("hybrid", {"": "/mnt/cgroup2"})
    assert hybrid.words_before("/usr/bin/crun", elsewhere) == ()
