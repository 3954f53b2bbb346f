"""Two pulls of one engine that need the same blob: it goes over the link once."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from tests.fakes.images import FakeImage, FakeLayer, make_image
from tests.fakes.registry import FakeRegistry
from tests.rig import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.rig import Engine

pytestmark = pytest.mark.root

BASE = FakeLayer.of({"base": os.urandom(6_000_000)})
IMAGES = {
    "a/b": make_image([BASE, FakeLayer.of({"own": b"b"})]),
    "c/d": make_image([BASE, FakeLayer.of({"own": b"d"})]),
}


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine(load=False, config={"max-concurrent-downloads": 2})


@pytest.fixture
def registry(engine: Engine) -> Iterator[FakeRegistry]:
    """A registry on the engine's loopback address."""
    with engine.network.make(FakeRegistry) as registry:
        for name, image in IMAGES.items():
            registry.add(name, "latest", image)
        yield registry


def part_size(engine: Engine) -> int:
    path = engine.graph / f"tmp/blobs/sha256-{BASE.digest[7:]}.part"
    return path.stat().st_size if path.exists() else 0


def is_marked(engine: Engine) -> bool:
    """Whether a worker waits for the blob."""
    inode = (engine.graph / f"tmp/blobs/sha256-{BASE.digest[7:]}.part").stat().st_ino
    with open("/proc/locks", encoding="ascii") as file:
        return any(f":{inode} " in line and "POSIX" in line for line in file)


def check(engine: Engine, *images: FakeImage) -> None:
    listed = engine.ok("images", "-q").split()
    assert len(listed) == len(images)
    assert all(image.id.startswith(tuple(listed)) for image in images)
    assert part_size(engine) == 0
    trees = [tree.stat().st_size for tree in (engine.graph / "storage").glob("*/*/base")]
    assert set(trees) == {6_000_000}


def test_both_at_once(engine: Engine, registry: FakeRegistry) -> None:
    registry.faults.gate = threading.Event()
    clients = [engine.popen("pull", f"{registry.host}/{name}") for name in IMAGES]
    until(lambda: part_size(engine) >= len(BASE.blob) // 2, "half of the blob")
    until(lambda: is_marked(engine), "the other one waiting")
    registry.faults.gate.set()
    assert [client.wait(60) for client in clients] == [0, 0]
    assert registry.sent_bytes(BASE.digest) == len(BASE.blob)
    check(engine, *IMAGES.values())


def test_the_first_one_is_interrupted(engine: Engine, registry: FakeRegistry) -> None:
    registry.faults.hold_at = [0.5]
    first = engine.popen("pull", f"{registry.host}/a/b")
    until(lambda: part_size(engine) >= len(BASE.blob) // 2, "half of the blob")
    second = engine.popen("pull", f"{registry.host}/c/d")
    until(lambda: is_marked(engine), "the other one waiting")
    first.send_signal(signal.SIGINT)
    assert first.wait(60) != 0
    assert second.wait(60) == 0
    assert registry.sent_bytes(BASE.digest) <= 1.1 * len(BASE.blob)
    check(engine, IMAGES["c/d"])
