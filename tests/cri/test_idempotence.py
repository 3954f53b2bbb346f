"""Calls that a kubelet repeats until they succeed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cri.node import Node

pytestmark = [pytest.mark.root, pytest.mark.lxc]
_UNKNOWN = "f" * 64


@pytest.mark.parametrize("method", ["StopPodSandbox", "RemovePodSandbox"])
def test_unknown_pods(plain: Node, method: str) -> None:
    """Specs: StopPodSandbox, RemovePodSandbox should not return an error if not found."""
    plain.call(method, pod_sandbox_id=_UNKNOWN)


@pytest.mark.parametrize("method", ["StopContainer", "RemoveContainer"])
def test_unknown_containers(plain: Node, method: str) -> None:
    """Specs: StopContainer, RemoveContainer should not return an error if not found."""
    plain.call(method, container_id=_UNKNOWN)


@pytest.mark.parametrize("image", [_UNKNOWN, f"sha256:{_UNKNOWN}", "127.0.0.1:1/no/such:image"])
def test_unknown_images(plain: Node, image: str) -> None:
    """Spec: RemoveImage should not return an error if not found."""
    plain.remove_image(image)


def test_stopped_twice(node: Node) -> None:
    """Specs: StopContainer, StopPodSandbox should not return an error if already stopped."""
    pod = node.pod()
    container = pod.run()
    for _ in range(3):
        container.stop()
    for _ in range(3):
        pod.stop()
    container.stop()
    for _ in range(3):
        container.remove()
    for _ in range(3):
        pod.remove()
    pod.stop()
