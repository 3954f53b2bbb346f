"""When layers are downloaded ahead of the one that is unpacked, and when that is only wear."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from isula_edge.image.pace import Pace
from isula_edge.image.pull import PullRequest, pull
from tests.fakes.images import FakeLayer, make_image
from tests.fakes.jobs import FakeDaemon

if TYPE_CHECKING:
    from pathlib import Path

    from isula_edge.snapshot import LayerStore
    from tests.fakes.registry import FakeRegistry

MIB = 1 << 20
LAYERS = [FakeLayer.of({name: os.urandom(5 * MIB)}) for name in "xyz"]


def test_nothing_is_known_at_first() -> None:
    pace = Pace(100 * MIB)
    assert not pace.slow
    assert not pace.passed(1000, 0.1)
    assert not pace.slow


def test_what_was_there_says_nothing_about_the_link() -> None:
    pace = Pace(600 * MIB)
    pace.have(500 * MIB)
    pace.passed(10 * MIB, 10.0)
    assert pace.slow
    pace.have(88 * MIB)
    pace.passed(MIB, 1.0)
    assert not pace.slow


@pytest.mark.parametrize(
    ("count", "seconds", "slow"),
    [
        (1000, 0.3, True),
        (MIB, 0.2, True),
        (25 * MIB, 1.0, False),
        (20 * MIB, 1.0, True),
        (50 * MIB, 2.9, False),
        (50 * MIB, 3.1, True),
        (4 * MIB, 0.0, False),
        # the last ones of a slow link are soon there as well
        (99 * MIB, 200.0, False),
    ],
)
def test_how_long_the_rest_takes(count: int, seconds: float, slow: bool) -> None:
    pace = Pace(100 * MIB)
    assert pace.passed(count, seconds) is slow
    assert pace.slow is slow
    # it is news only once
    assert not pace.passed(0, 0.0)


class Link:
    """Pulls over a link of some speed, and notes what was there when each blob was asked for."""

    def __init__(self, registry: FakeRegistry, graph: Path, store: LayerStore) -> None:
        self._graph = graph
        self.unread: list[list[int]] = []
        link = self

        class Begun(list[str]):
            def append(self, digest: str) -> None:
                super().append(digest)
                link._note()
                if digest == LAYERS[1].digest and registry.faults.gate is not None:
                    registry.faults.gate.set()

        registry.begun = Begun()
        registry.add("a/b", "latest", make_image(LAYERS))
        self._registry, self._store = registry, store

    def _note(self) -> None:
        parts = [self._graph / f"tmp/blobs/sha256-{layer.digest[7:]}.part" for layer in LAYERS]
        self.unread.append([path.stat().st_size if path.exists() else 0 for path in parts])

    def pull(self, seconds_each: float) -> None:
        """``seconds_each`` is how far the clock goes on whenever it is looked at."""
        daemon = FakeDaemon()

        def now() -> float:
            daemon.clock.now += seconds_each
            return daemon.clock.now

        daemon.job.now = now
        wanted = PullRequest("a/b", str(self._graph / "tmp"), mirrors=[self._registry.url])
        pull(wanted, self._store, daemon.job)
        assert len(daemon.of("layer")) == len(LAYERS)


def test_over_a_fast_link_a_blob_is_read_before_the_next_one_comes(
    registry: FakeRegistry, graph: Path, store: LayerStore
) -> None:
    link = Link(registry, graph, store)
    link.pull(0.0)
    # the config, and then each layer when nothing is left of those before
    assert link.unread == [[0, 0, 0]] * 4


def test_small_ones_come_at_once(registry: FakeRegistry, graph: Path, store: LayerStore) -> None:
    small = FakeLayer.of({"small": b"1"})
    registry.add("c/d", "latest", make_image([LAYERS[0], small]))
    registry.faults.gate = threading.Event()

    class Begun(list[str]):
        def append(self, digest: str) -> None:
            super().append(digest)
            if digest == small.digest and registry.faults.gate is not None:
                registry.faults.gate.set()

    registry.begun = Begun()
    wanted = PullRequest("c/d", str(graph / "tmp"), mirrors=[registry.url])
    pull(wanted, store, FakeDaemon().job)
    # the large one has ended although it waited for the small one
    assert registry.faults.gate.is_set()
    assert set(registry.begun[1:]) == {LAYERS[0].digest, small.digest}


def test_over_a_slow_link_they_come_side_by_side(
    registry: FakeRegistry, graph: Path, store: LayerStore
) -> None:
    link = Link(registry, graph, store)
    # the first one goes on when the second one has begun
    registry.faults.gate = threading.Event()
    link.pull(2.0)
    assert 0 < link.unread[2][0] < len(LAYERS[0].blob)
