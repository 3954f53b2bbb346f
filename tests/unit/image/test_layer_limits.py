"""Layers that want more than there is: memory, steps, time."""

from __future__ import annotations

import errno
import io
import os
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image import files, recorder
from isula_edge.image.layers import image_event
from isula_edge.image.recipe import Recipe
from isula_edge.image.recorder import Recorder
from isula_edge.image.tar import TarReader
from isula_edge.image.tree import Tree
from isula_edge.image.unpack import unpack_layer
from tests.fakes.layers import archive, directory, link, regular

if TYPE_CHECKING:
    import tarfile
    from pathlib import Path


def unpack(root: Path, *entries: tuple[tarfile.TarInfo, bytes], **options: Any) -> None:
    root.mkdir(exist_ok=True)
    unpack_layer(io.BytesIO(archive(entries)), str(root), "merge", **options)


def xattrs(**values: int) -> dict[str, str]:
    """Pax records of extended attributes with so many bytes."""
    return {f"SCHILY.xattr.user.{name}": "v" * size for name, size in values.items()}


@pytest.mark.parametrize(
    ("records", "text"),
    [
        (xattrs(a=65537), "cannot unpack x/: with user.a its extended attributes have more"),
        (xattrs(a=40000, b=40000), "with user.b its extended attributes have more than 65536"),
        ({f"SCHILY.xattr.user.{'n' * 251}": "1"}, "name has more than 255 bytes"),
    ],
)
def test_large_attributes(records: dict[str, str], text: str) -> None:
    reader = TarReader(io.BytesIO(archive([directory("x", pax_headers=records)])))
    with pytest.raises(errors.InvalidArgument, match=text):
        reader.next()


def test_attributes_as_large_as_the_kernel_takes() -> None:
    records = xattrs(a=65536)
    entry = TarReader(io.BytesIO(archive([directory("x", pax_headers=records)]))).next()
    assert entry is not None
    assert entry.xattrs == {b"user.a": b"v" * 65536}


def test_what_is_kept_of_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MAX_DIRECTORY_XATTRS", 25_000)
    monkeypatch.setattr(os, "setxattr", lambda *_, **__: None)
    entries = [directory(name, pax_headers=xattrs(a=10_000)) for name in "abc"]
    unpack(tmp_path / "good", *entries[:2])
    with pytest.raises(errors.ResourceExhausted, match="cannot unpack c/: extended attributes of"):
        unpack(tmp_path / "bad", *entries)
    records = {"linkpath": "l" * 100_000}
    entry = TarReader(io.BytesIO(archive([directory("x", pax_headers=records)]))).next()
    assert entry is not None
    assert entry.link == b""


def test_attributes_that_are_lost_are_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refused)
    records = xattrs(**{f"n{number}": 1 for number in range(30)})
    unpack(tmp_path / "root", regular("x", pax_headers=records))
    (record,) = caplog.records
    text = record.getMessage()
    assert "does not take 30 extended attributes" in text
    assert text.count("user.n") == 16


def test_the_sum_of_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MAX_SIZE", 1000)
    unpack(tmp_path / "good", regular("a", bytes(500)), regular("b", bytes(500)))
    with pytest.raises(errors.InvalidArgument, match="cannot unpack b: the layer's files have"):
        unpack(tmp_path / "bad", regular("a", bytes(500)), regular("b", bytes(501)))
    event = image_event(b"{}", b"{}", "", "", [], [], [], 5 << 62)
    assert event["image"]["size"] == (1 << 63) - 1


def test_a_check_ends_the_unpacking(tmp_path: Path) -> None:
    left = [1, 2]

    def check() -> None:
        if not left:
            raise errors.Aborted("the request was cancelled")
        left.pop()

    with pytest.raises(errors.Aborted):
        unpack(tmp_path / "root", *map(regular, "abcd"), check=check)
    assert sorted(os.listdir(tmp_path / "root")) == ["a", "b"]


def opened(tree: Tree, path: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, int]:
    """Where ``path`` leads, and how many directories were opened for it."""
    count, really = 0, os.open

    def counting(*args: Any, **options: Any) -> int:
        nonlocal count
        count += 1
        return really(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", counting)
        found = tree.find(path)
    assert found is not None
    return found.path, count


def test_the_way_up_is_no_way_from_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = "/".join(["d"] * 200)
    (tmp_path / deep).mkdir(parents=True)
    (tmp_path / "up").symlink_to(deep + "/.." * 190)
    (tmp_path / "out").symlink_to("d/../../../d/./..//d")
    tree = Tree(os.open(tmp_path, os.O_RDONLY))
    path, count = opened(tree, b"up", monkeypatch)
    assert path == b"/".join([b"d"] * 10)
    assert count <= 600
    assert opened(tree, b"out", monkeypatch)[0] == b"d"
    # from a directory that the walk did not come through
    for name in (b"d/d/d/back", b"d/d/d/home"):
        (tmp_path / os.fsdecode(name)).symlink_to("../.." if b"back" in name else "/d/../d")
    tree.directory(b"d/d/d")
    assert opened(tree, b"d/d/d/back", monkeypatch)[0] == b"d"
    assert opened(tree, b"d/d/d/home", monkeypatch)[0] == b"d"


def test_a_walk_without_an_end(tmp_path: Path) -> None:
    names = [f"l{number}" for number in range(4)]
    targets = [*names[1:], "d"]
    entries = [link(a, "d/../" * 700 + b) for a, b in zip(names, targets, strict=True)]
    with pytest.raises(errors.InvalidArgument, match="cannot unpack l0/x: l0 leads through more"):
        unpack(tmp_path / "root", directory("d"), *entries, regular("l0/x"))
    unpack(tmp_path / "good", directory("d"), *entries, regular("l3/x"))
    assert os.listdir(tmp_path / "good/d") == ["x"]


def test_a_layer_that_replaces_its_files_too_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "_MAX_CONTENT", 3)
    with (tmp_path / "recipe").open("wb") as file:
        unpack(tmp_path / "good", *[regular("a", b"1")] * 4, recorder=Recorder(file.fileno()))
        with pytest.raises(errors.ResourceExhausted, match="a: the layer replaces its own files"):
            unpack(tmp_path / "bad", *[regular("a", b"1")] * 5, recorder=Recorder(file.fileno()))


def test_a_recipe_has_every_path_once_in_memory(tmp_path: Path) -> None:
    name = "n" * 200
    with (tmp_path / "recipe").open("wb") as file:
        entries = [regular(name, os.urandom(2 << 20)), regular(name, b"new")]
        unpack(tmp_path / "root", *entries, recorder=Recorder(file.fileno()))
    with Recipe(str(tmp_path / "recipe")) as found:
        blocks = found.content(name.encode(), 0)
        assert blocks is not None
        assert len(blocks) == 4
        assert len({id(block.path) for block in blocks}) == 1
