"""A root file system as a tar: all of it, and nothing else, whatever is in it."""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
import threading
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image import export as exports
from isula_edge.image.export import export
from tests.fakes.jobs import FakeDaemon
from tests.fakes.layers import Graph, directory, regular, tree
from tests.unit.image.test_recipe import Layers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def exported(root: Path | str, folder: Path) -> bytes:
    """What is written for ``root``."""
    path = folder / "out.tar"
    with path.open("wb") as file:
        result = export(file.fileno(), str(root), FakeDaemon().job)
    data = path.read_bytes()
    assert result == {"size": len(data)}
    assert len(data) % 10240 == 0
    return data


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = tmp_path / "root"
    found.mkdir()
    return found


def test_what_every_kind_of_file_is_in_the_tar(root: Path, tmp_path: Path) -> None:
    (root / "folder").mkdir(mode=0o710)
    (root / "folder" / "file").write_bytes(b"content")
    os.chmod(root / "folder" / "file", 0o4751)
    os.utime(root / "folder" / "file", ns=(5, 1_600_000_000_123_456_789))
    os.link(root / "folder" / "file", root / "second")
    (root / "link").symlink_to("../far/away")
    os.mkfifo(root / "pipe", 0o600)
    (root / "empty").touch()
    found = members(exported(root, tmp_path))
    names = [".", "empty", "folder", "folder/file", "link", "pipe", "second"]
    assert sorted(found) == names
    file, other = found["second"], found["folder/file"]
    # the first name in the order of the archive has the content
    assert (file.size, file.mode, file.type) == (7, 0o4751, tarfile.REGTYPE)
    assert file.pax_headers["mtime"] == "1600000000.123456789"
    assert (other.type, other.linkname) == (tarfile.LNKTYPE, "second")
    assert found["folder"].mode == 0o710
    assert found["link"].linkname == "../far/away"
    assert found["pipe"].type == tarfile.FIFOTYPE


def test_names_that_are_long_or_no_text(root: Path, tmp_path: Path) -> None:
    deep = os.fsencode(root)
    for number in range(12):
        deep += b"/" + b"part" * 10 + b"%d" % number
    os.makedirs(deep)
    name = b"caf\xe9" + b"x" * 200
    with open(deep + b"/" + name, "wb") as file:
        file.write(b"1")
    os.symlink(b"\xff" * 300, deep + b"/link")
    os.mkdir(root / "new\nline")
    layers = Layers(tmp_path / "graph", "vfs")
    layers.add(exported(root, tmp_path))
    again = layers.store.tree(layers.chain[0])
    assert tree(again) == tree(str(root))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owners_devices_and_attributes(root: Path, tmp_path: Path) -> None:
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 70000))
    (root / "owned").write_bytes(b"1")
    os.chown(root / "owned", 1234567, 7654321)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(root / "owned", "security.capability", capability)
    os.setxattr(root / "owned", "trusted.note", b"\x00\xff\nbinary")
    os.setxattr(root, "trusted.overlay.origin", b"own")
    (root / "link").symlink_to("owned")
    os.setxattr(root / "link", "trusted.of-link", b"l", follow_symlinks=False)
    layers = Layers(tmp_path / "graph", "vfs")
    layers.add(exported(root, tmp_path))
    again = layers.store.tree(layers.chain[0])
    assert tree(again) == tree(str(root))
    for name in ("null", "disk"):
        assert os.lstat(f"{again}/{name}").st_rdev == os.lstat(root / name).st_rdev
    owned = os.lstat(f"{again}/owned")
    assert (owned.st_uid, owned.st_gid) == (1234567, 7654321)
    assert os.getxattr(f"{again}/owned", "security.capability") == capability
    assert os.getxattr(f"{again}/owned", "trusted.note") == b"\x00\xff\nbinary"
    assert os.getxattr(f"{again}/link", "trusted.of-link", follow_symlinks=False) == b"l"
    assert not [name for name in os.listxattr(again) if name.startswith("trusted.overlay")]


def test_holes_are_zeros(root: Path, tmp_path: Path) -> None:
    with (root / "holes").open("wb") as file:
        file.seek(3 << 20)
        file.write(b"end")
    data = exported(root, tmp_path)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        content = archive.extractfile("holes")
        assert content is not None
        assert content.read() == bytes(3 << 20) + b"end"


def test_a_very_deep_tree(root: Path, tmp_path: Path) -> None:
    here = os.open(root, os.O_RDONLY)
    for _ in range(600):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    found = members(exported(root, tmp_path))
    assert len(found) == 601
    assert "/".join(["d"] * 600) in found


class Meddling:
    """A job whose checks run something once a number of entries are written."""

    def __init__(self, at: int, act: Callable[[], object]) -> None:
        self.left, self.act = at, act

    def check(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.act()


def test_files_that_change_while_they_are_read(root: Path, tmp_path: Path) -> None:
    large, path = b"1" * (1 << 20), root / "file"
    changes: list[Callable[[], object]] = [
        lambda: os.truncate(path, 10),
        lambda: os.truncate(path, 9 << 20),
        path.unlink,
    ]
    for change in changes:
        for step in range(2, 8):
            path.write_bytes(large)
            (root / "next").write_bytes(b"next")
            out = tmp_path / "out.tar"
            with out.open("wb") as file:
                export(file.fileno(), str(root), Meddling(step, change))  # type: ignore[arg-type]
            found = members(out.read_bytes())
            assert found["next"].size == 4
            with tarfile.open(out) as archive:
                content = archive.extractfile("next")
                assert content is not None
                assert content.read() == b"next"


def test_directories_that_become_links_lead_nowhere(root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_bytes(b"key")
    inner = root / "a" / "b"

    def swap() -> None:
        if inner.is_dir() and not inner.is_symlink():
            inner.rename(root / "moved")
            inner.symlink_to(secret)

    for step in range(1, 8):
        inner.mkdir(parents=True)
        (inner / "file").write_bytes(b"1")
        out = tmp_path / "out.tar"
        with out.open("wb") as file:
            export(file.fileno(), str(root), Meddling(step, swap))  # type: ignore[arg-type]
        assert not [name for name in members(out.read_bytes()) if "key" in name]
        swap()
        inner.unlink()
        inner.parent.rmdir()
        (root / "moved" / "file").unlink()
        (root / "moved").rmdir()


def test_a_root_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(errors.FailedPrecondition, match="Failed to export rootfs with error"):
        exported(tmp_path / "absent", tmp_path)


def test_nobody_reads(root: Path) -> None:
    (root / "file").write_bytes(b"1" * (1 << 20))
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with pytest.raises(errors.Aborted, match="nobody reads"):
            export(writer, str(root), FakeDaemon().job)
    finally:
        os.close(writer)


def test_a_cancelled_job_ends(root: Path) -> None:
    (root / "file").write_bytes(b"1" * (1 << 20))
    daemon = FakeDaemon()
    reader, writer = os.pipe()
    failure: list[BaseException] = []

    def work() -> None:
        try:
            export(writer, str(root), daemon.job)
        except errors.EngineError as error:
            failure.append(error)
        finally:
            os.close(writer)

    thread = threading.Thread(target=work)
    thread.start()
    os.read(reader, 512)
    daemon.job.cancel()
    while os.read(reader, 1 << 16):
        pass
    thread.join()
    os.close(reader)
    assert isinstance(failure[0], errors.Aborted)


@pytest.mark.root
@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_what_a_container_sees(tmp_path: Path, driver: str) -> None:
    with Graph(tmp_path / "g", driver) as graph:
        graph.layer([directory("d"), regular("d/lower", b"1"), regular("d/gone", b"2")])
        graph.layer([regular("d/.wh.gone"), regular("d/upper", b"3")])
        seen = graph.root()
        data = exported(seen, tmp_path)
        layers = Layers(tmp_path / "again", "vfs")
        layers.add(data)
        assert tree(layers.store.tree(layers.chain[0])) == tree(seen)
        assert {"d/lower", "d/upper"} == set(members(data)) - {".", "d"}


def test_a_device_in_a_files_place_is_never_opened(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "file").write_bytes(b"1")
    (root / "next").write_bytes(b"2")
    read, opened, really = exports.Exporter._file, [], os.open

    def swapped(self: Any, parent: Any, name: bytes, path: bytes) -> None:
        if name == b"file":
            (root / "file").unlink()
            os.mkfifo(root / "file")
        read(self, parent, name, path)

    def noted(path: Any, flags: int, *args: Any, **options: Any) -> int:
        fd = really(path, flags, *args, **options)
        if stat.S_ISFIFO(os.fstat(fd).st_mode) and not flags & os.O_PATH:
            opened.append(path)
        return fd

    monkeypatch.setattr(exports.Exporter, "_file", swapped)
    monkeypatch.setattr(os, "open", noted)
    assert set(members(exported(root, tmp_path))) == {".", "next"}
    assert opened == []


def test_a_device_without_a_driver_is_gone(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "file").write_bytes(b"1")

    def gone(*_: Any) -> None:
        raise OSError(errno.ENXIO, "No such device or address")

    monkeypatch.setattr(exports.Exporter, "_file", gone)
    assert set(members(exported(root, tmp_path))) == {"."}


def test_attributes_whose_names_no_tar_can_hold(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (root / "file").write_bytes(b"1")
    names = ["user.a=b", "user.\udcff", "user.good"]
    monkeypatch.setattr(os, "listxattr", lambda *_, **__: names)
    monkeypatch.setattr(os, "getxattr", lambda *_, **__: b"value")
    found = members(exported(root, tmp_path))["file"].pax_headers
    assert [key for key in found if "xattr" in key] == ["SCHILY.xattr.user.good"]
    # two of the root, two of the file
    (record,) = caplog.records
    assert record.getMessage().startswith("4 extended attributes have names that no tar can hold")
