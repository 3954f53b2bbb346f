"""What containers and pods use, and the descriptions of metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.cri.client import refused

if TYPE_CHECKING:
    from tests.cri.node import Node, Pod

pytestmark = [pytest.mark.root, pytest.mark.lxc]


@pytest.fixture
def pod(node: Node) -> Pod:
    return node.pod(labels={"app": "stats"})


def listed(node: Node, **fields: Any) -> dict[str, Any]:
    found = node.call("ListContainerStats", filter=fields) if fields else None
    found = found or node.call("ListContainerStats")
    return {item.attributes.id: item for item in found.stats}


def test_one_container(pod: Pod) -> None:
    """Spec: runtime should support listing container stats."""
    container = pod.run(labels={"role": "one"})
    found = pod.node.call("ContainerStats", container_id=container.id).stats
    assert found.attributes.id == container.id
    assert found.attributes.metadata.name == container.config.metadata.name
    assert dict(found.attributes.labels) == {"role": "one"}
    assert found.cpu.timestamp > 0
    assert found.cpu.usage_core_nano_seconds.value > 0
    assert found.memory.timestamp > 0
    assert found.memory.working_set_bytes.value > 0
    assert found.writable_layer.timestamp > 0
    assert found.writable_layer.fs_id.mountpoint
    with refused("NOT_FOUND", "UNKNOWN"):
        pod.node.call("ContainerStats", container_id="0" * 64)


def test_the_filter_of_labels(pod: Pod) -> None:
    """Spec: runtime should support listing stats for containers filtered by labels."""
    one, two = pod.run(labels={"role": "one"}), pod.run(labels={"role": "two"})
    found = listed(pod.node, label_selector={"role": "one"}, pod_sandbox_id=pod.id)
    assert found.keys() == {one.id}
    assert listed(pod.node, pod_sandbox_id=pod.id).keys() == {one.id, two.id}
    assert listed(pod.node, id=two.id).keys() == {two.id}
    assert listed(pod.node, id="0" * 64) == {}


def test_no_filter(pod: Pod) -> None:
    """Specs: stats for started containers, for three created containers, when filter is nil."""
    started = [pod.run() for _ in range(3)]
    found = listed(pod.node)
    for container in started:
        assert found[container.id].cpu.timestamp > 0
        assert found[container.id].memory.timestamp > 0


def test_a_created_container(pod: Pod) -> None:
    container = pod.create("true")
    found = listed(pod.node, id=container.id)
    # what has not begun may be left out, or has used nothing
    assert all(item.cpu.usage_core_nano_seconds.value == 0 for item in found.values())


def test_what_a_container_writes_counts(pod: Pod) -> None:
    container = pod.run()
    container.output("sh", "-c", "head -c 1000000 /dev/urandom > /file; sync")
    found = pod.node.call("ContainerStats", container_id=container.id).stats
    if pod.node.machine.engine is not None:
        assert found.writable_layer.used_bytes.value >= 1000000
        assert found.writable_layer.inodes_used.value > 0


def test_one_pod(pod: Pod) -> None:
    container = pod.run("sh", "-c", "while :; do :; done")
    found = pod.node.call("PodSandboxStats", pod_sandbox_id=pod.id).stats
    assert found.attributes.id == pod.id
    assert found.attributes.metadata == pod.config.metadata
    assert dict(found.attributes.labels) == {"app": "stats"}
    assert found.linux.cpu.timestamp > 0
    assert found.linux.network.default_interface.name == "eth0"
    assert found.linux.process.process_count.value > 0
    assert [item.attributes.id for item in found.linux.containers] == [container.id]
    with refused("NOT_FOUND", "UNKNOWN"):
        pod.node.call("PodSandboxStats", pod_sandbox_id="0" * 64)


def test_pods(pod: Pod) -> None:
    other = pod.node.pod(labels={"app": "other"})

    def ids(**fields: Any) -> set[str]:
        found = pod.node.call("ListPodSandboxStats", filter=fields)
        return {item.attributes.id for item in found.stats}

    assert {pod.id, other.id} <= ids()
    assert ids(label_selector={"app": "other"}, id=other.id) == {other.id}
    assert ids(id="0" * 64) == set()
    other.stop()
    assert other.id not in ids()


@pytest.fixture
def described(plain: Node) -> dict[str, Any]:
    """Descriptors of metrics by name."""
    if plain.machine.engine is None:
        pytest.skip("whether another engine has metrics is not known")
    found = plain.call("ListMetricDescriptors").descriptors
    assert len({item.name for item in found}) == len(found)
    return {item.name: item for item in found}


def test_metric_descriptors(described: dict[str, Any]) -> None:
    """Spec: runtime should support returning metrics descriptors."""
    for item in described.values():
        assert item.help
        assert item.label_keys
    assert {
        "container_cpu_usage_seconds_total",
        "container_memory_working_set_bytes",
        "container_network_receive_bytes_total",
        "container_fs_usage_bytes",
        "container_processes",
    } <= described.keys()


def test_metrics(described: dict[str, Any], pod: Pod) -> None:
    """Spec: runtime should support listing pod sandbox metrics."""
    container = pod.run()
    found = pod.node.call("ListPodSandboxMetrics").pod_metrics
    (mine,) = [item for item in found if item.pod_sandbox_id == pod.id]
    (inner,) = mine.container_metrics
    assert inner.container_id == container.id
    metrics = [*mine.metrics, *inner.metrics]
    assert {"container_cpu_usage_seconds_total", "container_memory_working_set_bytes"} <= {
        metric.name for metric in metrics
    }
    for metric in metrics:
        assert len(metric.label_values) == len(described[metric.name].label_keys)
        assert metric.HasField("value")
