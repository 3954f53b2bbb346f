"""Bytes on disk: what du says, by parts."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.sys.usage import TreeUsage, survey, tree_usage

if TYPE_CHECKING:
    from pathlib import Path


def du(path: Path) -> int:
    words = ["du", "-s", "-x", "-B1", str(path)]
    return int(subprocess.run(words, check=True, capture_output=True).stdout.split()[0])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    for name in ("a/deep/er", "b", "c"):
        (top / name).mkdir(parents=True)
    (top / "a" / "file").write_bytes(os.urandom(100_000))
    (top / "a/deep/er" / "file").write_bytes(os.urandom(50_000))
    (top / "b" / "file").write_bytes(os.urandom(10_000))
    with (top / "c" / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    os.link(top / "a" / "file", top / "b" / "same")
    os.symlink("/", top / "b" / "link")
    return top


def test_all_of_it_is_what_du_says(tree: Path) -> None:
    assert survey(str(tree), []) == {str(tree): du(tree)}


def test_parts_take_what_lies_in_them_and_nothing_twice(tree: Path) -> None:
    parts = [f"{tree}/a", f"{tree}/a/deep", f"{tree}/b/file", f"{tree}/nothing"]
    found = survey(str(tree), parts)
    assert set(found) == {str(tree), *parts}
    assert found[f"{tree}/a/deep"] == du(tree / "a/deep")
    assert found[f"{tree}/b/file"] == du(tree / "b/file")
    assert found[f"{tree}/nothing"] == 0
    assert sum(found.values()) == du(tree)


def test_what_is_not_there_takes_nothing(tmp_path: Path) -> None:
    assert survey(f"{tmp_path}/nothing", []) == {f"{tmp_path}/nothing": 0}


def test_it_can_be_cancelled(tree: Path) -> None:
    def check() -> None:
        raise errors.Aborted("enough")

    with pytest.raises(errors.Aborted):
        survey(str(tree), [], check)


@pytest.mark.root
@pytest.mark.native  # mounts, by programs that the root of the emulated machine does not have
def test_other_file_systems_are_left_out_and_binds_count_once(tree: Path) -> None:
    before = du(tree)
    (tree / "c" / "m").mkdir()
    (tree / "c" / "n").mkdir()
    with_folders = du(tree)
    assert with_folders >= before
    script = (
        f"mount -t tmpfs x {tree}/c/m && head -c 100000 /dev/zero > {tree}/c/m/f && "
        f"mount --bind {tree}/a {tree}/c/n && "
        "python3 -c 'import sys; sys.path.insert(0, sys.argv[1]); "
        "from isula_edge.sys.usage import survey; "
        f'print(sum(survey("{tree}", []).values()))\' "$1"'
    )
    root = os.path.abspath(f"{os.path.dirname(__file__)}/../../..")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", root], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    # the mount point of the bind mount is hidden by it
    assert with_folders - 8192 <= int(done.stdout) <= with_folders


def test_files_and_bytes_of_a_tree(tree: Path) -> None:
    found = tree_usage(str(tree))
    assert found.bytes == sum(survey(str(tree), []).values())
    inodes = {path.lstat().st_ino for path in (tree, *tree.rglob("*"))}
    assert found.inodes == len(inodes)
    assert tree_usage(str(tree / "absent")) == TreeUsage()


def test_several_trees_count_what_they_share_once(tree: Path) -> None:
    tops = (str(tree / "a"), str(tree / "b"))
    both = tree_usage(*tops)
    alone = [tree_usage(top) for top in tops]
    shared = (tree / "a" / "file").lstat()
    assert both.bytes == sum(item.bytes for item in alone) - shared.st_blocks * 512
    assert both.inodes == sum(item.inodes for item in alone) - 1
    assert tree_usage() == TreeUsage()
