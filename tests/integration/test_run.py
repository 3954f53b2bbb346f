"""``isula run``: what does not depend on the runtime; the rest is in the contract suite."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]


def test_container_without_a_command_is_refused(engine: Engine, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    result = engine.isula("run", "--rm", "--external-rootfs", str(root), "none")
    assert result.code == 125
    assert "No command specified" in result.err


@pytest.mark.parametrize("terminal", [(), ("-t",)])
def test_a_bind_over_dev_is_left_as_it_is(
    engine: Engine, tmp_path: Path, terminal: tuple[str, ...]
) -> None:
    """What LXC does to its own /dev (nodes, ptmx) would be done to the machine's."""
    device = tmp_path / "dev"
    for name in ("pts", "shm"):
        (device / name).mkdir(parents=True)
    for name, minor in (("null", 3), ("zero", 5)):
        os.mknod(device / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
    os.mknod(device / "ptmx", stat.S_IFCHR | 0o600, os.makedev(5, 2))
    for name in ("fd", "stdin", "stdout", "stderr", "console"):
        (device / name).touch()
    before = {entry.name: os.lstat(entry).st_ino for entry in device.iterdir()}
    words = ("run", "--rm", *terminal, "-v", f"{device}:/dev", "busybox", "sh", "-c")
    assert engine.ok(*words, "echo here >/dev/null && echo done") == "done"
    assert {entry.name: os.lstat(entry).st_ino for entry in device.iterdir()} == before
