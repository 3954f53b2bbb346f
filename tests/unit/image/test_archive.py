"""Files inside a tar, found without unpacking it."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image import archive as archives
from isula_edge.image.archive import Archive
from tests.fakes.images import add_file
from tests.fakes.jobs import FakeDaemon

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


def pax(*records: bytes) -> bytes:
    """A tar of one file behind a pax header with these records as they are."""
    data = b"".join(records)
    out = io.BytesIO()
    for name, kind, size in (("x", tarfile.XHDTYPE, len(data)), ("a", tarfile.REGTYPE, 0)):
        info = tarfile.TarInfo(name)
        info.type = kind
        info.size = size
        out.write(info.tobuf(tarfile.USTAR_FORMAT))
        if size:
            out.write(data + bytes(-size % 512))
    return out.getvalue() + bytes(1024)


class Counted(bytes):
    """Bytes that count what is copied out of them."""

    copied = 0

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        if isinstance(found, bytes):
            Counted.copied += len(found)
            return Counted(found)
        return found

    def partition(self, sep: Any, /) -> Any:
        Counted.copied += len(self)
        return super().partition(sep)


def test_many_records_are_read_once() -> None:
    data = Counted(b"7 a=bc\n" * 10_000)
    Counted.copied = 0
    assert archives._extension(b"x", data) == {}
    assert Counted.copied <= 2 * len(data)


@pytest.mark.parametrize("key", [b"path", b"linkpath"])
def test_a_name_that_is_too_long(tmp_path: Path, key: bytes) -> None:
    for size, good in ((4096, True), (4097, False)):
        body = b" " + key + b"=" + b"n" * size + b"\n"
        fd = write(tmp_path / "tar", pax(b"%d" % (len(body) + 4) + body))
        if good:
            Archive(fd)
        else:
            with pytest.raises(errors.InvalidArgument, match="a name of more than 4096 bytes"):
                Archive(fd)


def test_names_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_MAX_NAMES", 300)
    with pytest.raises(errors.InvalidArgument, match="names of more than"):
        archive_of(tmp_path / "tar", tarfile.PAX_FORMAT)


def test_a_check_ends_the_reading(tmp_path: Path) -> None:
    archive_of(tmp_path / "tar", tarfile.PAX_FORMAT)
    daemon = FakeDaemon()
    daemon.job.cancel()
    with pytest.raises(errors.Aborted):
        Archive(os.open(tmp_path / "tar", os.O_RDONLY), daemon.job.check)
