"""Watermarks: which images go, when, and in which order."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isula_edge.service.config import EngineConfig
from isula_edge.service.gc import Collector, percent_used

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


@dataclass
class FakeImage:
    id: str
    loaded_ns: int = 0
    pinned: bool = False
    names: list[str] = field(default_factory=list)
    chain_ids: list[str] = field(default_factory=list)


class FakeImages:
    """Images of which each takes ten per cent of the disk."""

    def __init__(self, *ids: str) -> None:
        self.store = [FakeImage(name, loaded_ns=number) for number, name in enumerate(ids)]
        self.in_use: set[str] = set()
        self.stuck: set[str] = set()
        self.gone: list[str] = []
        self.leases: set[str] = set()
        self.freed = 10.0
        self.base = 50.0
        self.looked = 0

    def used(self, image: FakeImage) -> bool:
        return image.id in self.in_use

    def leased(self, chain: str) -> bool:
        return chain in self.leases

    async def discard(self, image: FakeImage) -> bool:
        if image.id in self.stuck:
            return False
        self.store.remove(image)
        self.gone.append(image.id)
        self.base += 10.0 - self.freed
        return True

    def percent(self, _graph: str) -> float:
        self.looked += 1
        return self.base + 10.0 * len(self.store)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def collector(images: FakeImages, clock: Clock, **settings: Any) -> Collector:
    given = {"image_gc_high": 85, "image_gc_low": 75, "image_gc_min_age": 0.0, **settings}
    config = EngineConfig(**given)
    return Collector(images, config, now=clock, percent=images.percent)  # type: ignore[arg-type]


def run(found: Collector, **how: bool) -> bool:
    return asyncio.run(found.run(**how))


def test_it_is_off_unless_it_is_asked_for() -> None:
    images = FakeImages("a", "b", "c", "d", "e")
    found = collector(images, Clock(), image_gc_high=0, image_gc_low=0)
    assert not run(found)
    assert not run(found, pressing=True)
    assert (images.gone, images.looked) == ([], 0)


def test_from_the_high_watermark_to_below_the_low_one() -> None:
    images = FakeImages("a", "b", "c", "d")
    assert run(collector(images, Clock()))
    assert images.gone == ["a", "b"]


def test_nothing_goes_below_the_high_watermark() -> None:
    images = FakeImages("a", "b", "c")
    assert not run(collector(images, Clock()))
    assert images.gone == []


def test_the_least_recently_used_goes_first() -> None:
    images, clock = FakeImages("a", "b", "c", "d"), Clock()
    found = collector(images, clock)
    for name in ("a", "c"):
        clock.now += 10
        found.used(name)
    clock.now += 10
    assert run(found)
    assert images.gone == ["b", "d"]


def test_what_is_in_use_pinned_or_young_stays() -> None:
    images, clock = FakeImages("used", "pinned", "young", "old", "stuck"), Clock()
    images.in_use = {"used"}
    images.stuck = {"stuck"}
    images.store[1].pinned = True
    found = collector(images, clock, image_gc_min_age=60.0)
    clock.now += 50
    found.used("young")
    clock.now += 30
    assert run(found)
    assert images.gone == ["old"]


def test_nothing_is_old_just_after_the_start_unless_it_presses() -> None:
    images, clock = FakeImages("a", "b", "c", "d"), Clock()
    found = collector(images, clock, image_gc_min_age=60.0)
    found.used("c")
    assert not run(found)
    assert run(found, pressing=True)
    assert images.gone == ["a", "b"]


def test_it_looks_once_a_minute_unless_it_presses() -> None:
    images, clock = FakeImages("a", "b", "c"), Clock()
    found = collector(images, clock)
    run(found)
    looked = images.looked
    images.base = 90.0
    clock.now += 59
    assert not run(found)
    assert images.looked == looked
    assert run(found, pressing=True)
    assert images.gone == ["a", "b", "c"]


def test_pressing_removes_at_least_one_whatever_the_watermarks_say() -> None:
    images = FakeImages("a", "b")
    images.base = 0.0
    found = collector(images, Clock())
    assert run(found, pressing=True)
    assert images.gone == ["a"]
    images.stuck = {"b"}
    assert not run(found, pressing=True)


def test_an_image_that_came_again_counts_as_new() -> None:
    images, clock = FakeImages("a", "b", "c", "d"), Clock()
    found = collector(images, clock)
    found.used("a")
    found.forget("a")
    assert run(found)
    assert images.gone == ["a", "b"]


def test_the_percentage_is_that_of_df(tmp_path: Path) -> None:
    assert 0.0 < percent_used(str(tmp_path)) <= 100.0


def test_inodes_count_as_much_as_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Found:
        f_blocks: int = 100
        f_bfree: int = 90
        f_bavail: int = 90
        f_files: int = 10
        f_favail: int = 2

    monkeypatch.setattr("os.statvfs", lambda _path: Found())
    assert percent_used("/") == 80.0
    monkeypatch.setattr("os.statvfs", lambda _path: Found(f_files=0, f_favail=0))
    assert percent_used("/") == 10.0


def test_images_whose_layers_somebody_keeps_stay() -> None:
    """As all are while layers are checked: to remove them would free nothing."""
    images = FakeImages("a", "b", "c", "d")
    for image in images.store:
        image.chain_ids = [f"layer of {image.id}", "shared by some"]
    images.leases = {"layer of a", "layer of c"}
    assert run(collector(images, Clock()))
    assert images.gone == ["b", "d"]
    images.base, images.leases = 80.0, {"shared by some"}
    assert not run(collector(images, Clock()))
    assert images.gone == ["b", "d"]


def test_it_stops_when_a_removal_frees_nothing() -> None:
    images = FakeImages("a", "b", "c", "d")
    images.freed = 0.0
    assert run(collector(images, Clock()))
    assert images.gone == ["a"]
