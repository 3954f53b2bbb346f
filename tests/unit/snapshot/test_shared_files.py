"""Layers that share files by hard links: unpacking one leaves the one below as it was."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.fakes.layers import Graph, directory, link, regular, special, tree

if TYPE_CHECKING:
    from pathlib import Path

BELOW = [
    directory("etc", mode=0o755, mtime=5),
    regular("etc/conf", b"old", mode=0o640, mtime=7, pax_headers={"SCHILY.xattr.user.a": "1"}),
    regular("etc/other", b"other", mode=0o4755, mtime=8),
    link("etc/same", "etc/conf", hard=True),
    link("etc/soft", "conf"),
    special("etc/pipe", tarfile.FIFOTYPE, mode=0o600),
    directory("data", mode=0o1777, mtime=9),
    directory("data/inner", mode=0o700),
    regular("data/inner/deep", b"deep"),
    regular("data/file", b"file"),
    link("way", "data"),
]

ABOVE: dict[str, list[tuple[tarfile.TarInfo, bytes]]] = {
    "a file with other content": [regular("etc/conf", b"new and longer")],
    "a shorter file": [regular("etc/conf", b"")],
    "a file whose mode alone is another": [regular("etc/conf", b"old", mode=0o4711, mtime=7)],
    "a file whose time alone is another": [regular("etc/conf", b"old", mode=0o640, mtime=99)],
    "a file with other attributes": [
        regular("etc/conf", b"old", pax_headers={"SCHILY.xattr.user.b": "2"})
    ],
    "a file of another owner": [regular("etc/conf", b"old", uid=12, gid=34)],
    "a file by way of a link": [regular("way/file", b"changed")],
    "a file in the place of a link": [regular("etc/soft", b"no link")],
    "a file in the place of a directory": [regular("data", b"no directory")],
    "a file in the place of a pipe": [regular("etc/pipe", b"no pipe")],
    "a directory in the place of a file": [directory("etc/conf"), regular("etc/conf/x", b"x")],
    "a directory in the place of a link": [directory("way", mode=0o700), regular("way/x", b"x")],
    "a directory with another mode": [directory("data", mode=0o700, mtime=1, uid=9, gid=9)],
    "a link in the place of a file": [link("etc/conf", "other")],
    "a link with another target": [link("etc/soft", "other")],
    "a pipe again": [special("etc/pipe", tarfile.FIFOTYPE, mode=0o666, mtime=3)],
    "another name of a lower file": [link("etc/third", "etc/conf", hard=True)],
    "another name, with other attributes": [
        (_info := link("etc/third", "etc/conf", hard=True)[0], b""),
    ],
    "another name in the place of a file": [link("etc/other", "etc/conf", hard=True)],
    "another name in its own place": [link("etc/same", "etc/conf", hard=True)],
    "another name of a lower link": [link("etc/soft2", "etc/soft", hard=True)],
    "a name, and then the file anew": [
        link("etc/third", "etc/conf", hard=True),
        regular("etc/conf", b"anew", mode=0o600),
    ],
    "a file anew, and then its name": [
        regular("etc/conf", b"anew", mode=0o600),
        link("etc/third", "etc/conf", hard=True),
        regular("etc/third", b"once more"),
    ],
    "a file twice": [regular("etc/conf", b"first"), regular("etc/conf", b"second")],
    "a whiteout": [regular("etc/.wh.conf")],
    "a whiteout of a directory": [regular(".wh.data")],
    "a whiteout, and the file anew": [regular("etc/.wh.conf"), regular("etc/conf", b"anew")],
    "an opaque directory": [regular("data/.wh..wh..opq"), regular("data/new", b"new")],
}
# a tar's hard link carries the attributes of its file: they must not reach the lower layer
_info.mode, _info.mtime, _info.uid, _info.gid = 0o777, 12345, 5, 6
_info.pax_headers = {"SCHILY.xattr.user.a": "changed"}


def facts(top: str) -> dict[str, tuple[object, ...]]:
    """Everything about a tree but what a hard link changes: number of names, ctime."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, folders, files in os.walk(top):
        for name in (".", *folders, *files):
            path = f"{folder}/{name}"
            state = os.lstat(path)
            content = ""
            if stat.S_ISREG(state.st_mode):
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).hexdigest()
            elif stat.S_ISLNK(state.st_mode):
                content = os.readlink(path)
            found[os.path.relpath(path, top)] = (
                *(state.st_ino, state.st_mode, state.st_uid, state.st_gid, state.st_size),
                *(state.st_mtime_ns, state.st_rdev, content, xattrs(path)),
            )
    return found


def xattrs(path: str) -> dict[str, bytes]:
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


@pytest.fixture(params=["vfs", "overlay1"])
def graph(request: pytest.FixtureRequest, tmp_path: Path) -> Graph:
    made = Graph(tmp_path, request.param)
    made.layer(BELOW)
    return made


@pytest.mark.parametrize("what", ABOVE)
def test_the_layer_below_stays_as_it_was(graph: Graph, what: str) -> None:
    lower = f"{graph.store.driver.home}/{graph.store.dirs(graph.chain)[0]}"
    before = facts(lower)
    assert len(before) == len(BELOW) + 1
    graph.layer(ABOVE[what])
    assert facts(lower) == before


@pytest.mark.parametrize("what", ABOVE)
def test_a_layer_over_shared_files_is_what_it_is_over_copies(
    graph: Graph, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from isula_edge.snapshot import copy, overlay, vfs

    copied = Graph(tmp_path / "copied", graph.store.driver.name)
    copied.layer(BELOW)
    graph.layer(ABOVE[what])
    for module in (vfs, overlay):
        monkeypatch.setattr(module, "link_tree", copy.copy_tree)
    copied.layer(ABOVE[what])
    shared, apart = (
        tree(f"{each.store.driver.home}/{each.store.dirs(each.chain)[0]}")
        for each in (graph, copied)
    )
    assert shared == apart


def test_what_did_not_change_is_there_once(graph: Graph) -> None:
    graph.layer([regular("etc/conf", b"new"), regular("more", b"more")])
    upper, lower = (f"{graph.store.driver.home}/{name}" for name in graph.store.dirs(graph.chain))
    for name in ("etc/other", "etc/same", "etc/soft", "etc/pipe", "data/file", "data/inner/deep"):
        assert os.path.samestat(os.lstat(f"{upper}/{name}"), os.lstat(f"{lower}/{name}"))
    assert not os.path.samestat(os.stat(f"{upper}/etc/conf"), os.stat(f"{lower}/etc/conf"))


def test_a_layer_outlives_the_one_below(graph: Graph) -> None:
    graph.layer([regular("more", b"more")])
    upper = f"{graph.store.driver.home}/{graph.store.dirs(graph.chain)[0]}"
    before = facts(upper)
    graph.store.remove(graph.chain[0])
    assert facts(upper) == before


def test_a_container_of_the_copying_driver_has_files_of_its_own(tmp_path: Path) -> None:
    graph = Graph(tmp_path, "vfs")
    graph.layer(BELOW)
    graph.layer([regular("more", b"more")])
    tops = [f"{graph.store.driver.home}/{name}" for name in graph.store.dirs(graph.chain)]
    before = [facts(top) for top in tops]
    root = graph.root()
    for name in ("etc/conf", "etc/other", "data/inner/deep", "more"):
        assert os.stat(f"{root}/{name}").st_ino != os.stat(f"{tops[0]}/{name}").st_ino
        with open(f"{root}/{name}", "r+b") as file:
            file.write(b"written in place")
        os.chmod(f"{root}/{name}", 0o777)
    assert os.path.samefile(f"{root}/etc/conf", f"{root}/etc/same")
    assert [facts(top) for top in tops] == before
