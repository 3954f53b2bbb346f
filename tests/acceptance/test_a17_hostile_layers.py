"""Case A17: whatever a layer's tar says, nothing changes outside the layer."""

from __future__ import annotations

import contextlib
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from tests.fakes.layers import Graph, directory, link, regular, special, tree

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

Entries = list["tuple[tarfile.TarInfo, bytes]"]


def corpus(host: str) -> dict[str, list[Entries]]:
    """Hostile images, each a list of layers, that aim at the directory ``host``."""
    back = "../" * 20
    return {
        "absolute link, then through it": [[link("a", host), regular("a/evil", b"evil")]],
        "relative link, then through it": [
            [link("a", back + host.lstrip("/")), regular("a/evil", b"evil")]
        ],
        "link of a lower layer": [[link("a", host)], [regular("a/evil", b"evil")]],
        "chained links": [
            [link("a", host), link("b", "a"), link("c", "b"), regular("c/evil", b"evil")]
        ],
        "link in the middle": [[link("a", "/"), regular(f"a{host}/evil", b"evil")]],
        "dots in a name": [[regular(f"{back}{host}/evil", b"evil")]],
        "dots in the middle": [[directory("a"), regular(f"a/{back}{host}/evil", b"evil")]],
        "absolute name": [[regular(f"{host}/evil", b"evil")]],
        "link, then a directory in its place": [
            [link("a", host), directory("a"), regular("a/evil", b"evil")]
        ],
        "directory, then a link in its place": [
            [directory("a"), link("a", host), regular("a/evil", b"evil")]
        ],
        "hard link to the outside": [[link("h", f"{host}/kept", hard=True), regular("h", b"evil")]],
        "hard link by dots": [[link("h", f"{back}{host}/kept", hard=True), regular("h", b"evil")]],
        "hard link through a link": [
            [link("a", host), link("h", "a/kept", hard=True), regular("h", b"evil")]
        ],
        "hard link to a link, then through it": [
            [link("a", host), link("h", "a", hard=True), regular("h/evil", b"evil")]
        ],
        "mode of a link's target": [[link("a", f"{host}/kept"), regular("a", b"evil", mode=0o777)]],
        "owner of a link's target": [[link("a", host), directory("a", uid=5, gid=5, mode=0o777)]],
        "whiteout through a link": [[link("a", host)], [regular("a/.wh.kept")]],
        "opaque through a link": [[link("a", host)], [regular("a/.wh..wh..opq")]],
        "whiteout of the parent": [[regular(".wh..")], [regular("a/.wh...")]],
        "whiteout with a slash": [[regular(".wh./kept")]],
        "fifo through a link": [[link("a", host), special("a/pipe", tarfile.FIFOTYPE)]],
        "device through a link": [
            [link("a", host), special("a/dev", tarfile.CHRTYPE, devmajor=1, devminor=3)]
        ],
        "the root is a link": [[link(".", host), regular("evil", b"evil")]],
        "the root is a file": [[regular(".", b"evil")], [regular("/", b"evil")]],
    }


NAMES = list(corpus("/x"))


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_outside_changes(tmp_path: Path, driver: str, name: str) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (host / "kept").write_text("kept")
    (host / "kept").chmod(0o600)
    before, details = tree(str(host)), os.stat(host)
    with Graph(tmp_path / "g", driver) as graph:
        # clamped to the layer, or refused
        with contextlib.suppress(errors.EngineError):
            for layer in corpus(str(host))[name]:
                graph.layer(layer)
        leftovers = os.listdir(graph.store.driver.home)
        assert not [item for item in leftovers if item.startswith("ingest")]
    assert tree(str(host)) == before
    after = os.stat(host)
    assert (after.st_mode, after.st_uid) == (details.st_mode, details.st_uid)


def test_the_corpus_can_do_harm(tmp_path: Path) -> None:
    """The same archives, unpacked by a tar that trusts them, do write outside."""
    harmed = 0
    for number, (name, layers) in enumerate(corpus("HOST").items()):
        host = tmp_path / f"host{number}"
        root = tmp_path / f"root{number}"
        host.mkdir()
        root.mkdir()
        (host / "kept").write_text("kept")
        before = tree(str(host)), os.stat(host).st_mode, os.stat(host).st_uid
        for layer in corpus(str(host))[name]:
            for info, data in layer:
                naive(str(root), info, data)
        harmed += (tree(str(host)), os.stat(host).st_mode, os.stat(host).st_uid) != before
        del layers
    assert harmed >= 10


def naive(root: str, info: tarfile.TarInfo, data: bytes) -> None:
    """Unpacks one entry as a careless program would."""
    path = os.path.join(root, info.name)
    try:
        if info.type == tarfile.SYMTYPE:
            os.symlink(info.linkname, path)
        elif info.type == tarfile.LNKTYPE:
            os.link(os.path.join(root, info.linkname), path)
        elif info.type == tarfile.DIRTYPE:
            os.makedirs(path, exist_ok=True)
            os.chmod(path, info.mode)
        elif info.type == tarfile.FIFOTYPE:
            os.mkfifo(path)
        elif info.type == tarfile.REGTYPE:
            folder, base = os.path.split(path)
            if base.startswith(".wh.") and base != ".wh..wh..opq":
                os.unlink(os.path.join(folder, base[4:]))
            else:
                with open(path, "wb") as file:
                    file.write(data)
    except OSError:
        pass
