"""Images under concurrency: nothing that somebody needs goes, no change is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.container.table import Table
from isula_edge.image.store import ImageStore
from isula_edge.service.config import EngineConfig
from isula_edge.service.events import Events
from isula_edge.service.images import Images
from isula_edge.snapshot import LayerStore
from isula_edge.types import ChainId, Digest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Handle = Callable[[dict[str, Any]], Awaitable[dict[str, Any] | None]]
    Work = Callable[[Handle], Awaitable[dict[str, Any]]]

CHAINS = [ChainId("sha256:" + letter * 64) for letter in "abc"]


class Rig:
    """Images over a real store, with workers that do what a test says."""

    def __init__(self, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (graph / "storage/vfs/rw").mkdir(parents=True)
        self.layers = LayerStore(str(graph), "vfs")
        self.store = ImageStore(str(graph))
        self.table = Table(str(graph))
        self.events = Events()
        self.images = Images(
            EngineConfig(graph=str(graph)),
            self.store,
            self.layers,
            self.table,
            None,  # type: ignore[arg-type]
            self.events,
        )
        self.work: list[Work] = []

        async def run(
            _reaper: object, request: dict[str, Any], handle: Handle, data: int = -1
        ) -> dict[str, Any]:
            del request, data
            return await self.work.pop(0)(handle)

        monkeypatch.setattr("isula_edge.service.images.run_worker", run)

    def commit(self, *chains: ChainId) -> None:
        for chain in chains:
            self.layers.begin(None).commit(chain, Digest("sha256:" + "d" * 64))

    async def bring(self, work: Work) -> dict[str, Any]:
        self.work.append(work)
        return await self.images._attempt({"op": "pull"}, ignore, -1)

    @property
    def there(self) -> list[ChainId]:
        return [chain for chain in CHAINS if self.layers.has(chain)]


async def ignore(_item: dict[str, Any]) -> None:
    return None


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(tmp_path, monkeypatch)


def image(number: int, chains: list[ChainId], *names: str) -> dict[str, Any]:
    return {
        "image": {
            "id": f"{number:064x}",
            "config": b"{}",
            "chain_ids": list(chains),
            "names": list(names),
        }
    }


async def pulled(rig: Rig, number: int, chains: list[ChainId], *names: str) -> None:
    async def work(handle: Handle) -> dict[str, Any]:
        answer = await handle({"need": chains})
        assert answer is not None
        for chain in chains:
            if chain not in answer["have"]:
                rig.commit(chain)
                await handle({"layer": chain})
        await handle(image(number, chains, *names))
        return {}

    await rig.bring(work)


def test_a_pull_that_fails_leaves_no_layer(rig: Rig) -> None:
    async def work(handle: Handle) -> dict[str, Any]:
        await handle({"need": CHAINS})
        rig.commit(CHAINS[0])
        await handle({"layer": CHAINS[0]})
        raise errors.Unavailable("the registry is gone")

    with pytest.raises(errors.Unavailable):
        asyncio.run(rig.bring(work))
    assert rig.there == []
    assert rig.images.held() == set()


def test_an_image_whose_layer_went_meanwhile_is_not_stored(rig: Rig) -> None:
    async def work(handle: Handle) -> dict[str, Any]:
        # as an import that committed what another had, which was removed since
        await handle({"layer": CHAINS[0]})
        await handle(image(1, [CHAINS[0]], "one:v1"))
        return {}

    with pytest.raises(errors.Aborted) as caught:
        asyncio.run(rig.bring(work))
    assert caught.value.retryable
    assert len(rig.store) == 0


def test_a_pull_that_is_cancelled_while_the_image_is_written_is_whole(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either both are there, the image and its layers, or neither."""

    async def scenario() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        real = ImageStore.put

        def slow(store: ImageStore, event: dict[str, Any], want: object) -> Any:
            loop.call_soon_threadsafe(begun.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(20)
            return real(store, event, want)  # type: ignore[arg-type]

        monkeypatch.setattr(ImageStore, "put", slow)
        pull = asyncio.create_task(pulled(rig, 1, CHAINS, "one:v1"))
        await begun.wait()
        pull.cancel()
        await asyncio.sleep(0)
        # the layers cannot go while the image is being written
        collecting = asyncio.create_task(rig.images.collect(CHAINS))
        await asyncio.sleep(0)
        assert rig.there == CHAINS
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await pull
        await collecting

    asyncio.run(scenario())
    assert [found.names for found in rig.store] == [["one:v1"]]
    assert rig.there == CHAINS


def test_no_name_is_lost_when_several_come_at_once(rig: Rig) -> None:
    async def scenario() -> None:
        await pulled(rig, 1, CHAINS, "one:v0")
        await asyncio.gather(
            *(rig.images.tag("one:v0", f"one:t{n}") for n in range(5)),
            *(pulled(rig, 1, CHAINS, f"one:p{n}") for n in range(5)),
        )

    asyncio.run(scenario())
    (found,) = rig.store
    expected = {"one:v0", *(f"one:{kind}{n}" for kind in "tp" for n in range(5))}
    assert set(found.names) == expected
    again = ImageStore(rig.store.records.folder.rpartition("/")[0])
    again.load()
    assert set(next(iter(again)).names) == expected


def both(rig: Rig) -> list[str]:
    """A name that images for two platforms have: their ids."""
    for number, architecture in enumerate(("arm64", "riscv64"), 1):
        found = image(number, [], "one:v1")["image"]
        rig.store.put({**found, "config": b'{"architecture": "%s"}' % architecture.encode()})
    return [f"{number:064x}" for number in (1, 2)]


def test_a_name_is_removed_for_all_platforms_or_for_one(rig: Rig) -> None:
    arm, riscv = both(rig)
    asyncio.run(rig.images.remove("one:v1", force=False, platform="riscv64"))
    assert [found.id for found in rig.store] == [arm]
    with pytest.raises(errors.NotFound, match="for linux/riscv64"):
        asyncio.run(rig.images.remove("one:v1", force=False, platform="riscv64"))
    assert both(rig) == [arm, riscv]
    assert asyncio.run(rig.images.remove("one:v1", force=False))["deleted"]
    assert len(rig.store) == 0
    with pytest.raises(errors.NotFound, match="No such image:one:v1"):
        asyncio.run(rig.images.remove("one:v1", force=False))
    with pytest.raises(errors.InvalidArgument, match="Invalid platform"):
        asyncio.run(rig.images.remove("one:v1", force=False, platform="a/b/c/d"))


def test_nothing_is_removed_when_one_of_the_platforms_is_in_use(rig: Rig) -> None:
    arm, riscv = both(rig)
    with rig.images.holding(rig.store.get(arm)):
        with pytest.raises(errors.FailedPrecondition, match="Image used by"):
            asyncio.run(rig.images.remove("one:v1", force=False))
        assert {found.id for found in rig.store} == {arm, riscv}
        assert all(found.names == ["one:v1"] for found in rig.store)
        asyncio.run(rig.images.remove("one:v1", force=True))
        assert [(found.id, found.names) for found in rig.store] == [(arm, [])]


def test_an_image_can_be_removed_while_it_is_pulled_again(rig: Rig) -> None:
    async def scenario() -> None:
        await pulled(rig, 1, CHAINS, "one:v1")

        async def work(handle: Handle) -> dict[str, Any]:
            answer = await handle({"need": CHAINS})
            assert answer == {"have": CHAINS}
            await rig.images.remove("one:v1", force=False)
            # the layers that the worker was told of stay
            assert rig.there == CHAINS
            await handle(image(1, CHAINS, "one:v1"))
            return {}

        await rig.bring(work)

    asyncio.run(scenario())
    assert [found.names for found in rig.store] == [["one:v1"]]
    assert rig.there == CHAINS


def test_a_container_that_is_being_made_keeps_its_image(rig: Rig) -> None:
    async def scenario() -> None:
        await pulled(rig, 1, CHAINS, "one:v1", "one:v2")
        found = rig.store.get("one:v1")
        with rig.images.holding(found):
            with pytest.raises(errors.FailedPrecondition, match="Image used by"):
                await rig.images.remove(found.id, force=False)
            assert not await rig.images.discard(found)
            assert found.names == ["one:v1", "one:v2"]
            answer = await rig.images.remove(found.id, force=True)
            assert answer == {"removed": found.id, "deleted": False}
            assert rig.there == CHAINS
        assert rig.store.get(found.id).names == []
        assert await rig.images.discard(found)

    asyncio.run(scenario())
    assert rig.there == []
    assert rig.images.held() == set()


def test_no_container_is_made_of_an_image_that_lacks_a_layer(rig: Rig) -> None:
    async def scenario() -> None:
        await pulled(rig, 1, CHAINS, "one:v1")

    asyncio.run(scenario())
    rig.layers.remove(CHAINS[1])
    with pytest.raises(errors.DataLoss) as caught, rig.images.holding(rig.store.get("one:v1")):
        raise AssertionError("not reached")
    assert CHAINS[1] in str(caught.value)
    assert "system check --repair" in caught.value.hint
    assert rig.images.held() == set()


def test_an_image_is_tried_again_once_space_was_made(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    async def full(_handle: Handle) -> dict[str, Any]:
        tries.append(1)
        raise errors.NoSpace("no space left")

    async def scenario(gained: bool, data: int) -> None:
        async def run(*, pressing: bool = False) -> bool:
            return pressing and gained

        monkeypatch.setattr(rig.images.gc, "run", run)
        tries.clear()
        rig.work = [full, full, full]
        with pytest.raises(errors.NoSpace):
            await rig.images._bring({"op": "load"}, ignore, data)

    for gained, data, count in ((True, -1, 2), (False, -1, 1), (True, 3, 1)):
        asyncio.run(scenario(gained, data))
        assert len(tries) == count


def test_only_a_worker_that_brings_something_counts_as_one(rig: Rig) -> None:
    seen: list[bool] = []

    async def look(_handle: Handle) -> dict[str, Any]:
        seen.append(rig.images.bringing)
        return {}

    async def scenario() -> None:
        await rig.bring(look)
        rig.work.append(look)
        await rig.images.ask({"op": "usage"}, ignore)

    asyncio.run(scenario())
    assert seen == [True, False]
    assert not rig.images.bringing


@pytest.mark.parametrize(("elsewhere", "pressed"), [(False, [True]), (True, [])])
def test_images_go_only_where_the_file_system_of_the_graph_is_full(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, elsewhere: bool, pressed: list[bool]
) -> None:
    seen: list[bool] = []

    async def press(*, pressing: bool = False) -> bool:
        seen.append(pressing)
        return False

    async def full(_handle: Handle) -> dict[str, Any]:
        where = "/proc/x/y" if elsewhere else f"{rig.images.tmpdir}/absent/blob"
        raise errors.NoSpace("full", ref=where)

    monkeypatch.setattr(rig.images.gc, "run", press)
    rig.work.append(full)
    with pytest.raises(errors.NoSpace):
        asyncio.run(rig.images._bring({"op": "pull"}, ignore))
    assert seen == pressed


def test_no_layer_goes_while_a_newer_engine_may_need_it(rig: Rig) -> None:
    asyncio.run(pulled(rig, 1, CHAINS[:1], "one"))
    rig.store.records.newer.add("f" * 64)
    (image_,) = rig.store
    assert not asyncio.run(rig.images.discard(image_))
    assert asyncio.run(rig.images.remove("one", force=False))["deleted"]
    assert rig.there == CHAINS[:1]


@pytest.mark.parametrize("how", ["link", "mode", ""])
def test_a_directory_for_temporary_files_that_others_may_change_is_refused(
    rig: Rig, tmp_path: Path, how: str
) -> None:
    other, folder = tmp_path / "other", tmp_path / "given"
    other.mkdir(0o700)
    if how == "link":
        folder.symlink_to(other)
    elif how == "mode":
        folder.mkdir()
        folder.chmod(0o777)
    config = EngineConfig(graph=str(tmp_path), tmpdir=str(folder))

    def make() -> Images:
        return Images(config, rig.store, rig.layers, rig.table, None, rig.events)  # type: ignore[arg-type]

    if not how:
        assert make().tmpdir == str(folder)
        return
    with pytest.raises(errors.FailedPrecondition, match="temporary files"):
        make()


def test_labels_that_are_no_map_are_none(rig: Rig) -> None:
    event = image(1, [], "one")["image"]
    found = rig.store.put({**event, "config": b'{"config": {"Labels": ["a"], "Cmd": ["x"]}}'})
    assert found.run_config == {"Labels": {}, "Cmd": ["x"]}
    assert rig.images.list({"label": ["a"]}) == []
