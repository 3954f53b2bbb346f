"""What a container has changed: a tar of what is there, and the names of what is not."""

from __future__ import annotations

import os
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest

from isula_edge.image.diff import diff
from tests.fakes.jobs import FakeDaemon

if TYPE_CHECKING:
    from pathlib import Path


class Trees:
    """A root directory and layers below it."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.root = top / "root"
        self.lowers = [top / "upper-layer", top / "base"]
        for folder in (self.root, *self.lowers):
            folder.mkdir()

    def put(self, where: Path, *paths: str) -> None:
        """Files, directories (``/`` behind) and whiteouts (``!`` before)."""
        for path in paths:
            target = where / path.lstrip("!")
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.endswith("/"):
                target.mkdir(exist_ok=True)
            elif path.startswith("!"):
                os.mknod(target, stat.S_IFCHR | 0o600, 0)
            else:
                target.write_text(path)

    def opaque(self, folder: Path) -> None:
        try:
            os.setxattr(folder, "user.overlay.opaque", b"y")
        except OSError as error:
            pytest.skip(f"the file system has no user attributes: {error}")

    def diff(self, *excluded: str, whole: bool = False) -> tuple[list[str], list[str]]:
        """Names in the archive, and what was deleted."""
        path = self.top / "out.tar"
        lowers = [str(lower) for lower in self.lowers]
        with path.open("wb") as file:
            job = FakeDaemon().job
            result = diff(file.fileno(), str(self.root), lowers, excluded, job, whole=whole)
        assert result["size"] == path.stat().st_size
        with tarfile.open(path) as archive:
            return archive.getnames(), result["deleted"]


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    return Trees(tmp_path)


def test_a_whiteout_is_a_name_and_no_entry(trees: Trees) -> None:
    trees.put(trees.root, "etc/new", "!etc/passwd", "!bin/vi", "var/")
    assert trees.diff() == (
        [".", "bin", "etc", "etc/new", "var"],
        ["/bin/vi", "/etc/passwd"],
    )


def test_what_is_mounted_is_left_out(trees: Trees) -> None:
    trees.put(trees.root, "etc/hosts", "etc/mine", "proc/x", "!data")
    assert trees.diff("/etc/hosts", "/proc", "/data") == ([".", "etc", "etc/mine"], [])


def test_an_opaque_directory_hides_what_the_layers_show(trees: Trees) -> None:
    base, above = trees.lowers[1], trees.lowers[0]
    trees.put(base, "home/a", "home/b", "home/c/x", "other/x")
    trees.put(above, "!home/b", "home/d")
    trees.put(trees.root, "home/a", "other/y")
    trees.opaque(trees.root / "home")
    names, deleted = trees.diff()
    assert "home/a" in names
    assert deleted == ["/home/c", "/home/d"]


def test_an_opaque_layer_hides_those_below(trees: Trees) -> None:
    base, above = trees.lowers[1], trees.lowers[0]
    trees.put(base, "home/a")
    trees.put(above, "home/b")
    trees.put(trees.root, "home/")
    trees.opaque(above / "home")
    trees.opaque(trees.root / "home")
    assert trees.diff()[1] == ["/home/b"]


def test_a_file_in_a_layer_hides_those_below(trees: Trees) -> None:
    base, above = trees.lowers[1], trees.lowers[0]
    trees.put(base, "home/a")
    trees.put(above, "home")
    trees.put(trees.root, "home/")
    trees.opaque(trees.root / "home")
    assert trees.diff()[1] == []


def test_of_a_whole_copy_the_layer_says_what_is_gone(trees: Trees) -> None:
    trees.lowers = trees.lowers[:1]
    trees.put(trees.lowers[0], "bin/vi", "bin/sh", "home/a/b")
    trees.put(trees.root, "bin/sh", "new")
    assert trees.diff(whole=True) == ([".", "new", "bin", "bin/sh"], ["/bin/vi", "/home"])


def test_a_link_in_a_layer_is_not_followed(trees: Trees) -> None:
    trees.put(trees.top / "outside", "secret")
    (trees.lowers[0] / "home").symlink_to(trees.top / "outside")
    trees.put(trees.root, "home/x")
    assert trees.diff(whole=True)[1] == []
