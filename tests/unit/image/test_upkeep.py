"""Checking layers and measuring trees: nothing is changed by it."""

from __future__ import annotations

import errno
import io
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image.job import Job
from isula_edge.image.layers import apply_layer
from isula_edge.image.upkeep import check_layers, measure
from isula_edge.snapshot import LayerStore
from isula_edge.types import ChainId, Digest
from tests.fakes.images import tar_of

if TYPE_CHECKING:
    from pathlib import Path

MISSING = ChainId("sha256:" + "f" * 64)
OLD = ChainId("sha256:" + "e" * 64)
WHOLE: dict[str, Any] = {"bad": {}, "recipes": {}, "unread": {}, "unverified": []}


@pytest.fixture
def store(tmp_path: Path) -> LayerStore:
    (tmp_path / "storage/vfs/rw").mkdir(parents=True)
    return LayerStore(str(tmp_path), "vfs")


@pytest.fixture
def seen() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def job(seen: list[dict[str, Any]]) -> Job:
    return Job(seen.append)


@pytest.fixture
def layer(store: LayerStore, job: Job, seen: list[dict[str, Any]]) -> ChainId:
    chain = apply_layer(store, job, stream({"a": b"1" * 5000}), parent=None, diff_id=None).chain_id
    seen.clear()
    return chain


def stream(files: dict[str, bytes]) -> io.BytesIO:
    return io.BytesIO(tar_of(files))


def everything(store: LayerStore) -> set[str]:
    graph = store.records.folder.rpartition("/")[0]
    return {f"{folder}/{name}" for folder, _, names in os.walk(graph) for name in names}


def test_a_whole_layer(
    store: LayerStore, job: Job, layer: ChainId, seen: list[dict[str, Any]]
) -> None:
    for quick in (True, False):
        assert check_layers(store, job, [layer], quick=quick) == WHOLE
    expected = {"id": layer, "status": "Checked", "current": 1, "total": 1}
    assert seen == [{"v": expected}] * 2


def test_content_is_only_compared_if_it_is_wanted(
    store: LayerStore, job: Job, layer: ChainId
) -> None:
    with open(f"{store.tree(layer)}/a", "r+b") as file:
        file.write(b"2")
    assert check_layers(store, job, [layer], quick=True)["bad"] == {}
    assert list(check_layers(store, job, [layer], quick=False)["bad"]) == [layer]


def test_what_is_missing_is_said_and_the_others_are_checked(
    store: LayerStore, job: Job, layer: ChainId
) -> None:
    store.begin(None).commit(OLD, Digest("sha256:" + "d" * 64))
    found = check_layers(store, job, [MISSING, OLD, layer], quick=False)
    assert list(found["bad"]) == [MISSING]
    assert "no record" in found["bad"][MISSING]
    # it was unpacked by an engine that kept no recipes
    assert found["unverified"] == [OLD]
    shutil.rmtree(store.tree(layer))
    assert "no tree" in check_layers(store, job, [layer], quick=True)["bad"][layer]


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_damaged_record_is_reported_and_stays(
    store: LayerStore, job: Job, layer: ChainId, content: bytes | None
) -> None:
    path = store.records.path(layer.partition(":")[2])
    if content is None:
        store.begin(None).commit(OLD, Digest("sha256:" + "d" * 64))
        os.rename(store.records.path(OLD.partition(":")[2]), path)
    else:
        with open(path, "wb") as file:
            file.write(content)
    before = everything(store)
    for quick in (True, False):
        assert list(check_layers(store, job, [layer], quick=quick)["bad"]) == [layer]
    assert everything(store) == before


@pytest.mark.parametrize("content", [None, b"", b"isrecip\x01garbage"])
def test_a_damaged_recipe_says_nothing_of_the_files(
    store: LayerStore, job: Job, layer: ChainId, content: bytes | None
) -> None:
    os.unlink(store.recipe(layer))
    if content is not None:
        with open(store.recipe(layer), "wb") as file:
            file.write(content)
    found = check_layers(store, job, [layer], quick=False)
    assert list(found["recipes"]) == [layer]
    assert (found["bad"], found["unread"], found["unverified"]) == ({}, {}, [])


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EIO])
@pytest.mark.parametrize("flag", [os.O_NOFOLLOW, os.O_NONBLOCK])
def test_what_cannot_be_read_now_is_not_bad(
    store: LayerStore,
    job: Job,
    layer: ChainId,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    flag: int,
) -> None:
    """Neither the recipe, which is opened first, nor a file of the layer."""
    real = os.open

    def failing(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & flag:
            raise OSError(number, os.strerror(number))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", failing)
    found = check_layers(store, job, [layer], quick=False)
    assert os.strerror(number) in found["unread"][layer]
    assert (found["bad"], found["recipes"], found["unverified"]) == ({}, {}, [])


def test_a_layer_of_a_newer_engine_is_not_bad(store: LayerStore, job: Job, layer: ChainId) -> None:
    with open(store.records.path(layer.partition(":")[2]), "r+b") as file:
        file.seek(4)
        file.write(b"\0\x63")
    assert check_layers(store, job, [layer], quick=False) == {**WHOLE, "unverified": [layer]}


def test_a_check_can_be_cancelled(store: LayerStore, job: Job, layer: ChainId) -> None:
    job.cancel()
    with pytest.raises(errors.Aborted):
        check_layers(store, job, [layer], quick=True)


def test_roots_are_measured_together(tmp_path: Path, job: Job) -> None:
    for name in ("one/a", "one/b", "two"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "one/a/file").write_bytes(os.urandom(10_000))
    roots = [
        {"top": f"{tmp_path}/one", "parts": [f"{tmp_path}/one/a"]},
        {"top": f"{tmp_path}/two", "parts": []},
    ]
    found = measure({"roots": roots}, job)["bytes"]
    assert set(found) == {f"{tmp_path}/one", f"{tmp_path}/one/a", f"{tmp_path}/two"}
    assert found[f"{tmp_path}/one/a"] >= 10_000
