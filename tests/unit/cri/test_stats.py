"""Statistics and metrics as messages of the CRI."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("google.protobuf")

from isula_cri import messages, metrics, resources
from isula_cri.stats import container_stats, pod_stats
from isula_edge.cgroup.stats import Details, Device, GroupStats, HugePages, Pressure, Stall
from isula_edge.container.record import Container
from isula_edge.oci.options import Settings
from isula_edge.oci.resources import ResourceChange
from isula_edge.pod.record import Pod, PodSpec
from isula_edge.service.stats import ContainerUsage, LayerUsage, PodUsage
from isula_edge.sys.descriptors import Descriptors
from isula_edge.sys.netdev import Interface
from isula_edge.sys.usage import TreeUsage
from isula_edge.types import ContainerId, ImageId

SECOND = 10**9
STALL = Stall(Pressure(3000, 1.0, 2.0, 3.0), Pressure(4 * SECOND, 0.5, 0.0, 0.0))
GROUP = GroupStats(
    taken_ns=7 * SECOND,
    cpu_ns=5 * SECOND,
    memory_usage=1000,
    memory_working_set=900,
    memory_limit=2000,
    memory_rss=500,
    memory_cache=300,
    memory_mapped_file=30,
    page_faults=11,
    major_page_faults=1,
    swap_usage=40,
    swap_limit=100,
    pids=3,
    cpu_stall=STALL,
    memory_stall=STALL,
    io_stall=STALL,
    details=Details(
        throttled_ns=2 * SECOND,
        oom_kills=2,
        devices=(Device(8, 0, "sda", 100, 200, 10, 20),),
        huge_pages=(HugePages("2MB", 1, 2),),
    ),
)
LAYER = LayerUsage(6 * SECOND, "/", TreeUsage(4096, 5))
FULL = ContainerUsage("c1", GROUP, 250, LAYER, Descriptors(2, 9, 1), 1024)
EMPTY = ContainerUsage("c1", GroupStats(taken_ns=7 * SECOND))
NETWORK = tuple(
    Interface(name, number, 1, 2, 3, number + 1, 5, 6, 7)
    for number, name in enumerate(("lo", "eth1", "eth0"), 1)
)
POD = PodUsage("p1", GROUP, None, NETWORK, (FULL,))


def stats(usage: ContainerUsage) -> Any:
    return container_stats(
        usage,
        metadata={"name": "web", "attempt": 2},
        labels={"a": "b"},
        annotations={"c": "d"},
        mountpoint="/graph",
    )


def pod(usage: PodUsage) -> Any:
    return pod_stats(
        usage,
        [stats(item) for item in usage.containers],
        metadata={"name": "web", "uid": "u", "namespace": "n", "attempt": 1},
        labels={},
        annotations={},
    )


def test_a_container() -> None:
    found = stats(FULL)
    assert found.attributes.id == "c1"
    assert found.attributes.metadata.name == "web"
    assert found.attributes.metadata.attempt == 2
    assert dict(found.attributes.labels) == {"a": "b"}
    assert dict(found.attributes.annotations) == {"c": "d"}
    assert found.cpu.timestamp == found.memory.timestamp == 7 * SECOND
    assert found.cpu.usage_core_nano_seconds.value == 5 * SECOND
    assert found.cpu.usage_nano_cores.value == 250
    assert found.memory.working_set_bytes.value == 900
    assert found.memory.available_bytes.value == 1100
    assert found.swap.swap_available_bytes.value == 60
    assert found.writable_layer.fs_id.mountpoint == "/"
    assert found.writable_layer.inodes_used.value == 5
    assert found.cpu.psi.Some.Total == 3000
    assert found.io.psi.Full.Total == 4 * SECOND
    assert found.memory.psi.Some.Avg60 == 2.0


def test_zeros_of_a_created_container_are_sent() -> None:
    found = stats(EMPTY)
    assert found.cpu.HasField("usage_core_nano_seconds")
    assert not found.cpu.HasField("usage_nano_cores")
    for name in ("working_set_bytes", "available_bytes", "usage_bytes", "rss_bytes"):
        assert found.memory.HasField(name)
    assert found.swap.HasField("swap_usage_bytes")
    assert found.writable_layer.HasField("used_bytes")
    assert found.writable_layer.fs_id.mountpoint == "/graph"
    assert not found.HasField("io")


def test_a_pod() -> None:
    found = pod(POD)
    assert found.attributes.metadata.namespace == "n"
    assert found.linux.process.process_count.value == 3
    assert found.linux.network.default_interface.name == "eth0"
    assert found.linux.network.default_interface.rx_bytes.value == 3
    assert found.linux.network.default_interface.tx_errors.value == 6
    assert [item.name for item in found.linux.network.interfaces] == ["eth1"]
    assert [item.attributes.id for item in found.linux.containers] == ["c1"]


def test_a_pod_in_the_hosts_network_has_no_network() -> None:
    assert not pod(PodUsage("p1", GROUP, None, None, ())).linux.HasField("network")


def test_the_only_interface_is_the_default_one_whatever_its_name() -> None:
    network = (Interface("lo"), Interface("net1", 5))
    found = pod(PodUsage("p1", GROUP, None, network, ())).linux.network
    assert found.default_interface.name == "net1"
    assert not found.interfaces


# metrics

SUBJECT = metrics.Subject(
    *("c1", "k8s_web", "busybox", "web", "pod", "ns"),
    Settings(memory=64, cpu_quota=5000, cpu_shares=2),
    9 * SECOND,
)
POD_SUBJECT = metrics.Subject("p1", "k8s_POD", "", "", "pod", "ns")
WANTED = """
blkio_device_usage_total cpu_cfs_periods_total cpu_cfs_throttled_periods_total
cpu_cfs_throttled_seconds_total cpu_system_seconds_total cpu_usage_seconds_total
cpu_user_seconds_total file_descriptors fs_inodes_free fs_inodes_total fs_limit_bytes
fs_reads_bytes_total fs_reads_total fs_usage_bytes fs_writes_bytes_total fs_writes_total
last_seen memory_cache memory_failcnt memory_failures_total memory_kernel_usage
memory_mapped_file memory_max_usage_bytes memory_rss memory_swap memory_usage_bytes
memory_working_set_bytes oom_events_total processes sockets spec_cpu_period spec_cpu_shares
spec_memory_limit_bytes spec_memory_swap_limit_bytes start_time_seconds threads threads_max
hugetlb_max_usage_bytes hugetlb_usage_bytes spec_cpu_quota spec_memory_reservation_limit_bytes
ulimits_soft pressure_cpu_stalled_seconds_total pressure_cpu_waiting_seconds_total
pressure_io_stalled_seconds_total pressure_io_waiting_seconds_total
pressure_memory_stalled_seconds_total pressure_memory_waiting_seconds_total
""".split()
NETWORK_WANTED = [
    f"container_network_{way}_{what}_total"
    for way in ("receive", "transmit")
    for what in ("bytes", "errors", "packets", "packets_dropped")
]


def values(items: Any, name: str) -> dict[tuple[str, ...], int]:
    """Values of a metric by what its labels have beyond the common ones."""
    return {
        tuple(item.label_values)[6:]: item.value.value
        for item in items
        if item.name == f"container_{name}"
    }


def test_every_metric_is_there_and_described() -> None:
    described = {item.name: item for item in metrics.descriptors()}
    assert len(described) == len(metrics.descriptors())
    assert set(described) == {f"container_{name}" for name in WANTED} | set(NETWORK_WANTED)
    assert all(item.help and item.label_keys for item in described.values())
    found = metrics.pod_metrics(POD, POD_SUBJECT, [metrics.container_metrics(FULL, SUBJECT)])
    listed = [*found.metrics, *found.container_metrics[0].metrics]
    assert {item.name for item in listed} == set(described)
    for item in listed:
        assert len(item.label_values) == len(described[item.name].label_keys)
        assert item.timestamp == 0
        assert item.HasField("value")


def test_values_of_a_container() -> None:
    found = metrics.container_metrics(FULL, SUBJECT)
    assert found.container_id == "c1"
    first = found.metrics[0]
    assert list(first.label_values[:6]) == ["c1", "k8s_web", "busybox", "web", "pod", "ns"]
    items = found.metrics
    assert values(items, "cpu_usage_seconds_total") == {("total",): 5}
    assert values(items, "memory_working_set_bytes") == {(): 900}
    assert values(items, "oom_events_total") == {(): 2}
    assert values(items, "file_descriptors") == {(): 9}
    assert values(items, "fs_writes_bytes_total") == {("/dev/sda",): 200}
    assert values(items, "blkio_device_usage_total") == {
        ("/dev/sda", "8", "0", "Read"): 100,
        ("/dev/sda", "8", "0", "Write"): 200,
    }
    assert values(items, "pressure_io_stalled_seconds_total") == {(): 4}
    assert values(items, "pressure_io_waiting_seconds_total") == {(): 0}
    assert values(items, "spec_memory_swap_limit_bytes") == {(): 128}
    assert values(items, "spec_cpu_quota") == {(): 5000}
    assert values(items, "spec_cpu_shares") == {(): 2}
    assert values(items, "start_time_seconds") == {(): 9}
    assert values(items, "fs_usage_bytes") == {("/",): 4096}
    assert values(items, "fs_inodes_total")[("/",)] >= 0


def test_values_of_a_pod_itself() -> None:
    items = metrics.pod_metrics(POD, POD_SUBJECT, []).metrics
    assert values(items, "network_receive_bytes_total") == {("eth1",): 2, ("eth0",): 3}
    assert values(items, "network_transmit_packets_dropped_total") == {("eth1",): 7, ("eth0",): 7}
    assert values(items, "memory_usage_bytes") == {(): 1000}
    assert values(items, "spec_cpu_shares") == {}


def test_whose_metrics_they_are() -> None:
    pod = Pod("p1", 1, "boot", PodSpec("web", "uid", "ns", 1))
    container = Container(
        *(ContainerId("c1"), "k8s_a", 1, "busybox", ImageId("i"), {}, [], "lxc", ["true"]),
        Settings(),
        cri={"name": "a"},
    )
    container.state.started_ns = 5
    assert metrics.subject_of(pod).labels == ("p1", "k8s_POD_web_ns_uid_1", "", "", "web", "ns")
    found = metrics.subject_of(pod, container)
    assert found.labels == ("c1", "k8s_a", "busybox", "a", "web", "ns")
    assert (found.settings, found.started_ns) == (container.settings, 5)


def test_counters_and_gauges() -> None:
    kinds = {
        item.name: item.metric_type for item in metrics.container_metrics(FULL, SUBJECT).metrics
    }
    known = messages.enum("MetricType")
    assert kinds["container_cpu_usage_seconds_total"] == known["COUNTER"]
    assert kinds["container_memory_usage_bytes"] == known["GAUGE"]


# resources


def test_resources_both_ways() -> None:
    message = messages.LinuxContainerResources(
        cpu_period=100000,
        cpu_quota=5000,
        cpu_shares=2,
        memory_limit_in_bytes=64,
        memory_swap_limit_in_bytes=80,
        cpuset_cpus="0",
        cpuset_mems="0",
        hugepage_limits=[messages.HugepageLimit(page_size="2MB", limit=0)],
        unified={"memory.high": "5"},
    )
    assert resources.change(message) == ResourceChange(
        cpu_shares=2,
        cpu_period=100000,
        cpu_quota=5000,
        cpuset_cpus="0",
        cpuset_mems="0",
        memory=64,
        memory_swap=80,
        hugepages=(("2MB", 0),),
        unified={"memory.high": "5"},
    )
    settings = Settings(
        cpu_shares=2,
        cpu_period=100000,
        cpu_quota=5000,
        cpuset_cpus="0",
        cpuset_mems="0",
        memory=64,
        memory_swap=80,
        hugepages=[("2MB", 0)],
        unified={"memory.high": "5"},
    )
    assert resources.resources(settings) == message


def test_nothing_limited_is_an_empty_message() -> None:
    assert resources.resources(Settings()) == messages.LinuxContainerResources()
    assert resources.change(messages.LinuxContainerResources()) == ResourceChange()
