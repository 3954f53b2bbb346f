"""A full disk: what cannot be written is refused by name, and what frees space works."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.rig import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.lxc]


@pytest.fixture
def full(tmp_path: Path, images: Path) -> Iterator[Engine]:
    """An engine with busybox and two containers on a graph without a free block or inode."""
    engine = Engine(tmp_path / "engine")
    engine.graph.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=16m,nr_inodes=2000", "graph", str(engine.graph)]
    subprocess.run(words, check=True)
    try:
        engine.start()
        engine.ok("load", "-i", str(images / "docker.tar"))
        engine.ok("run", "-d", "--name", "running", "busybox", "sleep", "1000")
        engine.ok("create", "--name", "idle", "busybox", "true")
        fill(engine.graph)
        yield engine
        (engine.graph / "filler").unlink()
    finally:
        engine.close()


def fill(folder: Path) -> None:
    """Takes the last block and the last inode."""
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    (folder / "many").mkdir(exist_ok=True)
    try:
        for number in range(5000):
            os.mknod(folder / "many" / str(number))
    except OSError:
        return
    raise AssertionError("the file system took 5000 files")


def test_what_needs_space_is_refused_and_nothing_is_left(
    full: Engine, images: Path, tmp_path: Path
) -> None:
    before = sorted(str(path) for path in full.graph.rglob("*") if "many" not in str(path))
    for words, code in (
        (("run", "--name", "more", "busybox", "true"), 125),
        (("create", "--name", "more", "busybox", "true"), 1),
        (("tag", "busybox", "more:v1"), 1),
        (("load", "-i", str(images / "oci.tar")), 1),
        (("rename", "idle", "other"), 1),
    ):
        result = full.isula(*words)
        assert result.code == code, words
        assert "no space left" in result.err.lower(), words
    after = sorted(str(path) for path in full.graph.rglob("*") if "many" not in str(path))
    assert after == before
    assert set(full.ok("ps", "-a", "--format", "{{.Names}}").split()) == {"running", "idle"}
    assert full.ok("exec", "running", "echo", "alive") == "alive"


def test_what_frees_space_works(full: Engine) -> None:
    full.ok("stop", "-t", "0", "running")
    assert full.state_of("running")["ExitCode"] == 137
    full.ok("rm", "running")
    full.ok("rm", "idle")
    full.ok("rmi", "busybox")
    assert full.ok("ps", "-aq") == ""
    assert full.ok("images", "-q") == ""


def test_a_restart_on_a_full_disk_keeps_everything(full: Engine) -> None:
    full.restart()
    assert set(full.ok("ps", "-a", "--format", "{{.Names}}").split()) == {"running", "idle"}
    assert full.ok("exec", "running", "echo", "alive") == "alive"
    assert not (full.graph / "quarantine").exists()
