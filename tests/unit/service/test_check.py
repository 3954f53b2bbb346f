"""Checking and tidying: nothing that is whole, in use or somebody else's goes."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.container import leftovers
from isula_edge.container.table import Table
from isula_edge.image.store import ImageStore
from isula_edge.service import check, disk, prune
from isula_edge.service.config import EngineConfig
from isula_edge.service.events import Events
from isula_edge.service.images import Images
from isula_edge.snapshot import LayerStore
from isula_edge.store import write_record
from isula_edge.types import ChainId, Digest

if TYPE_CHECKING:
    from pathlib import Path

CHAIN = ChainId("sha256:" + "c" * 64)
ONE = "ab" + "1" * 62
TWO = "ab" + "2" * 62


class Rig:
    """What a check needs of an engine, over a real graph; a worker finds what a test says."""

    def __init__(self, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.graph = graph
        self.rw = graph / "storage/vfs/rw"
        self.rw.mkdir(parents=True)
        self.layers = LayerStore(str(graph), "vfs")
        self.table = Table(str(graph))
        self.config = EngineConfig(graph=str(graph))
        write_record(f"{graph}/engine.cbor", "engine", {"driver": "vfs"})
        store = ImageStore(str(graph))
        self.images = Images(
            self.config,
            store,
            self.layers,
            self.table,
            None,  # type: ignore[arg-type]
            Events(),
        )
        self.runtimes = {"lxc": None}
        self.marker = check.Marker(str(graph))
        self.warnings: list[str] = []
        self.warn = self.warnings.append
        self.found: dict[str, Any] = {"bad": {}, "recipes": {}, "unread": {}, "unverified": []}
        self.fetches = False
        monkeypatch.setattr(self.images, "ask", self._ask)
        monkeypatch.setattr(self.images, "pull", self._pull)
        self.layers.begin(None).commit(CHAIN, Digest("sha256:" + "d" * 64))
        (graph / "storage/vfs" / os.path.basename(self.layers.tree(CHAIN)) / "file").touch()
        event = {"id": "e" * 64, "config": b"{}", "chain_ids": [CHAIN], "names": ["one"]}
        store.put({**event, "digest_refs": ["one@sha256:" + "a" * 64]})

    async def _ask(self, _request: object, _handle: object) -> dict[str, Any]:
        return self.found

    async def _pull(self, *_args: object) -> dict[str, Any]:
        if not self.fetches:
            raise errors.Unavailable("the registry is gone")
        self.layers.begin(None).commit(CHAIN, Digest("sha256:" + "d" * 64))
        return {"id": "e" * 64}

    def store_chains(self) -> set[str]:
        return set(self.images.store.chains())

    def check(self, *, fetch: bool = True) -> list[dict[str, Any]]:
        checkup = check.Checkup(self, quick=False, repair=True, fetch=fetch)  # type: ignore[arg-type]
        result = asyncio.run(checkup.run(ignore))
        return list(result["problems"])

    def tidy(self) -> int:
        return asyncio.run(prune._remove_strays(self))[1]  # type: ignore[arg-type]

    def whole(self) -> bool:
        return self.layers.has(CHAIN) and os.listdir(self.layers.tree(CHAIN)) == ["file"]


async def ignore(_item: dict[str, Any]) -> None:
    return None


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(tmp_path, monkeypatch)


@pytest.fixture
def living(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    found: set[str] = set()
    monkeypatch.setattr(leftovers, "living", found.__contains__)
    return found


def damaged(rig: Rig, container_id: str) -> tuple[Path, Path]:
    """Record and data of a container whose record is damaged."""
    aside = rig.graph / f"quarantine/graph%engines%lxc%{container_id}"
    for path in (aside, rig.rw / container_id):
        (path / "sub").mkdir(parents=True)
    return aside, rig.rw / container_id


def test_what_a_damaged_container_has_written_stays_at_a_repair(rig: Rig, living: set[str]) -> None:
    paths = damaged(rig, ONE)
    assert rig.check() == []
    assert all(path.exists() for path in paths)
    assert living == set()


def test_a_prune_takes_record_and_data_of_a_damaged_container_together(
    rig: Rig, living: set[str]
) -> None:
    running, ended = damaged(rig, ONE), damaged(rig, TWO)
    living.add(ONE)
    assert rig.tidy() == 2
    assert all(path.exists() for path in running)
    assert not any(path.exists() for path in ended)
    assert rig.tidy() == 0
    living.clear()
    assert rig.tidy() == 2
    assert os.listdir(rig.rw) == []
    assert not (rig.graph / "quarantine").exists()


def test_nothing_is_counted_twice_or_left_out(rig: Rig) -> None:
    paths = damaged(rig, ONE)
    found = list(disk.places(rig).all())  # type: ignore[arg-type]
    assert all(found.count(str(path)) == 1 for path in paths)


def test_a_stray_that_somebody_runs_on_stays(rig: Rig, living: set[str]) -> None:
    living.add(ONE)
    for name in (ONE, TWO):
        (rig.rw / name).mkdir()
    rig.check()
    assert os.listdir(rig.rw) == [ONE]


def test_a_check_after_a_crash_leaves_writable_layers(rig: Rig) -> None:
    (rig.rw / TWO).mkdir()
    (rig.graph / "engines/lxc" / TWO).mkdir(parents=True)
    rig.check(fetch=False)
    assert os.listdir(rig.rw) == [TWO]
    assert os.listdir(rig.graph / "engines/lxc") == []


def test_what_belongs_to_a_newer_engine_stays(rig: Rig) -> None:
    (rig.rw / TWO).mkdir()
    (rig.graph / "storage/vfs/else").mkdir()
    rig.images.store.records.newer.add("f" * 64)
    assert rig.tidy() == 0
    rig.images.store.records.newer.clear()
    assert rig.tidy() == 2


@pytest.mark.parametrize("why", ["young", "busy", "changing", ""])
def test_a_record_that_is_being_written_stays(rig: Rig, why: str) -> None:
    path = rig.graph / "images/.tmp-x.cbor-1-2"
    path.touch()
    if why != "young":
        os.utime(path, (0, 0))

    async def scenario() -> bool:
        if why == "busy":
            rig.images._workers = 1
        if why == "changing":
            await rig.images._changes.acquire()
        where = disk.places(rig)  # type: ignore[arg-type]
        return str(path) in prune.idle_strays(rig, where)  # type: ignore[arg-type]

    assert asyncio.run(scenario()) == (not why)


def test_a_layer_with_a_damaged_recipe_comes_back_when_it_cannot_be_fetched(rig: Rig) -> None:
    rig.found["recipes"] = {CHAIN: "the recipe is damaged"}
    (problem,) = rig.check()
    assert problem["kind"] == "recipe"
    assert (problem["ref"], problem["names"], problem["repaired"]) == (CHAIN, ["one:latest"], "")
    assert "not fetched again: the registry is gone" in problem["problem"]
    assert rig.whole()
    rig.fetches = True
    assert rig.check()[0]["repaired"] == "fetched again"


def test_a_layer_with_a_damaged_recipe_is_only_warned_of_after_a_crash(rig: Rig) -> None:
    rig.found["recipes"] = {CHAIN: "the recipe is damaged"}
    asyncio.run(check.check_after_crash(rig))  # type: ignore[arg-type]
    assert len(rig.warnings) == 1
    assert rig.whole()
    assert not (rig.graph / "quarantine").exists()


def test_a_layer_that_cannot_be_read_now_stays(rig: Rig) -> None:
    rig.found["unread"] = {CHAIN: "Input/output error"}
    (problem,) = rig.check()
    assert problem["problem"] == "not checked: Input/output error"
    assert rig.whole()


def test_a_bad_layer_is_put_aside(rig: Rig) -> None:
    rig.found["bad"] = {CHAIN: "changed"}
    (problem,) = rig.check()
    assert "put aside, and not fetched again" in problem["problem"]
    assert not rig.layers.has(CHAIN)


def test_a_layer_that_cannot_be_put_aside_is_not_repaired(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isula_edge.store.records._move", _full)
    rig.found["bad"] = {CHAIN: "changed"}
    (problem,) = rig.check()
    assert problem["repaired"] == ""
    assert "cannot be put aside" in problem["problem"]
    assert rig.whole()


def _full(path: str, _folder: str) -> str:
    raise OSError(28, "No space left on device", path)


def test_layers_that_became_useless_go_when_a_check_fails(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_args: object) -> dict[str, Any]:
        rig.images.store.remove(next(iter(rig.images.store)))
        raise errors.Aborted("cancelled")

    monkeypatch.setattr(rig.images, "ask", fail)
    with pytest.raises(errors.Aborted):
        rig.check()
    assert not rig.layers.has(CHAIN)


def test_the_marker_stays_until_a_check_has_ended(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = rig.graph / "NEED_CHECK"
    assert not rig.marker.begin()
    rig.marker.end()
    assert not path.exists()
    path.touch()
    assert rig.marker.begin()

    async def fail(*_args: object) -> dict[str, Any]:
        raise errors.Internal("the worker was killed")

    with monkeypatch.context() as patch:
        patch.setattr(rig.images, "ask", fail)
        with pytest.raises(errors.Internal):
            asyncio.run(check.check_after_crash(rig))  # type: ignore[arg-type]
    rig.marker.end()
    assert path.exists()
    asyncio.run(check.check_after_crash(rig))  # type: ignore[arg-type]
    rig.marker.end()
    assert not path.exists()
