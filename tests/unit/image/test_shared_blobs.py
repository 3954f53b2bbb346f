"""Several workers that need the same blobs: each is fetched once, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image.pull import PullRequest, pull
from isula_edge.snapshot import LayerStore
from tests.fakes.images import FakeLayer, make_image
from tests.fakes.jobs import FakeDaemon
from tests.fakes.workers import WorkerProcess
from tests.rig import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.registry import FakeRegistry

X, Y, Z = (FakeLayer.of({name: os.urandom(700_000)}) for name in "xyz")
EMPTY = FakeLayer.of({})


def request(registry: FakeRegistry, name: str, **more: Any) -> dict[str, Any]:
    return {"op": "pull", "ref": name, "mirrors": [registry.url], **more}


def begun(registry: FakeRegistry, *layers: FakeLayer) -> None:
    """Waits until the answers with these blobs have begun."""
    digests = {layer.digest for layer in layers}
    until(lambda: digests <= set(registry.begun), "downloads of all layers")


def results(*workers: WorkerProcess) -> list[dict[str, Any]]:
    """What all workers end with."""
    found: dict[int, dict[str, Any]] = {}

    def read(number: int) -> None:
        found[number] = workers[number].result()

    threads = [threading.Thread(target=read, args=(i,)) for i in range(len(workers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == len(workers), [worker.events[-3:] for worker in workers]
    return [found[number] for number in range(len(workers))]


def blobs(graph: Path) -> list[str]:
    return os.listdir(graph / "tmp/blobs")


class Waiting(FakeDaemon):
    """A pull in this process that does something the first time it waits."""

    def __init__(self, action: Any) -> None:
        super().__init__()
        self.waits = 0

        def sleep(seconds: float) -> None:
            self.waits += 1
            if self.waits == 1:
                action()
            threading.Event().wait(seconds)

        self.job._custom_sleep = self.job._sleep = sleep

    def pull(self, registry: FakeRegistry, graph: Path, name: str, **more: Any) -> dict[str, Any]:
        wanted = PullRequest(name, str(graph / "tmp"), mirrors=[registry.url], **more)
        return pull(wanted, LayerStore(str(graph), "vfs"), self.job)


def test_one_image_by_two_names_is_fetched_once(graph: Path, registry: FakeRegistry) -> None:
    image = make_image([X, Y, Z])
    registry.add("a/b", "latest", image)
    registry.add("c/d", "latest", image)
    registry.faults.gate = threading.Event()
    with WorkerProcess(request(registry, "a/b"), graph) as first:
        first.until("v")
        begun(registry, X)
        second = Waiting(registry.faults.gate.set)
        thread = threading.Thread(target=first.result)
        thread.start()
        assert second.pull(registry, graph, "c/d")["id"] == image.id
        thread.join()
    assert second.waits > 0
    assert {layer.digest: registry.sent_bytes(layer.digest) for layer in image.layers} == {
        layer.digest: len(layer.blob) for layer in image.layers
    }
    # each layer by one of them, and the other has taken it
    assert sorted([*first.of("layer"), *second.of("layer")]) == sorted(image.chain_ids)
    assert {v["status"] for v in second.of("v")} >= {"Waiting", "Exists"}
    assert blobs(graph) == []


def test_the_same_blob_on_another_base_is_handed_over(graph: Path, registry: FakeRegistry) -> None:
    registry.add("a/b", "latest", make_image([Y]))
    other = registry.add("c/d", "latest", make_image([EMPTY, Y]))
    registry.faults.gate = threading.Event()
    names = [request(registry, "a/b"), request(registry, "c/d")]
    with WorkerProcess(names[0], graph) as first, WorkerProcess(names[1], graph) as second:
        first.until("v")
        begun(registry, Y)
        second.until("v")
        marked = (graph / f"tmp/blobs/sha256-{Y.digest[7:]}.part").stat().st_ino
        until(lambda: _posix_locked(marked), "the second worker's mark")
        registry.faults.gate.set()
        results(first, second)
    assert registry.sent_bytes(Y.digest) == len(Y.blob)
    assert second.of("layer") == other.chain_ids
    assert blobs(graph) == []


def _posix_locked(inode: int) -> bool:
    with open("/proc/locks", encoding="ascii") as file:
        return any(line.split()[1] == "POSIX" and f":{inode}" in line.split()[5] for line in file)


@pytest.mark.parametrize("concurrent", [1, 2, 3])
def test_crossing_orders_do_not_wait_for_each_other(
    graph: Path, registry: FakeRegistry, concurrent: int
) -> None:
    orders = [(X, Y, Z), (Z, Y, X), (Y, X, Z), (Z, X, Y)]
    images = [registry.add(f"a/{i}", "latest", make_image(o)) for i, o in enumerate(orders)]
    registry.faults.gate = threading.Event()
    workers = [
        WorkerProcess(request(registry, f"a/{i}", max_concurrent=concurrent), graph)
        for i in range(len(orders))
    ]
    for worker in workers:
        worker.until("v")
    registry.faults.gate.set()
    found = results(*workers)
    for worker in workers:
        with worker:
            pass
    assert [result["id"] for result in found] == [image.id for image in images]
    chains = {chain for image in images for chain in image.chain_ids}
    made = [chain for worker in workers for chain in worker.of("layer")]
    assert sorted(made) == sorted(chains)
    assert blobs(graph) == []


def test_who_waited_for_a_killed_worker_goes_on_with_its_part(
    graph: Path, registry: FakeRegistry
) -> None:
    big = FakeLayer.of({"big": os.urandom(6_000_000)})
    image = registry.add("a/b", "latest", make_image([big]))
    registry.add("c/d", "latest", image)
    registry.faults.hold_at = [0.5]
    with WorkerProcess(request(registry, "a/b"), graph) as first:
        first.until("v")
        part = graph / f"tmp/blobs/sha256-{big.digest[7:]}.part"
        half = len(big.blob) // 2
        until(lambda: part.exists() and part.stat().st_size >= half, "half of the blob")
        second = Waiting(first.process.kill)
        assert second.pull(registry, graph, "c/d")["id"] == image.id
    assert first.process.returncode == -signal.SIGKILL
    assert registry.sent_bytes(big.digest) <= 1.1 * len(big.blob)
    ranges = [seen.headers.get("range") for seen in registry.seen(big.digest)]
    assert ranges == [None, f"bytes={half // (256 * 1024) * 256 * 1024}-"]
    # progress goes on where the first one was
    at = [v["current"] for v in second.of("v") if v["status"] == "Downloading"]
    assert min(at) > 0.9 * half


def test_who_waits_can_be_cancelled(graph: Path, registry: FakeRegistry) -> None:
    registry.add("a/b", "latest", make_image([X]))
    registry.faults.gate = threading.Event()
    with WorkerProcess(request(registry, "a/b"), graph) as first:
        first.until("v")
        begun(registry, X)
        waiting: Waiting = Waiting(lambda: waiting.job.cancel())
        with pytest.raises(errors.Aborted):
            waiting.pull(registry, graph, "a/b")
        registry.faults.gate.set()
        first.result()
    assert registry.sent_bytes(X.digest) == len(X.blob)
    assert blobs(graph) == []


def test_a_slot_is_waited_for_over_all_workers(graph: Path, registry: FakeRegistry) -> None:
    registry.add("a/b", "latest", make_image([X, Y]))
    registry.add("c/d", "latest", make_image([Z]))
    registry.faults.gate = gate = threading.Event()
    seen: list[list[str]] = []

    def look() -> None:
        # of large blobs, one has begun, and this pull has to wait for it
        seen.append([digest for digest in registry.begun if digest in (X.digest, Z.digest)])
        gate.set()

    with WorkerProcess(request(registry, "a/b", max_concurrent=1), graph) as first:
        first.until("v")
        begun(registry, X)
        second = Waiting(look)
        second.pull(registry, graph, "c/d", max_concurrent=1)
        first.result()
    assert seen == [[X.digest]]
    statuses = [v["status"] for v in second.of("v")]
    assert statuses[:2] == ["Waiting", "Downloading"]


def test_the_same_blob_several_times_in_one_image(graph: Path, registry: FakeRegistry) -> None:
    layers = [X, EMPTY, Y, EMPTY, X, EMPTY]
    image = registry.add("a/b", "latest", make_image(layers))
    with WorkerProcess(request(registry, "a/b"), graph) as worker:
        assert worker.result()["id"] == image.id
        assert worker.of("layer") == image.chain_ids
    for layer in (X, Y, EMPTY):
        assert registry.sent_bytes(layer.digest) == len(layer.blob)
    assert blobs(graph) == []
