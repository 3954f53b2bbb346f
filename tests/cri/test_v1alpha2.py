"""The interface of before Kubernetes 1.26, beside the one of today."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cri.client import refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cri.node import Machine, Node

pytestmark = [pytest.mark.root, pytest.mark.lxc]


@pytest.fixture
def old(machine: Machine, runtime: str) -> Iterator[Node]:
    """A client that speaks runtime.v1alpha2."""
    found = machine.node(runtime, "runtime.v1alpha2")
    yield found
    found.close()


def test_version(old: Node) -> None:
    found = old.call("Version", version="v1alpha2")
    assert found.version == "0.1.0"
    assert found.runtime_api_version


def test_a_pod_and_a_container(old: Node) -> None:
    pod = old.pod(labels={"app": "old"})
    container = pod.run("sh", "-c", "echo hello; exec sleep 1000")
    assert container.output("cat", "/proc/1/comm") == "sleep"
    assert dict(pod.status().labels) == {"app": "old"}
    container.stop()
    assert container.log_lines() == [("stdout", "F", "hello")]
    container.remove()
    pod.stop()
    pod.remove()
    assert pod.listed() == []


def test_both_see_the_same(old: Node, node: Node) -> None:
    pod = old.pod()
    container = pod.run()
    found = node.call("PodSandboxStatus", pod_sandbox_id=pod.id).status
    assert found.metadata == pod.config.metadata
    assert node.call("ContainerStatus", container_id=container.id).status == container.status()
    node.call("RemovePodSandbox", pod_sandbox_id=pod.id)
    assert pod.listed() == []


def test_images(old: Node) -> None:
    assert old.image_status(old.image) is not None
    assert old.call("ImageFsInfo").image_filesystems


def test_paths_of_seccomp_profiles(old: Node) -> None:
    pod = old.pod()
    security = {"seccomp_profile_path": "docker/default"}
    (line,) = pod.output("grep Seccomp: /proc/self/status", security=security)
    assert line.split()[1] == "2"
    with refused():
        pod.run("true", security={"seccomp_profile_path": "/no/localhost/before"})


@pytest.mark.parametrize("method", ["RuntimeConfig", "CheckpointContainer", "GetContainerEvents"])
def test_what_came_later_is_unknown(old: Node, method: str) -> None:
    with refused("UNIMPLEMENTED"):
        answer = old.call(method)
        if method == "GetContainerEvents":
            next(answer)
