"""Hundreds of pods that cannot be made leave nothing, and do not keep the next from being made."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.cri import node as nodes
from tests.cri.client import refused
from tests.cri.leavings import gone
from tests.fakes.cni_gate import Gate
from tests.rig import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cri.node import Machine, Node

pytestmark = [pytest.mark.root, pytest.mark.lxc, pytest.mark.slow]
_EACH = 100
_AT_ONCE = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("failures")


@pytest.fixture(scope="module")
def gate(folder: Path) -> Gate:
    return Gate.last_of(nodes.conflist(folder), folder)


@pytest.fixture(scope="module")
def machine(images: Path, folder: Path, gate: Gate) -> Iterator[Machine]:
    """An engine whose pods' network ends with the gate."""
    config: dict[str, Any] = {"cni-bin-dir": f"/usr/lib/cni:{gate.bin}"}
    with nodes.machine(folder, images, **config) as found:
        yield found


@pytest.fixture
def shut(gate: Gate) -> Iterator[Gate]:
    """The network of every pod fails when all but the last plugin have done their work."""
    gate.fail()
    yield gate
    gate.open()


def descriptors(machine: Machine) -> int:
    return len(os.listdir(f"/proc/{machine.own.pid}/fd"))


def many(node: Node, config: Callable[[int], Any]) -> None:
    """Pods that fail, some at a time; afterwards one that works, and nothing is left."""
    before = descriptors(node.machine)

    def attempt(number: int) -> None:
        with refused():
            node.run_pod(config(number))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(attempt, range(_EACH)))
    gone(node.machine)
    assert abs(descriptors(node.machine) - before) <= 3


def works(node: Node) -> None:
    pod = node.pod()
    container = pod.run()
    assert container.output("echo", "well") == "well"
    pod.remove()
    gone(node.machine, [pod.id, container.id])


def test_a_plugin_fails(plain: Node, shut: Gate) -> None:
    many(plain, lambda _: plain.pod_config())
    ids = shut.calls("ADD")
    assert len(ids) == _EACH
    assert set(ids) <= set(shut.calls("DEL"))
    gone(plain.machine, ids)
    shut.open()
    works(plain)


def test_the_same_pod_again_and_again(plain: Node, shut: Gate) -> None:
    """A kubelet's back-off: the same attempt, until the network works."""
    config = plain.pod_config()
    for _ in range(20):
        with refused("UNAVAILABLE", "UNKNOWN", "INTERNAL"):
            plain.run_pod(config)
    shut.open()
    plain.run_pod(config).remove()
    gone(plain.machine)


_BAD: list[dict[str, Any]] = [
    {"linux": {"sysctls": {"net.no.such": "1"}}},
    {"linux": {"sysctls": {"kernel.shmmax": "many"}}},
    {"linux": {"sysctls": {"vm.swappiness": "1"}}},
    {"hostname": "h" * 65},
    {"metadata": {"name": "without", "namespace": "tests"}},
    {"annotations": {"network.alpha.kubernetes.io/network": '[{"name":"none","interface":"n"}]'}},
    {"annotations": {"network.alpha.kubernetes.io/network": "no json"}},
    {"annotations": {"kubernetes.io/ingress-bandwidth": "much"}},
]


def test_settings_that_cannot_be(plain: Node) -> None:
    many(plain, lambda number: plain.pod_config(**_BAD[number % len(_BAD)]))
    works(plain)


def test_no_network_is_configured(plain: Node) -> None:
    net_d = plain.machine.folder / "net.d"
    kept = {path: path.read_bytes() for path in net_d.iterdir()}
    for path in kept:
        path.unlink()
    try:
        many(plain, lambda _: plain.pod_config())
    finally:
        for path, data in kept.items():
            path.write_bytes(data)

    def ready() -> bool:
        try:
            plain.run_pod(plain.pod_config()).remove()
        except grpc.RpcError:
            return False
        return True

    until(ready, "the network, which is back")
    works(plain)
