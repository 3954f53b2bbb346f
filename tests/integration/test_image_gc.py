"""Unused images go when the disk fills, and a pull or load that met a full disk goes on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.disk import Disk
from tests.fakes.images import tar_of
from tests.rig import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.lxc]
GC = {"image-gc-high": 80, "image-gc-low": 50, "image-gc-min-age": 0}


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """Starts an engine whose graph has 40 MB."""
    engine = Engine(tmp_path / "engine")
    disk = Disk(tmp_path / "image", engine.graph, size=40 << 20)

    def start(**config: Any) -> Engine:
        engine.configure(config)
        return engine.start()

    with disk.mounted():
        try:
            yield start
        finally:
            engine.close()


def bring(engine: Engine, folder: Path, name: str, size: int) -> str:
    """Imports an image of ``size`` bytes; what the client says to standard error."""
    path = folder / f"{name}.tar"
    path.write_bytes(tar_of({name: os.urandom(size)}))
    result = engine.isula("import", str(path), f"{name}:v1")
    path.unlink()
    return "" if result.code == 0 else result.err


def names(engine: Engine) -> set[str]:
    return {line.split()[0] for line in engine.ok("images").splitlines()[1:]}


def percent(engine: Engine) -> float:
    found = os.statvfs(engine.graph)
    return 100 * (1 - found.f_bavail / found.f_blocks)


def test_the_oldest_unused_images_go(on_disk: Callable[..., Engine], tmp_path: Path) -> None:
    engine = on_disk(**GC)
    for name in ("a", "b", "c"):
        assert bring(engine, tmp_path, name, 6 << 20) == ""
    engine.ok("create", "--name", "web", "a:v1", "true")
    assert names(engine) == {"a", "b", "c"}
    engine.stop()
    engine.start()
    # it is the first look within the minute, and the one that is above the watermark
    assert bring(engine, tmp_path, "d", 9 << 20) == ""
    assert {"a", "d"} <= names(engine)
    assert "b" not in names(engine)
    assert percent(engine) < 80
    assert engine.ok("system", "check")


def test_a_full_disk_makes_room_and_the_load_goes_on(
    on_disk: Callable[..., Engine], tmp_path: Path
) -> None:
    engine = on_disk(**GC)
    assert bring(engine, tmp_path, "a", 14 << 20) == ""
    assert bring(engine, tmp_path, "b", 6 << 20) == ""
    assert bring(engine, tmp_path, "c", 20 << 20) == ""
    assert "c" in names(engine)
    assert "a" not in names(engine)
    assert "was removed: the disk is full" in engine.log_text()
    assert engine.ok("system", "check")


def test_without_the_key_nothing_is_removed(on_disk: Callable[..., Engine], tmp_path: Path) -> None:
    engine = on_disk()
    assert bring(engine, tmp_path, "a", 14 << 20) == ""
    assert bring(engine, tmp_path, "b", 6 << 20) == ""
    assert "no space left" in bring(engine, tmp_path, "c", 20 << 20)
    assert names(engine) == {"a", "b"}
    assert engine.ok("system", "check")
