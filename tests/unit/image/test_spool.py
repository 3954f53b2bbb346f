"""The way from a download to the unpacking of a layer, through a file that grows."""

from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.image.partial import BLOCK, Candidate
from isula_edge.image.spool import Restarted, Spool, unnamed_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATA = os.urandom(1 << 20)
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


def make(folder: Path, *, again: bool = False, clock: Callable[[], float] = lambda: 0.0) -> Spool:
    partial = Candidate(str(folder), DIGEST).lock()
    assert partial is not None
    spool = Spool(partial, clock, again=again)
    spool.rewind()
    return spool


def recover(spool: Spool) -> int:
    return spool.recover(len(DATA), hashlib.sha256())


def write_all(spool: Spool, piece: int = 50_000, data: bytes = DATA) -> None:
    have = recover(spool)
    for at in range(have, len(data), piece):
        spool.write(data[at : at + piece])
    spool.finish()
    spool.left()


def read_all(spool: Spool, size: int = 33_333) -> bytes:
    parts = []
    while part := spool.read(size):
        parts.append(part)
    return b"".join(parts)


def blobs(folder: Path) -> dict[str, int]:
    """Sizes of the files that are there, by the ends of their names."""
    return {path.suffix: path.stat().st_size for path in (folder / "blobs").iterdir()}


def test_written_before_read(tmp_path: Path) -> None:
    spool = make(tmp_path)
    write_all(spool)
    assert spool.read(10) == DATA[:10]
    assert read_all(spool) == DATA[10:]
    spool.close(keep=True, used=True)
    assert blobs(tmp_path) == {}


@pytest.mark.parametrize("first", [0, 1, 300_000])
def test_read_while_written(tmp_path: Path, first: int) -> None:
    spool = make(tmp_path)
    recover(spool)
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
    spool.left()
    spool.close(keep=True, used=True)


def test_all_that_was_asked_for_comes_at_once(tmp_path: Path) -> None:
    spool = make(tmp_path)
    recover(spool)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(spool.read(500_000)))
    reader.start()
    for at in range(0, len(DATA), 100_000):
        spool.write(DATA[at : at + 100_000])
    reader.join()
    assert found == [DATA[:500_000]]


def test_an_interrupted_one_is_gone_on_with(tmp_path: Path) -> None:
    spool = make(tmp_path)
    recover(spool)
    spool.write(DATA[: 2 * BLOCK + 10])
    spool.fail(errors.Aborted("stop"))
    spool.left()
    spool.close(keep=True)
    spool = make(tmp_path)
    reader: list[bytes] = []
    thread = threading.Thread(target=lambda: reader.append(read_all(spool)))
    thread.start()
    hasher = hashlib.sha256()
    assert spool.recover(len(DATA), hasher) == 2 * BLOCK
    assert hasher.digest() == hashlib.sha256(DATA[: 2 * BLOCK]).digest()
    spool.write(DATA[2 * BLOCK :])
    spool.finish()
    thread.join()
    assert reader == [DATA]


# what is on the disk when the layer is committed


def test_what_never_was_on_the_disk_is_gone_before_the_commit(tmp_path: Path) -> None:
    spool = make(tmp_path)
    write_all(spool)
    assert blobs(tmp_path)[".part"] == len(DATA)
    read_all(spool)
    # the lock is still held: who waits for it finds the layer committed
    assert blobs(tmp_path)[".part"] == 0
    assert Candidate(str(tmp_path), DIGEST).lock() is None
    spool.close(keep=True, used=True)
    assert blobs(tmp_path) == {}


def test_what_was_forced_to_the_disk_stays_until_after_the_commit(tmp_path: Path) -> None:
    now = iter(range(0, 1000, 5))
    spool = make(tmp_path, clock=lambda: float(next(now)))
    write_all(spool)
    read_all(spool)
    assert blobs(tmp_path)[".part"] == len(DATA)
    spool.close(keep=True, used=True)
    assert blobs(tmp_path) == {}


def test_a_blob_of_two_layers_stays(tmp_path: Path) -> None:
    spool = make(tmp_path, again=True)
    write_all(spool)
    read_all(spool)
    spool.close(keep=True, used=True)
    assert blobs(tmp_path)[".part"] == len(DATA)
    second = make(tmp_path)
    assert recover(second) == len(DATA)


def test_what_is_useless_goes(tmp_path: Path) -> None:
    spool = make(tmp_path)
    recover(spool)
    spool.write(DATA)
    spool.left(useless=True)
    spool.close(keep=True)
    assert blobs(tmp_path) == {}


def test_the_file_is_given_back_when_the_writer_has_left(tmp_path: Path) -> None:
    spool = make(tmp_path)
    recover(spool)
    spool.write(DATA)
    spool.close(keep=False)
    spool.close(keep=True)
    spool.write(DATA)
    assert blobs(tmp_path)[".part"] == 2 * len(DATA)
    spool.left()
    assert blobs(tmp_path) == {}


def test_a_removal_that_fails_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = make(tmp_path)
    spool.left()

    def refuse(_path: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "unlink", refuse)
    spool.close(keep=False)
    assert "Operation not permitted" in caplog.text


# failures, and starting over


def test_a_failure_reaches_both_ends(tmp_path: Path) -> None:
    spool = make(tmp_path)
    spool.write(b"x")
    spool.fail(errors.Aborted("stop"))
    spool.fail(errors.Internal("later"))
    with pytest.raises(errors.Aborted):
        spool.read(2)
    with pytest.raises(errors.Aborted):
        spool.write(b"y")


def test_a_failure_after_the_end_is_none(tmp_path: Path) -> None:
    spool = make(tmp_path)
    write_all(spool)
    spool.fail(errors.Aborted("stop"))
    assert read_all(spool) == DATA


@pytest.mark.parametrize("what", ["fail", "restart"])
def test_a_waiting_reader_is_woken(tmp_path: Path, what: str) -> None:
    spool = make(tmp_path)
    recover(spool)
    found: list[BaseException] = []

    def read() -> None:
        try:
            spool.read(1)
        except errors.Aborted as error:
            found.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    if what == "fail":
        spool.fail(errors.Aborted("stop"))
    else:
        spool.restart()
    reader.join()
    assert [isinstance(error, Restarted) for error in found] == [what == "restart"]


def test_a_reader_begins_again(tmp_path: Path) -> None:
    spool = make(tmp_path)
    recover(spool)
    spool.write(DATA[::-1])
    assert spool.read(100) == DATA[::-1][:100]
    spool.restart()
    with pytest.raises(Restarted):
        spool.read(100)
    spool.write(DATA)
    with pytest.raises(Restarted):
        spool.read(100)
    spool.rewind()
    spool.finish()
    assert read_all(spool) == DATA


def test_a_file_that_someone_has_shortened(tmp_path: Path) -> None:
    spool = make(tmp_path)
    write_all(spool)
    os.truncate(next(path for path in (tmp_path / "blobs").iterdir() if path.suffix == ".part"), 5)
    with pytest.raises(errors.DataLoss, match="shorter"):
        spool.read(10)


def test_the_verdict_is_waited_for_when_it_is_near(tmp_path: Path) -> None:
    spool = make(tmp_path)
    recover(spool)
    spool.write(DATA[:1000])
    spool.verdict(len(DATA), 1000)
    threading.Timer(0, lambda: spool.fail(errors.DigestMismatch("wrong"))).start()
    with pytest.raises(errors.DigestMismatch):
        spool.verdict(len(DATA), len(DATA))
    good = make(tmp_path / "other")
    write_all(good)
    good.verdict(len(DATA), 0)


def test_a_file_without_a_name_also_where_the_kernel_has_no_such_thing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    fd = unnamed_file(str(tmp_path))
    os.write(fd, b"x")
    assert list(tmp_path.iterdir()) == []
    os.close(fd)
