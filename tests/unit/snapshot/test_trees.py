"""Whole trees: copied as they are, removed whatever is in them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.snapshot import copy
from isula_edge.snapshot.base import remove_tree
from isula_edge.snapshot.copy import copy_tree, link_tree
from isula_edge.snapshot.filesystem import backing_filesystem, tells_types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEPTH = 1500
"""Deeper than Python's stack."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "folder/inner").mkdir(parents=True)
    (top / "file").write_text("text")
    (top / "file").chmod(0o4751)
    os.link(top / "file", top / "folder/same")
    (top / "link").symlink_to("/etc/../nowhere")
    (top / "empty").touch()
    os.mkfifo(top / "pipe", 0o640)
    (top / "folder").chmod(0o1777)
    for name in ("file", "folder", "folder/inner", "link", "pipe"):
        os.utime(top / name, ns=(10**18 + 1, 10**18 + 123456789), follow_symlinks=False)
    return top


def facts(top: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            state = os.lstat(path)
            link = os.readlink(path) if stat.S_ISLNK(state.st_mode) else ""
            row = (state.st_mode, state.st_uid, state.st_gid, state.st_mtime_ns, link)
            found[os.path.relpath(path, top)] = row
    return found


def test_a_copy_has_the_same_types_modes_owners_times_and_links(tree: Path, tmp_path: Path) -> None:
    copy_tree(str(tree), str(tmp_path / "copy"))
    assert facts(tmp_path / "copy") == facts(tree)
    assert (tmp_path / "copy/file").read_text() == "text"


def test_hard_links_stay_together_and_apart_from_the_original(tree: Path, tmp_path: Path) -> None:
    copy_tree(str(tree), str(tmp_path / "copy"))
    one, two = (os.stat(tmp_path / "copy" / name) for name in ("file", "folder/same"))
    assert one.st_ino == two.st_ino
    assert one.st_ino != os.stat(tree / "file").st_ino
    (tmp_path / "copy/file").write_text("changed")
    assert (tree / "file").read_text() == "text"


@pytest.mark.parametrize("size", [0, 1, 4096, (1 << 20) + 1])
def test_data_is_copied_whole(tmp_path: Path, size: int) -> None:
    (tmp_path / "tree").mkdir()
    data = os.urandom(size)
    (tmp_path / "tree/file").write_bytes(data)
    copy_tree(str(tmp_path / "tree"), str(tmp_path / "copy"))
    assert (tmp_path / "copy/file").read_bytes() == data


def test_holes_stay_holes(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with open(tmp_path / "tree/sparse", "wb") as file:
        file.seek(8 << 20)
        file.write(b"middle")
        file.truncate(32 << 20)
    copy_tree(str(tmp_path / "tree"), str(tmp_path / "copy"))
    copied = os.stat(tmp_path / "copy/sparse")
    assert copied.st_size == 32 << 20
    assert copied.st_blocks * 512 < 1 << 20
    with open(tmp_path / "copy/sparse", "rb") as file:
        file.seek((8 << 20) - 1)
        assert file.read(8) == b"\0middle\0"


def test_extended_attributes_are_copied(tree: Path, tmp_path: Path) -> None:
    try:
        os.setxattr(tree / "file", "user.note", b"value")
    except OSError as error:
        pytest.skip(f"no extended attributes below {tree}: {error.strerror}")
    copy_tree(str(tree), str(tmp_path / "copy"))
    assert os.getxattr(tmp_path / "copy/file", "user.note") == b"value"


@pytest.mark.root
def test_devices_and_owners_are_copied(tree: Path, tmp_path: Path) -> None:
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chown(tree / "file", 1234, 5678)
    os.chmod(tree / "file", 0o4751)
    os.lchown(tree / "link", 1234, 5678)
    copy_tree(str(tree), str(tmp_path / "copy"))
    assert facts(tmp_path / "copy") == facts(tree)
    assert os.stat(tmp_path / "copy/null").st_rdev == os.makedev(1, 3)


def test_a_full_file_system_is_no_space(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_source: int, _target: int, _size: int) -> None:
        raise OSError(28, "No space left on device")

    def no_clone(_fd: int, _request: int, _source: int) -> int:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(copy, "_copy_data", full)
    monkeypatch.setattr("fcntl.ioctl", no_clone)
    with pytest.raises(errors.NoSpace):
        copy_tree(str(tree), str(tmp_path / "copy"))


def test_a_tree_is_removed_with_everything_in_it(tree: Path) -> None:
    remove_tree(str(tree))
    assert os.listdir(tree.parent) == []


def test_an_absent_tree_is_removed_already(tmp_path: Path) -> None:
    remove_tree(str(tmp_path / "absent"))
    assert os.listdir(tmp_path) == []


def test_links_out_of_a_tree_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep/file").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to(tmp_path / "keep")
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path / "keep") == ["file"]


def test_a_removal_that_was_interrupted_is_finished(tmp_path: Path) -> None:
    (tmp_path / "dead-tree/left").mkdir(parents=True)
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == []


def test_a_tree_goes_although_an_earlier_one_is_still_dead(tmp_path: Path) -> None:
    for name in ("tree/new", "dead-tree/old"):
        (tmp_path / name).mkdir(parents=True)
    remove_tree(str(tmp_path / "tree"))
    assert not (tmp_path / "tree").exists()


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A tree that no path reaches the bottom of, made step by step."""
    here = os.open(tmp_path, os.O_RDONLY)
    os.mkdir("tree", dir_fd=here)
    for name in ("tree", *["directory"] * DEPTH):
        if name != "tree":
            os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    return tmp_path / "tree"


def test_a_tree_deeper_than_any_stack_is_removed(deep: Path) -> None:
    remove_tree(str(deep))
    assert os.listdir(deep.parent) == []


def names(top: Path) -> list[str]:
    """The names on the way to the bottom, one directory after the other."""
    found = []
    here = os.open(top, os.O_RDONLY)
    while True:
        inside = os.listdir(here)
        found += inside
        if len(inside) != 1 or not stat.S_ISDIR(os.stat(inside[0], dir_fd=here).st_mode):
            os.close(here)
            return found
        below = os.open(inside[0], os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below


@pytest.mark.parametrize("function", [copy_tree, link_tree])
def test_a_tree_deeper_than_any_path_is_copied(
    deep: Path, function: Callable[[str, str], None]
) -> None:
    function(str(deep), str(deep.parent / "copy"))
    try:
        assert names(deep.parent / "copy") == ["directory"] * DEPTH + ["file"]
    finally:
        remove_tree(str(deep.parent / "copy"))
        remove_tree(str(deep))


def test_names_of_one_file_far_apart_are_one_file_in_the_copy(deep: Path) -> None:
    bottom = os.open(deep, os.O_RDONLY)
    for _ in range(DEPTH):
        below = os.open("directory", os.O_RDONLY, dir_fd=bottom)
        os.close(bottom)
        bottom = below
    os.link("file", deep / "high", src_dir_fd=bottom)
    os.link("file", "low", src_dir_fd=bottom, dst_dir_fd=bottom)
    os.close(bottom)
    copy_tree(str(deep), str(deep.parent / "copy"))
    try:
        copied = os.stat(deep.parent / "copy/high")
        assert copied.st_nlink == 3
        assert copied.st_ino != os.stat(deep / "high").st_ino
    finally:
        remove_tree(str(deep.parent / "copy"))
        remove_tree(str(deep))


def test_a_linked_tree_has_the_files_of_the_first_in_directories_of_its_own(
    tree: Path, tmp_path: Path
) -> None:
    before = facts(tree)
    link_tree(str(tree), str(tmp_path / "copy"))
    assert facts(tmp_path / "copy") == before == facts(tree)
    for name in ("file", "folder/same", "link", "pipe", "empty"):
        assert os.path.samestat(os.lstat(tree / name), os.lstat(tmp_path / "copy" / name))
    for name in ("", "folder", "folder/inner"):
        assert not os.path.samestat(os.stat(tree / name), os.stat(tmp_path / "copy" / name))
    (tmp_path / "copy/folder").chmod(0o700)
    (tmp_path / "copy/file").unlink()
    assert facts(tree) == before


@pytest.mark.parametrize("number", [errno.EMLINK, errno.EPERM, errno.EXDEV])
def test_what_cannot_be_linked_is_copied(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    link = os.link

    def refuses(source: str, target: str, **where: Any) -> None:
        if source == target:
            raise OSError(number, os.strerror(number))
        link(source, target, **where)

    monkeypatch.setattr(os, "link", refuses)
    link_tree(str(tree), str(tmp_path / "copy"))
    assert facts(tmp_path / "copy") == facts(tree)
    one, two = (os.stat(tmp_path / "copy" / name) for name in ("file", "folder/same"))
    assert one.st_ino == two.st_ino != os.stat(tree / "file").st_ino


def test_a_disk_that_fills_while_linking_is_no_space(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_source: str, _target: str, **_where: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(errors.NoSpace):
        link_tree(str(tree), str(tmp_path / "copy"))


@pytest.mark.parametrize("function", [copy_tree, link_tree])
def test_no_descriptor_stays_open(
    tree: Path, tmp_path: Path, function: Callable[[str, str], None]
) -> None:
    before = os.listdir("/proc/self/fd")
    function(str(tree), str(tmp_path / "copy"))
    with pytest.raises(FileExistsError):
        function(str(tree), str(tmp_path / "copy"))
    assert os.listdir("/proc/self/fd") == before


def test_a_file_in_the_place_of_a_tree_is_removed(tmp_path: Path) -> None:
    (tmp_path / "tree").write_text("x")
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == []


def test_types_of_entries_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tells_types(str(tmp_path))
    assert os.listdir(tmp_path) == []
    scandir = os.scandir

    class Silent:
        """As a file system without types: every entry is asked for."""

        def __init__(self, entry: os.DirEntry[str]) -> None:
            self._path = entry.path

        def is_dir(self, *, follow_symlinks: bool) -> bool:
            return not follow_symlinks and os.path.isdir(self._path)

    @contextlib.contextmanager
    def silent(path: str) -> Iterator[list[Silent]]:
        with scandir(path) as entries:
            yield [Silent(entry) for entry in entries]

    monkeypatch.setattr(os, "scandir", silent)
    assert not tells_types(str(tmp_path))
    assert os.listdir(tmp_path) == []


FEW_DESCRIPTORS = """
import os, resource, sys
from isula_edge.snapshot.base import remove_tree
os.makedirs(sys.argv[1] + "/d" * 200)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
remove_tree(sys.argv[1])
"""


def test_a_deep_tree_is_removed_with_few_descriptors(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FEW_DESCRIPTORS, str(tmp_path / "tree")]
    root = f"{os.path.dirname(__file__)}/../../.."
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert os.listdir(tmp_path) == []


def test_the_type_of_the_file_system(tmp_path: Path) -> None:
    assert backing_filesystem("/proc") == "proc"
    assert backing_filesystem("/proc/self") == "proc"
    with open("/proc/self/mountinfo") as file:
        lines = file.readlines()
    known = {line.partition(" - ")[2].split()[0] for line in lines}
    if not any(line.split()[4] == "/" for line in lines):
        known.add("unknown")  # the root is a directory that somebody changed into
    assert backing_filesystem(str(tmp_path)) in known
