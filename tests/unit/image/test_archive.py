"""Files inside a tar, found without unpacking it."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.image.archive import Archive
from tests.fakes.images import add_file

if TYPE_CHECKING:
    from pathlib import Path

LONG = "d" * 90 + "/" + "e" * 90 + "/" + "f" * 120


def write(path: Path, data: bytes) -> int:
    path.write_bytes(data)
    return os.open(path, os.O_RDONLY)


def archive_of(path: Path, form: int) -> Archive:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        add_file(archive, "./a", b"A" * 1000)
        if form != tarfile.USTAR_FORMAT:
            add_file(archive, LONG, b"long")
        else:
            add_file(archive, LONG[:181], b"long")
        add_file(archive, "dir/é", b"accent")
        for name, target, kind in (
            ("dir/link", "../a", tarfile.SYMTYPE),
            ("dir/absolute", "/a", tarfile.SYMTYPE),
            ("dir/outside", "../../../../a", tarfile.SYMTYPE),
            ("hard", "a", tarfile.LNKTYPE),
            ("loop1", "loop2", tarfile.SYMTYPE),
            ("loop2", "loop1", tarfile.SYMTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = target
            archive.addfile(info)
        info = tarfile.TarInfo("dir")
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
        add_file(archive, "twice", b"1")
        add_file(archive, "twice", b"2")
    return Archive(write(path, out.getvalue()))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_and_links(tmp_path: Path, form: int) -> None:
    archive = archive_of(tmp_path / "tar", form)
    names = ("a", "./a", "/a", "dir/../a", "dir/link", "dir/absolute", "dir/outside", "hard")
    for name in names:
        assert archive.read(name, 1000) == b"A" * 1000
    long = LONG if form != tarfile.USTAR_FORMAT else LONG[:181]
    assert archive.read(long, 10) == b"long"
    assert archive.read("dir/é", 10) == b"accent"
    assert archive.read("twice", 10) == b"2"
    for name in ("loop1", "dir", "absent"):
        assert archive.read(name, 10) is None


def test_a_limit_and_pieces(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "tar", tarfile.GNU_FORMAT)
    with pytest.raises(errors.ResourceExhausted, match="a in the archive is larger than 999"):
        archive.read("a", 999)
    member = archive.find("a")
    assert member is not None
    reader = archive.open(member)
    assert [len(reader.read(300)) for _ in range(5)] == [300, 300, 300, 100, 0]


@pytest.mark.parametrize(
    "damage", [b"", b"x" * 2000, b"\0" * 100 + b"x" * 1000, b"\x1f\x8b" + b"\0" * 600]
)
def test_what_is_no_tar(tmp_path: Path, damage: bytes) -> None:
    with pytest.raises(errors.InvalidArgument, match="not an archive of images"):
        Archive(write(tmp_path / "tar", damage))


def test_a_cut_off_tar(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        add_file(archive, "a", b"A" * 10_000)
    with pytest.raises(errors.InvalidArgument, match="cut off"):
        Archive(write(tmp_path / "tar", out.getvalue()[:5000]))


def test_damaged_headers_end_in_an_error_or_in_fewer_files(tmp_path: Path) -> None:
    archive_of(tmp_path / "tar", tarfile.PAX_FORMAT)
    whole = (tmp_path / "tar").read_bytes()[:8192]
    for at in range(0, len(whole), 7):
        damaged = whole[:at] + bytes((whole[at] ^ 0x81,)) + whole[at + 1 :]
        fd = write(tmp_path / "damaged", damaged)
        try:
            Archive(fd)
        except errors.InvalidArgument:
            continue
        finally:
            os.close(fd)
