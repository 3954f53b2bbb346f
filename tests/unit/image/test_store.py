"""The store of images: a change is whole or not at all, in memory as on disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image.store import ImageStore
from isula_edge.store.records import RecordStore
from isula_edge.sys.reserve import Reserve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def event(number: int, *names: str, digests: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "id": f"{number:064x}",
        "config": b'{"created": "2020-01-02T03:04:05Z"}',
        "chain_ids": [f"sha256:{number:064x}"],
        "names": list(names),
        "digest_refs": list(digests),
        "size": 1,
    }


@pytest.fixture
def graph(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def store(graph: str) -> ImageStore:
    found = ImageStore(graph)
    found.put(event(1, "one:latest", "other:v1", digests=("one@sha256:aa",)))
    found.put(event(2, "two:latest"))
    return found


def names(store: ImageStore) -> dict[str, list[str]]:
    return {image.id[-1]: sorted(image.names) for image in store}


def again(store: ImageStore) -> ImageStore:
    """What the next start sees."""
    found = ImageStore(os.path.dirname(store.records.folder))
    found.load()
    return found


class Refusing:
    """Records that cannot be written, as on a full disk; ``urgent`` ones can if told so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, urgent: bool = False) -> None:
        self.refused = 0
        real = RecordStore.write

        def write(records: RecordStore, key: str, payload: Any, **how: bool) -> None:
            if urgent and how.get("urgent"):
                real(records, key, payload, **how)
                return
            self.refused += 1
            raise errors.NoSpace("no space left", kind="file")

        monkeypatch.setattr(RecordStore, "write", write)


CHANGES: dict[str, Callable[[ImageStore], object]] = {
    "tag": lambda store: store.tag("one", "new"),
    "tag that moves": lambda store: store.tag("one", "two"),
    "put": lambda store: store.put(event(2, "two:latest", "more:v1")),
    "put that is new": lambda store: store.put(event(3, "three:latest")),
    "put that moves": lambda store: store.put(event(3, "one:latest")),
    "untag": lambda store: store.untag(store.get("one"), "one:latest"),
    "undigest": lambda store: store.undigest(store.get("one"), "one@sha256:aa"),
    "strip": lambda store: store.strip(store.get("one")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_cannot_be_written_has_not_happened(
    store: ImageStore, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names(store), {image.id: list(image.digests) for image in store}
    with monkeypatch.context() as patch:
        refusing = Refusing(patch)
        with pytest.raises(errors.NoSpace):
            CHANGES[change](store)
        assert refusing.refused
    for found in (store, again(store)):
        assert (names(found), {image.id: list(image.digests) for image in found}) == before
        assert found.get("one").id[-1] == "1"
        assert found.get("two").id[-1] == "2"
        for name in ("new", "more:v1", "three"):
            assert found.find(name) is None


@pytest.mark.parametrize("change", ["untag", "undigest", "strip"])
def test_what_takes_names_away_is_urgent(
    store: ImageStore, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Refusing(monkeypatch, urgent=True)
    CHANGES[change](store)
    assert names(again(store)) == names(store)
    assert [image.digests for image in again(store)] == [image.digests for image in store]


def test_a_name_moves_on_disk_and_in_memory(store: ImageStore) -> None:
    store.tag("one", "two")
    for found in (store, again(store)):
        assert names(found) == {"1": ["one:latest", "other:v1", "two:latest"], "2": []}


def test_a_crash_between_the_two_writes_of_a_move_leaves_one_owner_for_good(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ImageStore, "_take_names", lambda *_: None)
        store.tag("one", "two")
    found = again(store)
    owner = found.get("two")
    assert sum("two:latest" in image.names for image in found) == 1
    found.remove(owner)
    # the name does not come back with the other image
    assert again(found).find("two") is None


def test_all_names_go_and_the_image_stays(store: ImageStore) -> None:
    image = store.get("one")
    store.strip(image)
    for found in (store, again(store)):
        assert found.find("one") is None
        assert found.find("other:v1") is None
        assert found.get(image.id).names == []
        assert found.get(image.id).digests == []


def test_layers_are_needed_until_the_record_is_gone(store: ImageStore) -> None:
    image = store.get("one")
    store.forget(image)
    assert store.find("one") is None
    assert store.find(image.id) is None
    assert set(image.chain_ids) <= store.chains()
    store.delete(image)
    assert not set(image.chain_ids) & store.chains()
    assert names(again(store)) == {"2": ["two:latest"]}


def test_what_cannot_be_deleted_stays(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    image = store.get("one")

    def refuse(_path: str) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(OSError, match="Read-only"):
        store.remove(image)
    assert store.get("one") is image
    assert set(image.chain_ids) <= store.chains()


def test_a_record_that_lacks_a_key_is_put_aside(store: ImageStore) -> None:
    store.records.write("f" * 64, {"id": "f" * 64})
    found = again(store)
    assert len(found) == 2
    assert len(found.records.quarantined) == 1


@pytest.fixture
def spared(graph: str) -> tuple[ImageStore, Reserve]:
    reserve = Reserve(f"{graph}/spare")
    return ImageStore(graph, reserve), reserve


def test_the_reserve_fits_the_largest_record(spared: tuple[ImageStore, Reserve]) -> None:
    store, reserve = spared
    large = event(1, "one:latest", "other:v1")
    large["config"] = b'{"x": "' + b"x" * 200_000 + b'"}'
    store.put(large)
    assert os.stat(f"{reserve.folder}/0").st_size > 200_000
    # a later start knows it too
    graph = os.path.dirname(store.records.folder)
    fresh = Reserve(reserve.folder)
    ImageStore(graph, fresh).load()
    fresh.refill()
    assert os.stat(f"{reserve.folder}/0").st_size > 200_000
