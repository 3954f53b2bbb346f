"""Case A13: of an index with several ARM variants the best one that runs is taken."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.profile import platform
from isula_edge.types import Platform
from tests.fakes.images import FakeImage, FakeLayer, index, make_image
from tests.fakes.registry import FakeRegistry
from tests.fakes.workers import WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

VARIANTS = ("", "v5", "v6", "v7")
# rows: the machine; columns: the one entry of an index, in the order of VARIANTS
TABLE = {
    "": (True, True, True, True),
    "v5": (True, True, False, False),
    "v6": (True, True, True, False),
    "v7": (True, True, True, True),
}


def arm(variant: str) -> Platform:
    return Platform("linux", "arm", variant)


def image_for(variant: str) -> FakeImage:
    where = {"os": "linux", "architecture": "arm"} | ({"variant": variant} if variant else {})
    layer = FakeLayer.of({"variant": variant.encode()})
    return make_image([layer], platform=where)


@pytest.mark.parametrize("host", TABLE)
@pytest.mark.parametrize("number", range(4))
def test_one_entry_runs_or_does_not(host: str, number: int) -> None:
    chosen = platform.choose([arm(VARIANTS[number])], arm(host))
    assert (chosen == 0) is TABLE[host][number]


@pytest.mark.parametrize(("host", "best"), [("v5", "v5"), ("v6", "v6"), ("v7", "v7")])
def test_the_order_of_the_index_decides_nothing(host: str, best: str) -> None:
    for order in permutations(VARIANTS):
        chosen = platform.choose([arm(variant) for variant in order], arm(host))
        assert chosen is not None
        assert order[chosen] == best, order


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    for name in ("layers", "quarantine", "storage/vfs", "tmp"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


# the order in which the wrong one comes first, for each machine
@pytest.mark.parametrize(
    ("host", "order"),
    [
        ("v5", ("v7", "v6", "", "v5")),
        ("v6", ("v7", "", "v5", "v6")),
        ("v7", ("", "v5", "v6", "v7")),
    ],
)
def test_a_pull_brings_the_one_for_the_machine(
    graph: Path, host: str, order: tuple[str, ...]
) -> None:
    images = {variant: image_for(variant) for variant in order}
    with FakeRegistry() as registry:
        registry.add_index("a/b", "latest", index([*images.values()]), *images.values())
        request = {
            "op": "pull", "ref": "a/b", "mirrors": [registry.url], "platform": f"linux/arm/{host}",
        }  # fmt: skip
        with WorkerProcess(request, graph) as worker:
            assert worker.result()["id"] == images[host].id
        for variant, image in images.items():
            assert bool(registry.seen(image.layers[0].digest)) is (variant == host)


def test_without_a_match_the_error_lists_what_there_is(graph: Path) -> None:
    images = [image_for("v6"), image_for("v7")]
    with FakeRegistry() as registry:
        registry.add_index("a/b", "latest", index(images), *images)
        request = {
            "op": "pull", "ref": "a/b", "mirrors": [registry.url], "platform": "linux/arm/v5",
        }  # fmt: skip
        with WorkerProcess(request, graph) as worker, pytest.raises(errors.NotFound) as found:
            worker.result()
        assert "linux/arm/v5" in str(found.value)
        assert "linux/arm/v6, linux/arm/v7" in str(found.value)
        assert registry.seen("/blobs/") == []
