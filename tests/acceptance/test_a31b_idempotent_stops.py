"""Case A31b: what a kubelet repeats until it succeeds, succeeds."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.cri.leavings import gone
from tests.cri.node import NOT_READY

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cri.node import Container, Node, Pod

pytestmark = [pytest.mark.root, pytest.mark.lxc]
_UNKNOWN = "f" * 64
_SHARED = {"namespace_options": {"pid": "POD"}}


def made(node: Node) -> tuple[Pod, Container]:
    pod = node.pod()
    return pod, pod.run(security=_SHARED)


@pytest.mark.parametrize("times", [1, 3])
def test_unknown_ids(plain: Node, times: int) -> None:
    for _ in range(times):
        plain.call("StopContainer", container_id=_UNKNOWN)
        plain.call("RemoveContainer", container_id=_UNKNOWN)
        plain.call("StopPodSandbox", pod_sandbox_id=_UNKNOWN)
        plain.call("RemovePodSandbox", pod_sandbox_id=_UNKNOWN)


def test_three_times(node: Node) -> None:
    pod, container = made(node)
    for work in (container.stop, container.remove, pod.stop, pod.remove):
        for _ in range(3):
            work()
    # and what is removed may be stopped
    container.stop()
    pod.stop()
    gone(node.machine, [pod.id, container.id])


def test_three_at_once(node: Node) -> None:
    pod, container = made(node)
    with ThreadPoolExecutor(3) as pool:
        for work in (container.stop, container.remove, pod.stop, pod.remove):
            for call in [pool.submit(work) for _ in range(3)]:
                call.result()
    gone(node.machine, [pod.id, container.id])


def test_removal_alone(node: Node) -> None:
    pod, container = made(node)
    for _ in range(3):
        pod.remove()
    container.remove()
    gone(node.machine, [pod.id, container.id])


def unpinned(pod: Pod) -> None:
    subprocess.run(["umount", "-l", f"/var/run/netns/isulacni-{pod.id[:32]}"], check=True)


def unlinked(pod: Pod) -> None:
    unpinned(pod)
    subprocess.run(["rm", f"/var/run/netns/isulacni-{pod.id[:32]}"], check=True)


def without_interface(pod: Pod) -> None:
    words = ["ip", "-n", f"isulacni-{pod.id[:32]}", "link", "del", "eth0"]
    subprocess.run(words, check=True)


def without_cache(pod: Pod) -> None:
    for path in (pod.node.machine.folder / "cni/results").glob(f"*{pod.id}*"):
        path.unlink()


@pytest.mark.parametrize("damage", [unpinned, unlinked, without_interface, without_cache])
def test_a_network_that_somebody_took(node: Node, damage: Callable[[Pod], None]) -> None:
    """cri-o/cri-o#232: the namespace is gone, the stop must succeed and free the address."""
    pod, container = made(node)
    damage(pod)
    for _ in range(3):
        pod.stop()
        assert pod.status().state == NOT_READY
    for _ in range(3):
        pod.remove()
    gone(node.machine, [pod.id, container.id])


def test_after_a_restart(node: Node) -> None:
    pod, container = made(node)
    pod.stop()
    node.forget()
    node.machine.own.restart()
    later = node.machine.node()
    try:
        for _ in range(3):
            for method in ("StopPodSandbox", "RemovePodSandbox"):
                later.call(method, pod_sandbox_id=pod.id)
            for method in ("StopContainer", "RemoveContainer"):
                later.call(method, container_id=container.id)
    finally:
        later.close()
    gone(node.machine, [pod.id, container.id])
