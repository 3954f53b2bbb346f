"""Layers: committed once, found again, swept when a crash left them half done."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.snapshot import LayerStore
from isula_edge.snapshot.vfs import Vfs
from isula_edge.types import ChainId, Digest

if TYPE_CHECKING:
    from pathlib import Path

BASE = ChainId("sha256:" + "a" * 64)
TOP = ChainId("sha256:" + "b" * 64)
OTHER = ChainId("sha256:" + "c" * 64)
DIFF = Digest("sha256:" + "d" * 64)


@pytest.fixture
def graph(tmp_path: Path) -> str:
    (tmp_path / "storage/vfs/rw").mkdir(parents=True)
    return str(tmp_path)


@pytest.fixture
def store(graph: str) -> LayerStore:
    return LayerStore(graph, "vfs")


def commit(
    store: LayerStore, chain: ChainId, files: dict[str, str], parent: ChainId | None = None
) -> str:
    ingest = store.begin(parent)
    for name, text in files.items():
        with open(f"{ingest.path}/{name}", "w") as file:
            file.write(text)
    ingest.commit(chain, DIFF, digest="sha256:e", compressed_size=3, size=7)
    return f"{store.driver.home}/{store.dirs([chain])[0]}"


def test_a_committed_layer_is_there_for_others(graph: str, store: LayerStore) -> None:
    tree = commit(store, BASE, {"a": "1"})
    other = LayerStore(graph, "vfs")
    assert other.has(BASE)
    assert not other.has(TOP)
    assert os.listdir(tree) == ["a"]
    assert other.get(TOP) is None
    assert other.get(BASE) == {
        "chain_id": BASE,
        "parent": "",
        "diff_id": DIFF,
        "digest": "sha256:e",
        "compressed_size": 3,
        "size": 7,
        "dir": "a" * 24,
    }


def test_a_layer_on_another_begins_with_its_tree_and_leaves_it_alone(store: LayerStore) -> None:
    below = commit(store, BASE, {"a": "1"})
    above = commit(store, TOP, {"a": "2", "b": "3"}, BASE)
    assert sorted(os.listdir(above)) == ["a", "b"]
    with open(f"{below}/a") as file:
        assert file.read() == "1"
    record = store.get(TOP)
    assert record is not None
    assert record["parent"] == BASE


def test_directories_are_given_topmost_first(store: LayerStore) -> None:
    assert store.dirs([BASE, TOP, OTHER]) == ["c" * 24, "b" * 24, "a" * 24]
    assert store.dirs([]) == []


def test_nothing_is_committed_before_its_data_is_durable(
    store: LayerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    rename, fsync_tree = os.rename, "isula_edge.sys.atomic.fsync_tree"
    monkeypatch.setattr(fsync_tree, lambda path: order.append(f"sync {path}"))

    def renamed(source: str, target: str) -> None:
        order.append(f"rename {target}")
        rename(source, target)

    monkeypatch.setattr(os, "rename", renamed)
    ingest = store.begin(None)
    ingest.commit(BASE, DIFF)
    tree = f"{store.driver.home}/{'a' * 24}"
    assert order == [
        f"sync {ingest.path}",
        f"rename {tree}",
        f"rename {store.records.path('a' * 64)}",
    ]


def test_the_second_of_two_who_commit_the_same_layer_is_dropped(store: LayerStore) -> None:
    late = store.begin(None)
    tree = commit(store, BASE, {"first": "1"})
    late.commit(BASE, DIFF)
    assert os.listdir(tree) == ["first"]
    assert not os.path.exists(late.path)


def test_a_tree_without_a_record_gives_way(store: LayerStore) -> None:
    os.makedirs(f"{store.driver.home}/{'a' * 24}/left/over")
    tree = commit(store, BASE, {"a": "1"})
    assert os.listdir(tree) == ["a"]


def test_an_aborted_layer_leaves_nothing(store: LayerStore) -> None:
    ingest = store.begin(None)
    os.mkdir(f"{ingest.path}/a")
    ingest.abort()
    ingest.abort()
    assert os.listdir(store.driver.home) == ["rw"]
    assert not store.has(BASE)


def test_removing_takes_record_and_tree_and_may_be_repeated(store: LayerStore) -> None:
    tree = commit(store, BASE, {"a": "1"})
    store.remove(BASE)
    store.remove(BASE)
    assert not store.has(BASE)
    assert not os.path.exists(tree)


def test_the_record_goes_before_the_tree(
    store: LayerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, BASE, {"a": "1"})

    def crash(_path: str) -> None:
        raise OSError(5, "the machine is off")

    monkeypatch.setattr("isula_edge.snapshot.layers.remove_tree", crash)
    with pytest.raises(OSError, match="machine is off"):
        store.remove(BASE)
    assert not store.has(BASE)


def test_every_layer_is_listed(store: LayerStore) -> None:
    commit(store, BASE, {})
    commit(store, TOP, {}, BASE)
    assert set(store.all()) == {BASE, TOP}


def test_a01_a_damaged_layer_record_is_put_aside(store: LayerStore) -> None:
    commit(store, BASE, {})
    commit(store, TOP, {}, BASE)
    with open(store.records.path("a" * 64), "wb") as file:
        file.write(b"damaged")
    assert set(store.all()) == {TOP}
    assert len(store.records.quarantined) == 1


def test_a_record_whose_tree_is_gone_is_put_aside(store: LayerStore) -> None:
    tree = commit(store, BASE, {})
    commit(store, TOP, {})
    os.rmdir(tree)
    assert set(store.all()) == {TOP}
    assert not store.has(BASE)
    assert len(store.records.quarantined) == 1


def test_sweeping_leaves_layers_and_containers(store: LayerStore) -> None:
    commit(store, BASE, {"a": "1"})
    store.begin(None)
    for name in ("dead-x/y", "c" * 24, "rw/container"):
        os.makedirs(f"{store.driver.home}/{name}")
    assert store.sweep(set(store.all())) == 3
    assert sorted(os.listdir(store.driver.home)) == ["a" * 24, "rw"]
    assert os.listdir(f"{store.driver.home}/rw") == ["container"]
    assert store.sweep(set(store.all())) == 0


def test_no_space_for_a_layer_is_no_space(
    store: LayerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: str, _parent: str | None) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.driver, "begin", full)
    with pytest.raises(errors.NoSpace):
        store.begin(None)


def test_a_driver_of_the_callers_is_used(graph: str) -> None:
    driver = Vfs(f"{graph}/storage/vfs")
    assert LayerStore(graph, "vfs", driver).driver is driver
