"""What is kept of a download: good after a kill and a power cut, one owner, no waste of flash."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.image import partial
from isula_edge.image.partial import BLOCK, Candidate, Partial

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DIGEST = "sha256:" + "a" * 64
OTHER = "sha512:" + "b" * 128
DATA = os.urandom(4 * BLOCK + 1000)


def start(tmp_path: Path, digest: str = DIGEST) -> Partial:
    """The locked partial of a blob."""
    candidate = Candidate(str(tmp_path), digest)
    found = candidate.lock()
    candidate.close()
    assert found is not None
    return found


def recovered(tmp_path: Path, size: int = len(DATA)) -> bytes:
    """What a later download goes on from."""
    parts: list[bytes] = []
    again = start(tmp_path)
    assert again.recover(size, parts.append) == sum(map(len, parts)) == again.length
    assert os.fstat(again.fd).st_size == again.length
    again.close(keep=True)
    return b"".join(parts)


def leave(tmp_path: Path, data: bytes = DATA, piece: int = 70_000) -> None:
    """Downloads ``data`` and is interrupted."""
    first = start(tmp_path)
    assert first.recover(len(DATA), print) == 0
    for at in range(0, len(data), piece):
        first.write(data[at : at + piece])
    first.close(keep=True)


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name.rpartition(".")[2] for path in (tmp_path / "blobs").iterdir())


def part(tmp_path: Path) -> Path:
    return tmp_path / "blobs" / f"sha256-{'a' * 64}.part"


def sums(tmp_path: Path) -> Path:
    return part(tmp_path).with_suffix(".sums")


@pytest.mark.parametrize("piece", [1000, BLOCK, 3 * BLOCK + 5, len(DATA)])
def test_whole_blocks_are_gone_on_from(tmp_path: Path, piece: int) -> None:
    leave(tmp_path, piece=piece)
    assert recovered(tmp_path) == DATA[: 4 * BLOCK]


def test_going_on_is_as_good_as_never_having_stopped(tmp_path: Path) -> None:
    leave(tmp_path, DATA[: 2 * BLOCK + 7])
    second = start(tmp_path)
    have = second.recover(len(DATA), print)
    assert have == 2 * BLOCK
    second.write(DATA[have:])
    second.complete()
    second.close(keep=True)
    assert recovered(tmp_path) == DATA


def test_a_complete_blob_is_kept_to_its_last_byte(tmp_path: Path) -> None:
    first = start(tmp_path)
    first.recover(len(DATA), print)
    first.write(DATA)
    first.complete()
    first.close(keep=True)
    assert recovered(tmp_path) == DATA


def test_no_more_than_the_blob_has(tmp_path: Path) -> None:
    leave(tmp_path)
    assert recovered(tmp_path, BLOCK) == DATA[:BLOCK]


def _zeros(path: Path, at: int, count: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(count))


@pytest.mark.parametrize(
    ("damage", "blocks"),
    [
        (lambda folder: _zeros(part(folder), 2 * BLOCK + 5, BLOCK), 2),
        (lambda folder: _zeros(part(folder), 0, 10 * BLOCK), 0),
        (lambda folder: os.truncate(part(folder), 3 * BLOCK - 1), 2),
        (lambda folder: os.truncate(part(folder), 0), 0),
        (lambda folder: os.truncate(sums(folder), 8 + 4 * 3 + 2), 3),
        (lambda folder: os.truncate(sums(folder), 3), 0),
        (lambda folder: _zeros(sums(folder), 8 + 4, 4), 1),
        (lambda folder: _zeros(sums(folder), 0, 8), 0),
        (lambda folder: sums(folder).unlink(), 0),
        (lambda folder: sums(folder).write_bytes(os.urandom(50)), 0),
    ],
)
def test_what_a_power_cut_left_is_cut_off(
    tmp_path: Path, damage: Callable[[Path], None], blocks: int
) -> None:
    leave(tmp_path)
    damage(tmp_path)
    assert recovered(tmp_path) == DATA[: blocks * BLOCK]
    # what comes then is as good as the first time
    if blocks:
        second = start(tmp_path)
        second.recover(len(DATA), print)
        second.write(DATA[blocks * BLOCK :])
        second.close(keep=True)
        assert recovered(tmp_path) == DATA[: 4 * BLOCK]


def test_less_than_a_block_is_not_worth_a_file(tmp_path: Path) -> None:
    leave(tmp_path, DATA[: BLOCK - 1])
    assert files(tmp_path) == []


def test_clear_and_close(tmp_path: Path) -> None:
    first = start(tmp_path)
    first.recover(len(DATA), print)
    first.write(DATA)
    first.clear()
    assert part(tmp_path).stat().st_size == sums(tmp_path).stat().st_size == 0
    first.write(DATA[::-1])
    first.close(keep=True)
    assert recovered(tmp_path) == DATA[::-1][: 4 * BLOCK]
    start(tmp_path).close(keep=False)
    assert files(tmp_path) == []


def test_one_that_was_not_read_is_left_as_it_is(tmp_path: Path) -> None:
    leave(tmp_path)
    start(tmp_path).close(keep=True)
    assert recovered(tmp_path) == DATA[: 4 * BLOCK]


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = start(tmp_path)

    def full(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(errors.NoSpace, match="blobs"):
        first.write(DATA)
    first.close(keep=False)
    assert files(tmp_path) == []


# one owner


def test_one_at_a_time(tmp_path: Path) -> None:
    first = start(tmp_path)
    waiting = Candidate(str(tmp_path), DIGEST)
    assert waiting.lock() is None
    assert waiting.lock() is None
    other = Candidate(str(tmp_path), OTHER).lock()
    assert other is not None
    other.close(keep=False)
    first.write(DATA)
    first.close(keep=True)
    second = waiting.lock()
    assert second is not None
    assert second.recover(len(DATA), print) == 4 * BLOCK
    second.close(keep=False)


def test_who_waited_for_a_file_that_is_gone_gets_a_new_one(tmp_path: Path) -> None:
    first = start(tmp_path)
    waiting = Candidate(str(tmp_path), DIGEST)
    assert waiting.lock() is None
    first.close(keep=False)
    third = start(tmp_path)
    assert waiting.lock() is None
    third.close(keep=False)
    second = waiting.lock()
    assert second is not None
    assert os.path.samestat(os.fstat(second.fd), part(tmp_path).stat())
    second.close(keep=False)


WAITER = """\
import sys
from isula_edge.image.partial import Candidate
candidate = Candidate(sys.argv[1], sys.argv[2])
print(candidate.lock(), flush=True)
sys.stdin.read()
"""


def test_the_holder_knows_whether_another_process_waits(tmp_path: Path) -> None:
    holder = start(tmp_path)
    assert not holder.wanted()
    words = [sys.executable, "-c", WAITER, str(tmp_path), DIGEST]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as waiter:
        assert waiter.stdout is not None
        assert waiter.stdout.readline() == b"None\n"
        assert holder.wanted()
        assert holder.wanted()
        waiter.kill()
    assert not holder.wanted()
    holder.close(keep=False)


def test_a_killed_holder_gives_the_lock_back(tmp_path: Path) -> None:
    words = [sys.executable, "-c", WAITER, str(tmp_path), DIGEST]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().startswith(b"<isula_edge")
        waiting = Candidate(str(tmp_path), DIGEST)
        assert waiting.lock() is None
        holder.kill()
    found = waiting.lock()
    assert found is not None
    found.close(keep=False)


# flash


class Disk:
    """Counts what is forced to the disk, by name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.forced: list[str] = []
        monkeypatch.setattr(os, "fdatasync", self._note)
        monkeypatch.setattr(os, "fsync", self._note)

    def _note(self, fd: int) -> None:
        self.forced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")).rpartition(".")[2])


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_a_fast_download_is_never_forced_to_the_disk(tmp_path: Path, disk: Disk) -> None:
    first = start(tmp_path)
    disk.forced.clear()
    for second in range(10):
        first.write(DATA)
        assert not first.sync_if_due(1000.0 + second)
    assert disk.forced == []
    assert not first.kept
    first.close(keep=False)


def test_a_slow_one_is_after_ten_seconds_data_before_sums(tmp_path: Path, disk: Disk) -> None:
    first = start(tmp_path)
    disk.forced.clear()
    for second in range(51):
        first.write(DATA[:BLOCK])
        first.sync_if_due(1000.0 + second)
    # every ten seconds; the name of the file once
    assert disk.forced == ["part", "sums", "blobs", *["part", "sums"] * 4]
    assert first.kept
    assert not first.sync_if_due(1051.0)
    first.close(keep=False)


def test_every_eight_mib_and_not_without_news(tmp_path: Path, disk: Disk) -> None:
    first = start(tmp_path)
    disk.forced.clear()
    first.sync_if_due(0.0)
    first.write(DATA[:BLOCK])
    assert first.sync_if_due(10.0)
    assert not first.sync_if_due(100.0)
    written = 0
    for _ in range(100):
        first.write(DATA[:BLOCK])
        written += first.sync_if_due(101.0)
    # the first one since ten seconds are over, and then 25 MiB
    assert written == 1 + 3
    first.close(keep=False)


# what system df and prune show and remove


def test_partials_are_listed_and_removed(tmp_path: Path) -> None:
    assert partial.partials(str(tmp_path)) == []
    assert partial.remove_partials(str(tmp_path)) == 0
    leave(tmp_path)
    busy = start(tmp_path, OTHER)
    busy.write(DATA)
    idle, used = partial.partials(str(tmp_path))
    assert idle.path == str(part(tmp_path))
    assert not idle.in_use
    assert used.in_use
    assert len(DATA) <= idle.size_bytes < len(DATA) + 16384
    assert partial.remove_partials(str(tmp_path)) == idle.size_bytes
    assert [found.path for found in partial.partials(str(tmp_path))] == [used.path]
    busy.close(keep=False)
    assert files(tmp_path) == []


def test_sums_alone_are_rubbish(tmp_path: Path) -> None:
    leave(tmp_path)
    part(tmp_path).unlink()
    assert partial.remove_partials(str(tmp_path)) > 0
    assert files(tmp_path) == []


def test_what_nobody_has_gone_on_with_for_a_week_is_removed(tmp_path: Path) -> None:
    leave(tmp_path)
    changed = part(tmp_path).stat().st_mtime
    week = 7 * 24 * 3600
    partial.remove_old(str(tmp_path), [], changed + week - 10)
    # a clock that was set back makes nothing old
    partial.remove_old(str(tmp_path), [], changed - 10 * week)
    partial.remove_old(str(tmp_path), [DIGEST], changed + 2 * week)
    busy = start(tmp_path)
    partial.remove_old(str(tmp_path), [], changed + 2 * week)
    busy.close(keep=True)
    assert files(tmp_path) == ["part", "sums"]
    partial.remove_old(str(tmp_path), [OTHER], changed + week + 10)
    assert files(tmp_path) == []
