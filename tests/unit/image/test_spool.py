"""The pipe between a download and the unpacking of a layer."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.image.spool import Spool, unnamed_file

if TYPE_CHECKING:
    from pathlib import Path

DATA = os.urandom(1 << 20)


def write_all(spool: Spool, piece: int = 50_000) -> None:
    for at in range(0, len(DATA), piece):
        spool.write(DATA[at : at + piece])
    spool.finish()


def read_all(spool: Spool, size: int = 33_333) -> bytes:
    parts = []
    while part := spool.read(size):
        parts.append(part)
    return b"".join(parts)


def test_written_before_read(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    write_all(spool)
    assert spool.read(10) == DATA[:10]
    assert read_all(spool) == DATA[10:]
    spool.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("first", [0, 1, 300_000])
def test_read_while_written(tmp_path: Path, first: int) -> None:
    spool = Spool(str(tmp_path))
    if first:
        spool.write(DATA[:first])
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(read_all(spool)))
    reader.start()
    for at in range(first, len(DATA), 7_000):
        spool.write(DATA[at : at + 7_000])
    spool.finish()
    reader.join()
    assert found == [DATA]
    spool.close()


def test_a_reader_that_keeps_up_needs_no_file(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "absent"))
    writer = threading.Thread(target=write_all, args=(spool,))
    started = threading.Event()

    def read() -> None:
        started.set()
        assert read_all(spool) == DATA

    reader = threading.Thread(target=read)
    # the reader is there first: nothing is ever written into a file
    spool._reading = True
    reader.start()
    started.wait()
    writer.start()
    reader.join()
    writer.join()


def test_a_failure_reaches_both_ends(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    spool.write(b"x")
    spool.fail(errors.Aborted("stop"))
    spool.fail(errors.Internal("later"))
    with pytest.raises(errors.Aborted):
        spool.read(1)
    with pytest.raises(errors.Aborted):
        spool.write(b"y")


def test_a_failure_wakes_a_waiting_reader(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    found: list[BaseException] = []

    def read() -> None:
        try:
            spool.read(1)
        except errors.Aborted as error:
            found.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    spool.fail(errors.Aborted("stop"))
    reader.join()
    assert len(found) == 1


def test_a_full_disk_is_named() -> None:
    spool = Spool("/dev/full/nowhere")
    with pytest.raises((errors.NoSpace, OSError)):
        spool.write(b"x")


def test_a_file_without_a_name_also_where_the_kernel_has_no_such_thing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    fd = unnamed_file(str(tmp_path))
    os.write(fd, b"x")
    assert list(tmp_path.iterdir()) == []
    os.close(fd)
