"""Case A04: a disk without a free block or inode can always be made free again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.disk import Disk
from tests.rig import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.lxc]


class Full:
    """An engine whose graph has 0 bytes and 0 inodes free."""

    def __init__(self, engine: Engine, disk: Disk) -> None:
        self.engine, self.disk = engine, disk

    def names(self) -> set[str]:
        """Every stored name."""
        lines = self.engine.ok("images").splitlines()[1:]
        return {":".join(line.split()[:2]) for line in lines}

    def containers(self) -> set[str]:
        """Names of all containers."""
        return set(self.engine.ok("ps", "-a", "--format", "{{.Names}}").split())

    def whole(self) -> None:
        """Nothing was lost, neither now nor after a restart, a crash and a power cycle."""
        before = self.names(), self.containers()
        assert self.engine.ok("system", "check")
        self.engine.restart()
        assert (self.names(), self.containers()) == before
        assert self.engine.ok("system", "check")
        assert not (self.engine.graph / "quarantine").exists()


@pytest.fixture
def full(tmp_path: Path, images: Path) -> Iterator[Full]:
    engine = Engine(tmp_path / "engine")
    disk = Disk(tmp_path / "image", engine.graph, size=48 << 20, inodes=1200)
    with disk.mounted():
        try:
            engine.start()
            engine.ok("load", "-i", str(images / "docker.tar"))
            engine.ok("import", str(images / "docker.tar"), "other:v1")
            for name in ("more:v1", "more:v2"):
                engine.ok("tag", "busybox", name)
            engine.ok("run", "-d", "--name", "running", "busybox", "sleep", "1000")
            engine.ok("create", "--name", "idle", "busybox", "true")
            disk.fill()
            assert disk.free == (0, 0)
            yield Full(engine, disk)
        finally:
            engine.close()


def test_one_of_several_names_goes_again_and_again(full: Full) -> None:
    for name in ("more:v1", "more:v2"):
        assert full.disk.free == (0, 0)
        full.engine.ok("rmi", name)
    assert full.names() == {"busybox:latest", "other:v1"}
    full.whole()


def test_a_tag_fails_and_changes_nothing(full: Full) -> None:
    before = full.names()
    result = full.engine.isula("tag", "busybox", "new:v1")
    assert result.code == 1
    assert "no space left" in result.err.lower()
    assert full.names() == before
    # nor does one that would move a name
    assert full.engine.isula("tag", "other:v1", "more:v1").code == 1
    assert full.engine.image("more:v1")["id"] == full.engine.image("busybox")["id"]
    full.whole()


def test_the_end_of_a_container_is_recorded(full: Full) -> None:
    full.engine.ok("stop", "-t", "0", "running")
    assert full.disk.free[0] == 0
    full.engine.restart()
    state = full.engine.state_of("running")
    assert (state["Status"], state["ExitCode"]) == ("exited", 137)
    full.whole()


def test_what_is_removed_frees_its_space(full: Full) -> None:
    full.engine.ok("rmi", "other:v1")
    after_image = full.disk.free
    assert after_image[0] > 1 << 20
    full.engine.ok("rm", "-f", "running")
    full.engine.ok("rm", "idle")
    assert full.disk.free[1] > after_image[1]
    for name in ("more:v1", "more:v2", "busybox"):
        full.engine.ok("rmi", name)
    assert (full.names(), full.containers()) == (set(), set())
    full.whole()


def test_the_names_of_an_image_in_use_go(full: Full) -> None:
    full.engine.ok("rmi", "-f", full.engine.image("busybox")["id"])
    assert full.names() == {"other:v1", "<none>:<none>"}
    full.whole()


def test_prune_makes_space(full: Full) -> None:
    full.engine.ok("system", "prune", "-f", "-a")
    assert full.containers() == {"running"}
    assert full.names() == {"busybox:latest", "more:v1", "more:v2"}
    assert full.disk.free[0] > 1 << 20
    full.engine.ok("tag", "busybox", "new:v1")
    full.whole()
