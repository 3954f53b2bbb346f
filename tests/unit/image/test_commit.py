"""Layers are committed in their order, by as few syncs as possible, while others are unpacked."""

from __future__ import annotations

import errno
import io
import os
import tarfile
import threading
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.image.commit import Committer
from isula_edge.image.layers import Unpacked, unpack_layer
from isula_edge.snapshot import LayerStore
from tests.fakes.jobs import FakeDaemon
from tests.fakes.layers import archive

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """An empty graph, of a driver whose layers do not need those below them."""
    for name in ("layers", "quarantine", "storage/overlay"):
        os.makedirs(tmp_path / name)
    return tmp_path


@pytest.fixture
def store(graph: Path) -> LayerStore:
    """The layers of ``graph``."""
    return LayerStore(str(graph), "overlay")


def unexpected(error: errors.EngineError) -> None:
    """For a committer that must not fail."""
    pytest.fail(str(error))


def unpacked(store: LayerStore, daemon: FakeDaemon, name: str, below: Unpacked | None) -> Unpacked:
    data = archive([(tarfile.TarInfo(name), b"")])
    parent = below.applied.chain_id if below is not None else None
    return unpack_layer(store, daemon.job, io.BytesIO(data), parent=parent, diff_id=None)


def three(store: LayerStore, daemon: FakeDaemon) -> list[Unpacked]:
    found: list[Unpacked] = []
    for name in "abc":
        found.append(unpacked(store, daemon, name, found[-1] if found else None))
    return found


def ingests(graph: Path) -> list[str]:
    return [name for name in os.listdir(graph / "storage/overlay") if name.startswith("ingest-")]


def test_what_is_ready_is_forced_to_the_disk_at_once(
    store: LayerStore, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = FakeDaemon()
    first, *others = three(store, daemon)
    syncs: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def sync() -> None:
        syncs.append(len(daemon.of("layer")))
        begun.set()
        assert go_on.wait(60)

    monkeypatch.setattr(store, "sync", sync)
    done: list[str] = []
    committer = Committer(store, unexpected)
    committer.add(first, lambda: done.append("first"))
    assert begun.wait(60)
    committer.add(None, lambda: done.append("there"))
    for layer in others:
        committer.add(layer, lambda: done.append("other"))
    assert done == []
    go_on.set()
    committer.wait()
    committer.close()
    assert done == ["first", "there", "other", "other"]
    assert syncs == [0, 1]
    assert daemon.of("layer") == [layer.applied.chain_id for layer in (first, *others)]
    assert all(store.has(layer.applied.chain_id) for layer in (first, *others))
    assert ingests(graph) == []
    assert daemon.job.may_end


@pytest.mark.parametrize("ending", ["hurry", "close"])
def test_what_comes_fast_waits_for_the_others(
    store: LayerStore, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr("isula_edge.image.commit.DELAY_S", 600.0)
    daemon = FakeDaemon()
    layers = three(store, daemon)
    syncs: list[int] = []
    monkeypatch.setattr(store, "sync", lambda: syncs.append(len(daemon.of("layer"))))
    committer = Committer(store, unexpected, lambda: False)
    done = threading.Semaphore(0)
    for layer in layers:
        committer.add(layer, done.release)
    assert not done.acquire(timeout=0.05)
    getattr(committer, ending)()
    for _ in layers:
        assert done.acquire(timeout=60)
    committer.close()
    committer.wait()
    assert syncs == [0]


def test_it_does_not_wait_for_ever(store: LayerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isula_edge.image.commit.DELAY_S", 0.01)
    committer = Committer(store, unexpected, lambda: False)
    done = threading.Event()
    committer.add(unpacked(store, FakeDaemon(), "a", None), done.set)
    assert done.wait(60)
    committer.close()


def test_nothing_is_forced_for_what_is_there(
    store: LayerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "sync", lambda: pytest.fail("a sync"))
    done: list[int] = []
    committer = Committer(store, unexpected)
    committer.add(None, lambda: done.append(1))
    committer.close()
    committer.wait()
    assert done == [1]


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), errors.NoSpace),
        (OSError(errno.EIO, "Input/output error"), errors.Internal),
        (MemoryError(), errors.Internal),
    ],
    ids=["full", "broken", "memory"],
)
def test_what_lies_above_a_layer_that_fails_is_removed(
    store: LayerStore,
    graph: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
    kind: type[errors.EngineError],
) -> None:
    daemon = FakeDaemon()
    first, second, third = three(store, daemon)

    def fail() -> None:
        raise failure

    told: list[errors.EngineError] = []
    committer = Committer(store, told.append)
    committer.add(first, lambda: None)
    committer.wait()
    monkeypatch.setattr(store, "sync", fail)
    committer.add(second, lambda: pytest.fail("it is not committed"))
    with pytest.raises(kind):
        committer.wait()
    with pytest.raises(kind):
        committer.add(third, lambda: pytest.fail("it is not committed"))
    committer.close()
    assert [type(error) for error in told] == [kind]
    assert store.has(first.applied.chain_id)
    assert not store.has(second.applied.chain_id)
    assert ingests(graph) == []
    assert daemon.job.may_end


def test_a_job_that_is_cancelled_commits_nothing_more(
    store: LayerStore, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = FakeDaemon()
    layer = unpacked(store, daemon, "a", None)
    daemon.job.cancel()
    monkeypatch.setattr(store, "sync", lambda: pytest.fail("a sync"))
    committer = Committer(store, lambda _error: None)
    committer.add(layer, lambda: pytest.fail("it is not committed"))
    committer.close()
    with pytest.raises(errors.Aborted):
        committer.wait()
    assert not store.has(layer.applied.chain_id)
    assert ingests(graph) == []
