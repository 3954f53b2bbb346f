"""Case A01: one damaged record never keeps the engine from starting."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]


def damage(path: Path) -> None:
    path.write_bytes(os.urandom(max(path.stat().st_size, 64)))


def records(engine: Engine) -> list[Path]:
    return sorted(engine.graph.rglob("*.cbor"))


def test_every_record_in_turn(make_engine: Callable[..., Engine], images: Path) -> None:
    engine = make_engine()
    engine.ok("load", "-i", str(images / "docker.tar"), "--tag", "second:v1")
    engine.ok("run", "-d", "--name", "running", "busybox", "sleep", "1000")
    engine.ok("create", "--name", "idle", "busybox", "true")
    kinds = {path.relative_to(engine.graph).parts[0] for path in records(engine)}
    assert kinds == {"engine.cbor", "images", "layers", "engines"}
    for path in records(engine):
        # saved, damaged, seen by a start, put back
        content = path.read_bytes()
        engine.stop()
        damage(path)
        engine.start()
        names = set(engine.ok("ps", "-a", "--format", "{{.Names}}").split())
        lost = {
            name
            for name in ("running", "idle")
            if path.parts[-2] not in ("images", "layers") and name not in names
        }
        if path.parent.parent.parent.name == "engines":
            assert len(lost) == 1
        else:
            assert names == {"running", "idle"}
        moved = list((engine.graph / "quarantine").iterdir())
        assert len(moved) == 1, path
        assert "quarantine" in engine.ok("info"), path
        assert str(moved[0]) in engine.log_text()
        engine.stop()
        if moved[0].is_dir():
            moved[0].rename(path.parent)
        else:
            moved[0].unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        engine.start()
        assert "Quarantined" not in engine.ok("info") or not list(
            (engine.graph / "quarantine").iterdir()
        )
    assert set(engine.ok("ps", "-a", "--format", "{{.Names}}").split()) == {"running", "idle"}
    assert engine.ok("exec", "running", "echo", "alive") == "alive"


def test_what_a_damaged_container_has_written_is_kept(
    make_engine: Callable[..., Engine],
) -> None:
    engine = make_engine()
    container = engine.ok("run", "-d", "--name", "data", "busybox", "sh", "-c", "echo kept >/file")
    engine.ok("wait", "data")
    engine.stop()
    damage(engine.graph / "engines" / "lxc" / container / "container.cbor")
    engine.start()
    assert engine.ok("ps", "-aq") == ""
    found = [path.read_text() for path in engine.graph.rglob("file")]
    assert found == ["kept\n"]
