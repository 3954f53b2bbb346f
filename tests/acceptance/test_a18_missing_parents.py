"""Case A18: a layer whose tar has no entries for parent directories."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from tests.fakes.layers import Graph, directory, regular

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_missing_parents_are_made(tmp_path: Path, driver: str) -> None:
    old = os.umask(0o077)
    try:
        with Graph(tmp_path / "g", driver) as graph:
            graph.layer([regular("a/b/c/file", b"x", uid=5, gid=6)])
            root = graph.root()
            for path in ("a", "a/b", "a/b/c"):
                found = os.stat(f"{root}/{path}")
                assert stat.S_IMODE(found.st_mode) == 0o755
                assert (found.st_uid, found.st_gid) == (0, 0)
            with open(f"{root}/a/b/c/file") as file:
                assert file.read() == "x"
    finally:
        os.umask(old)


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_a_later_entry_sets_what_the_parent_has(tmp_path: Path, driver: str) -> None:
    with Graph(tmp_path / "g", driver) as graph:
        graph.layer(
            [
                regular("a/b/file", b"x"),
                directory("a/b", mode=0o2750, uid=12, gid=34, mtime=1234567890),
                regular("a/b/later", b"y"),
            ]
        )
        found = os.stat(f"{graph.root()}/a/b")
        assert stat.S_IMODE(found.st_mode) == 0o2750
        assert (found.st_uid, found.st_gid, found.st_mtime) == (12, 34, 1234567890)


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_what_a_lower_layer_has_in_the_parent_stays(tmp_path: Path, driver: str) -> None:
    with Graph(tmp_path / "g", driver) as graph:
        graph.layer([directory("a", mode=0o700, uid=9, gid=9), regular("a/one", b"1")])
        graph.layer([regular("a/two", b"2")])
        root = graph.root()
        assert sorted(os.listdir(f"{root}/a")) == ["one", "two"]
        with open(f"{root}/a/one") as file:
            assert file.read() == "1"
