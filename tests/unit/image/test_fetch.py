"""What a pull leaves when it fails, what it tidies up, and how fast it is allowed to be."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image.partial import BLOCK
from isula_edge.image.pull import PullRequest, pull
from isula_edge.snapshot import LayerStore
from tests.fakes.images import FakeLayer, make_image
from tests.fakes.jobs import FakeDaemon

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fakes.registry import FakeRegistry

A, B = (FakeLayer.of({name: os.urandom(1_500_000)}) for name in "ab")
IMAGE = make_image([A, B])


@pytest.fixture
def pulled(registry: FakeRegistry, graph: Path, store: LayerStore) -> Callable[..., FakeDaemon]:
    """Pulls the image: the daemon's side of it."""
    registry.add("a/b", "latest", IMAGE)

    def work(daemon: FakeDaemon | None = None, **request: Any) -> FakeDaemon:
        daemon = daemon or FakeDaemon()
        wanted = PullRequest("a/b", str(graph / "tmp"), mirrors=[registry.url], **request)
        pull(wanted, store, daemon.job)
        return daemon

    return work


def parts(graph: Path) -> list[str]:
    return sorted(path.name for path in (graph / "tmp/blobs").glob("*.part"))


def part_of(layer: FakeLayer) -> str:
    return f"sha256-{layer.digest[7:]}.part"


def test_a_blob_that_is_there_twice_is_not_waited_for(
    graph: Path, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a layer's lock is held until it is committed, which may be put off
    monkeypatch.setattr("isula_edge.image.commit.DELAY_S", 3600.0)
    os.makedirs(graph / "storage/overlay/rw")
    image = make_image([A, A, B, A, B])
    registry.add("a/twice", "latest", image)
    daemon = FakeDaemon()
    wanted = PullRequest("a/twice", str(graph / "tmp"), mirrors=[registry.url])
    pull(wanted, LayerStore(str(graph), "overlay"), daemon.job)
    assert daemon.of("layer") == image.chain_ids


@pytest.mark.parametrize("place", ["download", "unpacking"])
def test_a_full_disk_gets_its_space_back(
    pulled: Callable[..., FakeDaemon],
    graph: Path,
    registry: FakeRegistry,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    registry.faults.statuses = {B.digest: [(404, {})]}
    with pytest.raises(errors.NotFound):
        pulled()
    real = os.pwrite
    left = [700_000]

    def full(fd: int, data: bytes, offset: int) -> int:
        left[0] -= len(data)
        if left[0] < 0 and ("blobs" in os.readlink(f"/proc/self/fd/{fd}")) == (place == "download"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data, offset)

    def no_room(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if place == "download":
        monkeypatch.setattr(os, "pwrite", full)
    else:
        monkeypatch.setattr("isula_edge.image.unpack.unpack_layer", no_room)
    with pytest.raises(errors.NoSpace):
        pulled()
    assert parts(graph) == []


def test_other_failures_keep_what_has_come(
    pulled: Callable[..., FakeDaemon], graph: Path, registry: FakeRegistry
) -> None:
    registry.faults.cut_at = [0.5] * 20
    with pytest.raises(errors.Unavailable):
        pulled()
    assert parts(graph) == [part_of(A)]
    before = registry.sent_bytes(A.digest)
    registry.faults.cut_at = []
    daemon = pulled()
    assert parts(graph) == []
    assert registry.sent_bytes(A.digest) <= len(A.blob) + BLOCK
    assert registry.sent_bytes(A.digest) > before
    first = next(v for v in daemon.of("v") if v["status"] == "Downloading")
    assert first["current"] == len(A.blob) // 2 // BLOCK * BLOCK


def test_a_wrong_layer_is_not_gone_on_with(
    pulled: Callable[..., FakeDaemon], graph: Path, registry: FakeRegistry
) -> None:
    registry.faults.corrupt = {B.digest}
    with pytest.raises(errors.DigestMismatch, match=B.digest):
        pulled()
    assert parts(graph) == []


def test_old_parts_go_when_a_pull_begins_and_its_own_stay(
    pulled: Callable[..., FakeDaemon], graph: Path, registry: FakeRegistry
) -> None:
    registry.faults.cut_at = [0.5] * 20
    with pytest.raises(errors.Unavailable):
        pulled()
    registry.faults.cut_at = []
    old = time.time() - 8 * 24 * 3600
    stray = graph / "tmp/blobs" / f"sha256-{'0' * 64}.part"
    stray.write_bytes(b"x")
    for name in (stray.name, part_of(A)):
        os.utime(graph / "tmp/blobs" / name, (old, old))
    sent = registry.sent_bytes(A.digest)
    pulled()
    assert parts(graph) == []
    assert registry.sent_bytes(A.digest) - sent < len(A.blob)


def test_the_rate_is_kept_by_waiting(pulled: Callable[..., FakeDaemon], graph: Path) -> None:
    daemon = pulled(max_rate=100_000, rate_file=str(graph / "rate"))
    size = len(A.blob) + len(B.blob)
    # a tenth of a second is given now and then
    assert sum(daemon.clock.slept) == pytest.approx(size / 100_000, abs=1.0)
    assert (graph / "rate").stat().st_size == 8
    assert pulled(max_rate=0).clock.slept == []


def test_a_layer_of_another_worker_that_vanishes(
    pulled: Callable[..., FakeDaemon], store: LayerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "has", lambda _chain_id: True)
    with pytest.raises(errors.DataLoss, match="was removed while it was needed"):
        pulled()
