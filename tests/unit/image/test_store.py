"""The store of images: a change is whole or not at all, in memory as on disk."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image.store import ImageStore
from isula_edge.profile import platform
from isula_edge.store.records import RecordStore
from isula_edge.sys.reserve import Reserve
from isula_edge.types import Platform

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
        patch.setattr(ImageStore, "_take_name", lambda *_: None)
        store.tag("one", "two")
    found = again(store)
    owner = found.get("two")
    assert sum("two:latest" in image.names for image in found) == 1
    found.remove(owner)
    # the name does not come back with the other image
    assert again(found).find("two") is None


def for_platform(number: int, architecture: str, *names: str, variant: str = "") -> dict[str, Any]:
    """An image for a platform."""
    config = {"os": "linux", "architecture": architecture, "variant": variant}
    return {**event(number, *names), "config": json.dumps(config).encode()}


def arm(variant: str) -> Platform:
    return Platform("linux", "arm", variant)


AMD64, ARM64 = Platform("linux", "amd64", "v3"), Platform("linux", "arm64", "v8")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is amd64/v3."""
    monkeypatch.setattr(platform, "host_platform", lambda: AMD64)


@pytest.fixture
def both(graph: str, here: None) -> ImageStore:
    """A name that images for two platforms have."""
    found = ImageStore(graph)
    found.put(for_platform(1, "amd64", "app:v1"), AMD64)
    found.put(for_platform(2, "arm64", "app:v1"), ARM64)
    return found


def test_images_for_two_platforms_have_one_name(both: ImageStore) -> None:
    for found in (both, again(both)):
        assert names(found) == {"1": ["app:v1"], "2": ["app:v1"]}
        assert found.get("app:v1").id[-1] == "1"
        assert found.get("app:v1", AMD64).id[-1] == "1"
        assert found.get("app:v1", ARM64).id[-1] == "2"
        assert found.find("app:v1", arm("v7")) is None


def test_what_is_not_there_names_the_platforms_that_are(both: ImageStore) -> None:
    with pytest.raises(errors.NotFound, match="No such image:app:v1 for linux/arm/v7") as caught:
        both.get("app:v1", arm("v7"))
    assert "linux/amd64, linux/arm64" in caught.value.hint
    assert "--platform linux/arm/v7" in caught.value.hint


def test_a_newer_image_takes_the_name_from_that_of_its_platform(both: ImageStore) -> None:
    both.put(for_platform(3, "arm64", "app:v1", variant="v8"), ARM64)
    for found in (both, again(both)):
        assert names(found) == {"1": ["app:v1"], "2": [], "3": ["app:v1"]}
        assert found.get("app:v1", ARM64).id[-1] == "3"


def test_what_is_for_no_other_platform_is_meant_wherever_it_is(graph: str, here: None) -> None:
    found = ImageStore(graph)
    found.put(for_platform(1, "arm64", "app:v1"), ARM64)
    found.put(for_platform(2, "riscv64", "app:v1"))
    # the latest of those that do not run here
    assert found.get("app:v1").id[-1] == "2"
    assert found.get("app:v1", ARM64).id[-1] == "1"


@pytest.mark.parametrize(
    ("old", "new", "want", "kept"),
    [
        # a level that this machine has, and one that the tag has no more
        ("v3", "", AMD64, False),
        ("v3", "v2", AMD64, False),
        ("", "v3", AMD64, True),
        ("v4", "v3", AMD64, True),
        ("v3", "v3", AMD64, False),
        ("", "v1", Platform("linux", "amd64"), False),
    ],
)
def test_of_two_levels_what_would_be_taken_first_must_be_new(
    graph: str, here: None, old: str, new: str, want: Platform, kept: bool
) -> None:
    found = ImageStore(graph)
    found.put(for_platform(1, "amd64", "app:v1", variant=old), want)
    found.put(for_platform(2, "amd64", "app:v1", variant=new), want)
    assert names(found) == {"1": ["app:v1"] if kept else [], "2": ["app:v1"]}
    assert found.get("app:v1").id[-1] == "2"


def test_variants_of_arm_are_side_by_side(graph: str, here: None) -> None:
    found = ImageStore(graph)
    for number, variant in enumerate(("v7", "v6"), 1):
        found.put(for_platform(number, "arm", "app:v1", variant=variant), arm(variant))
    assert names(found) == {"1": ["app:v1"], "2": ["app:v1"]}
    assert [found.get("app:v1", arm(word)).id[-1] for word in ("v6", "v7")] == ["2", "1"]
    assert found.find("app:v1", arm("v5")) is None


def test_a_pull_without_platform_that_brings_another_one_is_what_the_name_means(
    both: ImageStore,
) -> None:
    """As when somebody has pushed an image for arm alone under the tag."""
    both.put(for_platform(3, "arm", "app:v1", variant="v7"), AMD64)
    assert names(both) == {"1": [], "2": ["app:v1"], "3": ["app:v1"]}
    assert both.get("app:v1").id[-1] == "3"


def test_an_archive_leaves_the_images_for_other_platforms_alone(both: ImageStore) -> None:
    both.put(for_platform(3, "arm64", "app:v1"))
    assert names(both) == {"1": ["app:v1"], "2": [], "3": ["app:v1"]}


def test_another_name_is_given_to_the_images_for_all_platforms(both: ImageStore) -> None:
    both.put(for_platform(3, "riscv64", "other:v1"))
    both.tag("app:v1", "other:v1")
    for found in (both, again(both)):
        assert names(found) == {"1": ["app:v1", "other:v1"], "2": ["app:v1", "other:v1"], "3": []}
    # by its id it is one image
    both.tag(f"{2:064x}", "app:v1")
    assert names(both) == {"1": ["other:v1"], "2": ["app:v1", "other:v1"], "3": []}


def test_one_platform_loses_a_name(both: ImageStore) -> None:
    both.untag(both.get("app:v1", ARM64), "app:v1")
    for found in (both, again(both)):
        assert names(found) == {"1": ["app:v1"], "2": []}
        assert found.find("app:v1", ARM64) is None
    both.strip(both.get("app:v1"))
    assert both.find("app:v1") is None


def test_one_that_cannot_be_deleted_has_its_name_again(
    both: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = both.get("app:v1", ARM64)
    both.forget(image)
    assert both.find("app:v1", ARM64) is None
    assert both.get("app:v1").id[-1] == "1"
    both.restore(image)
    assert both.get("app:v1", ARM64) is image
    # what has got the name meanwhile keeps it
    both.forget(image)
    both.put(for_platform(3, "arm64", "app:v1"), ARM64)
    both.restore(image)
    assert both.get("app:v1", ARM64).id[-1] == "3"


def test_a_digest_of_an_index_means_each_platform(graph: str, here: None) -> None:
    found = ImageStore(graph)
    for number, architecture in ((1, "arm64"), (2, "amd64")):
        one = for_platform(number, architecture)
        found.put({**one, "digest_refs": ["app@sha256:aa"]}, None)
    assert found.get("app@sha256:aa").id[-1] == "2"
    assert found.get("app@sha256:aa", ARM64).id[-1] == "1"
    assert found.get("app:v1@sha256:aa", ARM64).id[-1] == "1"


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
