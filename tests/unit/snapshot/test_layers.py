"""Layers: committed once, found again, swept when a crash left them half done."""

from __future__ import annotations

import contextlib
import errno
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
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{ingest.path}/{name}")
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
        "recipe": 0,
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
        f"sync {store.driver.home}",
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


def test_a_layer_that_cannot_be_begun_leaves_nothing(
    store: LayerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(path: str, _parent: str | None) -> None:
        os.makedirs(f"{path}/half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.driver, "begin", begin)
    with pytest.raises(errors.NoSpace):
        store.begin(None)
    assert os.listdir(store.driver.home) == ["rw"]


def test_a_layer_whose_record_does_not_fit_leaves_nothing(
    store: LayerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(_key: str, _payload: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.records, "write", write)
    ingest = store.begin(None)
    with ingest.new_recipe() as fd:
        os.write(fd, b"recipe")
    with pytest.raises(OSError, match="No space"):
        ingest.commit(BASE, DIFF, recipe=6)
    ingest.abort()
    assert os.listdir(store.driver.home) == ["rw"]
    assert not store.has(BASE)


def test_removing_takes_record_and_tree_and_may_be_repeated(store: LayerStore) -> None:
    tree = commit(store, BASE, {"a": "1"})
    store.remove(BASE)
    store.remove(BASE)
    assert not store.has(BASE)
    assert not os.path.exists(tree)


def with_recipe(store: LayerStore, chain: ChainId, text: bytes) -> str:
    ingest = store.begin(None)
    with ingest.new_recipe() as fd:
        os.write(fd, text)
    ingest.commit(chain, DIFF, recipe=len(text))
    return store.recipe(chain)


def test_a_recipe_comes_and_goes_with_its_layer(store: LayerStore) -> None:
    path = with_recipe(store, BASE, b"recipe")
    with open(path, "rb") as file:
        assert file.read() == b"recipe"
    record = store.get(BASE)
    assert record is not None
    assert record["recipe"] == 6
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert sorted(os.listdir(store.driver.home)) == ["a" * 24, f"{'a' * 24}.recipe", "rw"]
    store.remove(BASE)
    assert os.listdir(store.driver.home) == ["rw"]


def test_a_recipe_has_its_place_before_the_record_is_written(
    store: LayerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    rename = os.rename
    monkeypatch.setattr("isula_edge.sys.atomic.fsync_tree", lambda _: order.append("sync"))

    def renamed(source: str, target: str) -> None:
        order.append(os.path.basename(target))
        rename(source, target)

    monkeypatch.setattr(os, "rename", renamed)
    with_recipe(store, BASE, b"1")
    assert order == ["sync", "a" * 24, f"{'a' * 24}.recipe", f"{'a' * 64}.cbor"]


def test_the_recipe_of_the_first_of_two_stays(store: LayerStore) -> None:
    late = store.begin(None)
    with late.new_recipe() as fd:
        os.write(fd, b"later")
    path = with_recipe(store, BASE, b"first")
    late.commit(BASE, DIFF, recipe=5)
    with open(path, "rb") as file:
        assert file.read() == b"first"
    assert len(os.listdir(store.driver.home)) == 3


def test_an_aborted_recipe_leaves_nothing(store: LayerStore) -> None:
    ingest = store.begin(None)
    with ingest.new_recipe():
        pass
    ingest.abort()
    assert os.listdir(store.driver.home) == ["rw"]


def test_recipes_without_a_layer_are_swept(store: LayerStore) -> None:
    with_recipe(store, BASE, b"kept")
    for name in ("c" * 24, "ingest-1", "dead-2"):
        with open(f"{store.driver.home}/{name}.recipe", "wb"):
            pass
    assert store.sweep(set(store.all())) == 3
    assert sorted(os.listdir(store.driver.home)) == ["a" * 24, f"{'a' * 24}.recipe", "rw"]


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


def test_a_layer_that_was_committed_since_is_no_leftover(store: LayerStore) -> None:
    known: set[str] = set(store.all())
    tree = commit(store, BASE, {"a": "1"})
    store.sweep(known)
    assert os.path.exists(f"{tree}/a")
    store.records.remove(BASE.partition(":")[2])
    store.sweep(known)
    assert not os.path.exists(tree)
