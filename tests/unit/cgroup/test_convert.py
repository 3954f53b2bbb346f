"""From resources of the runtime-spec to files of either cgroup version."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isula_edge.cgroup import CgroupFile, device_rules, resource_files
from isula_edge.cgroup.convert import cpu_weight

MIB = 1 << 20
DEVICE = {"major": 8, "minor": 16}


def files(resources: dict[str, Any], version: str) -> list[tuple[str, str]]:
    """(name, value) of each file, whose controller the name must begin with."""
    found = resource_files(resources, version)
    for file in found:
        assert file.name.partition(".")[0] == file.controller
    return [(file.name, file.value) for file in found]


# resources, files of version 1, files of version 2
TABLE: dict[str, tuple[dict[str, Any], list[tuple[str, str]], list[tuple[str, str]]]] = {
    "nothing": ({}, [], []),
    "empty parts": (
        {"memory": None, "cpu": {}, "pids": None, "blockIO": {}, "hugepageLimits": None}, [], [],
    ),
    "memory": (
        {"memory": {"limit": 64 * MIB}},
        [("memory.limit_in_bytes", "67108864")],
        [("memory.max", "67108864")],
    ),
    "memory and swap together": (
        {"memory": {"limit": 64 * MIB, "swap": 96 * MIB}},
        [("memory.limit_in_bytes", "67108864"), ("memory.memsw.limit_in_bytes", "100663296")],
        [("memory.max", "67108864"), ("memory.swap.max", "33554432")],
    ),
    "no swap": (
        {"memory": {"limit": 64 * MIB, "swap": 64 * MIB}},
        [("memory.limit_in_bytes", "67108864"), ("memory.memsw.limit_in_bytes", "67108864")],
        [("memory.max", "67108864"), ("memory.swap.max", "0")],
    ),
    "endless swap": (
        {"memory": {"limit": 64 * MIB, "swap": -1}},
        [("memory.limit_in_bytes", "67108864"), ("memory.memsw.limit_in_bytes", "-1")],
        [("memory.max", "67108864"), ("memory.swap.max", "max")],
    ),
    "endless memory": (
        {"memory": {"limit": -1, "swap": -1}},
        [("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "-1")],
        [("memory.max", "max"), ("memory.swap.max", "max")],
    ),
    "reservation": (
        {"memory": {"reservation": 32 * MIB}},
        [("memory.soft_limit_in_bytes", "33554432")],
        [("memory.low", "33554432")],
    ),
    "swappiness": ({"memory": {"swappiness": 0}}, [("memory.swappiness", "0")], []),
    "no OOM killer": (
        {"memory": {"disableOOMKiller": True}}, [("memory.oom_control", "1")], [],
    ),
    "OOM killer": ({"memory": {"disableOOMKiller": False}}, [], []),
    "kernel memory": (
        {"memory": {"kernel": 5 * MIB}}, [("memory.kmem.limit_in_bytes", "5242880")], [],
    ),
    "shares": ({"cpu": {"shares": 1024}}, [("cpu.shares", "1024")], [("cpu.weight", "39")]),
    "quota": (
        {"cpu": {"quota": 50_000, "period": 200_000}},
        [("cpu.cfs_period_us", "200000"), ("cpu.cfs_quota_us", "50000")],
        [("cpu.max", "50000 200000")],
    ),
    "quota alone": (
        {"cpu": {"quota": 50_000}}, [("cpu.cfs_quota_us", "50000")], [("cpu.max", "50000 100000")],
    ),
    "no quota": (
        {"cpu": {"quota": -1}}, [("cpu.cfs_quota_us", "-1")], [("cpu.max", "max 100000")],
    ),
    "period alone": (
        {"cpu": {"period": 50_000}}, [("cpu.cfs_period_us", "50000")], [("cpu.max", "max 50000")],
    ),
    "real time": (
        {"cpu": {"realtimeRuntime": 5, "realtimePeriod": 9}},
        [("cpu.rt_period_us", "9"), ("cpu.rt_runtime_us", "5")],
        [],
    ),
    "cpuset": (
        {"cpu": {"cpus": "0-1", "mems": "0"}},
        [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
        [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
    ),
    "pids": ({"pids": {"limit": 9}}, [("pids.max", "9")], [("pids.max", "9")]),
    "endless pids": ({"pids": {"limit": -1}}, [("pids.max", "max")], [("pids.max", "max")]),
    "weight": (
        {"blockIO": {"weight": 500}}, [("blkio.weight", "500")], [("io.weight", "default 4950")],
    ),
    "throttle": (
        {
            "blockIO": {
                "throttleReadBpsDevice": [{**DEVICE, "rate": 1}],
                "throttleWriteBpsDevice": [{**DEVICE, "rate": 2}, {**DEVICE, "rate": 3}],
                "throttleReadIOPSDevice": [{**DEVICE, "rate": 4}],
                "throttleWriteIOPSDevice": [{**DEVICE, "rate": 5}],
            }
        },
        [
            ("blkio.throttle.read_bps_device", "8:16 1"),
            ("blkio.throttle.write_bps_device", "8:16 2"),
            ("blkio.throttle.write_bps_device", "8:16 3"),
            ("blkio.throttle.read_iops_device", "8:16 4"),
            ("blkio.throttle.write_iops_device", "8:16 5"),
        ],
        [
            ("io.max", "8:16 rbps=1"),
            ("io.max", "8:16 wbps=2"),
            ("io.max", "8:16 wbps=3"),
            ("io.max", "8:16 riops=4"),
            ("io.max", "8:16 wiops=5"),
        ],
    ),
    "huge pages": (
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 4}, {"pageSize": "1GB", "limit": 0}]},
        [("hugetlb.2MB.limit_in_bytes", "4"), ("hugetlb.1GB.limit_in_bytes", "0")],
        [("hugetlb.2MB.max", "4"), ("hugetlb.1GB.max", "0")],
    ),
    "burst": (
        {"cpu": {"quota": 9000, "burst": 5000}},
        [("cpu.cfs_quota_us", "9000"), ("cpu.cfs_burst_us", "5000")],
        [("cpu.max", "9000 100000"), ("cpu.max.burst", "5000")],
    ),
    "idle": ({"cpu": {"idle": 1}}, [("cpu.idle", "1")], [("cpu.idle", "1")]),
    "not idle": ({"cpu": {"idle": 0}}, [], []),
    "buffers of TCP": (
        {"memory": {"kernelTCP": 5}}, [("memory.kmem.tcp.limit_in_bytes", "5")], [],
    ),
    "weights of devices": (
        {"blockIO": {"leafWeight": 10, "weightDevice": [{**DEVICE, "weight": 20},
                                                        {**DEVICE, "leafWeight": 30}]}},
        [("blkio.weight_device", "8:16 20"), ("blkio.leaf_weight", "10"),
         ("blkio.leaf_weight_device", "8:16 30")],
        [],
    ),
    "network": (
        {"network": {"classID": 5, "priorities": [{"name": "eth0", "priority": 7}]}},
        [("net_cls.classid", "5"), ("net_prio.ifpriomap", "eth0 7")],
        [],
    ),
    "rdma": (
        {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 0}, "rxe3": {"hcaObjects": 7}}},
        [("rdma.max", "mlx5_1 hca_handle=3 hca_object=0"), ("rdma.max", "rxe3 hca_object=7")],
        [("rdma.max", "mlx5_1 hca_handle=3 hca_object=0"), ("rdma.max", "rxe3 hca_object=7")],
    ),
    "files of version 2 by name": (
        {"unified": {"memory.high": "5", "io.weight": "10"}},
        [],
        [("memory.high", "5"), ("io.weight", "10")],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("resources", "v1", "v2"), TABLE.values(), ids=TABLE)
def test_files_of_both_versions(
    resources: dict[str, Any], v1: list[tuple[str, str]], v2: list[tuple[str, str]]
) -> None:
    assert files(resources, "1") == v1
    assert files(resources, "hybrid") == v1
    assert files(resources, "2") == v2


def test_the_controller_is_what_a_hierarchy_is_called() -> None:
    assert resource_files({"blockIO": {"weight": 10}}, "1")[0].controller == "blkio"
    assert resource_files({"blockIO": {"weight": 10}}, "2") == [
        CgroupFile("io", "io.weight", "default 1")
    ]


def test_memory_is_limited_before_memory_and_swap() -> None:
    """The kernel refuses a memsw limit below the memory limit, which starts without bounds."""
    names = [name for name, _ in files({"memory": {"swap": 9, "limit": 5}}, "1")]
    assert names == ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]


def test_the_period_comes_before_the_quota() -> None:
    names = [name for name, _ in files({"cpu": {"quota": 9, "period": 5}}, "1")]
    assert names == ["cpu.cfs_period_us", "cpu.cfs_quota_us"]


def test_an_endless_reservation_is_max() -> None:
    assert files({"memory": {"reservation": -1}}, "2") == [("memory.low", "max")]


def test_swap_without_a_memory_limit_is_not_one_byte_more() -> None:
    found = dict(files({"memory": {"limit": -1, "swap": 1000}}, "2"))
    assert found.get("memory.swap.max") in (None, "max", "1000")


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(0, 1), (1, 1), (2, 1), (1024, 39), (262144, 10000), (10**9, 10000)],
)
def test_shares_and_weights_that_runtimes_agree_on(shares: int, weight: int) -> None:
    assert cpu_weight(shares) == weight


@given(st.integers(-5, 10**6), st.integers(0, 10**6))
def test_more_shares_are_never_less_weight(shares: int, more: int) -> None:
    weight = cpu_weight(shares)
    assert 1 <= weight <= 10000
    assert cpu_weight(shares + more) >= weight


@given(st.integers(10, 1000))
def test_block_weights_stay_in_range(weight: int) -> None:
    ((_, value),) = files({"blockIO": {"weight": weight}}, "2")
    word, number = value.split()
    assert word == "default"
    assert 1 <= int(number) <= 10000


LIMIT = st.integers(-1, 2**50)
RESOURCES = st.fixed_dictionaries(
    {},
    optional={
        "memory": st.fixed_dictionaries({}, optional={"limit": LIMIT, "swap": LIMIT}),
        "cpu": st.fixed_dictionaries(
            {}, optional={"shares": st.integers(0, 2**18), "quota": LIMIT, "period": LIMIT}
        ),
        "pids": st.fixed_dictionaries({"limit": LIMIT}),
    },
)


@given(RESOURCES, st.sampled_from(["1", "hybrid", "2"]))
def test_values_are_one_line_and_never_a_negative_number_but_minus_one(
    resources: dict[str, Any], version: str
) -> None:
    for file in resource_files(resources, version):
        words = file.value.split(" ")
        assert all(word == "max" or int(word) >= -1 for word in words)
        if version == "2" and file.name != "cpu.max":
            assert not file.value.startswith("-")
        assert "\n" not in file.value


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"allow": False, "access": "rwm"}, ("deny", "a")),
        ({"allow": True, "access": "rwm"}, ("allow", "a")),
        ({"allow": True, "type": "a"}, ("allow", "a")),
        (
            {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
            ("allow", "c 1:3 rw"),
        ),
        ({"allow": True, "type": "b", "major": 8, "access": "r"}, ("allow", "b 8:* r")),
        ({"allow": True, "type": "c", "access": "m"}, ("allow", "c *:* m")),
        ({"allow": False, "type": "c", "minor": 5}, ("deny", "c *:5 rwm")),
        (
            {"allow": True, "type": "c", "major": -1, "minor": -1, "access": "r"},
            ("allow", "c *:* r"),
        ),
        # 0 is a number as any other
        (
            {"allow": True, "type": "c", "major": 0, "minor": 0, "access": "r"},
            ("allow", "c 0:0 r"),
        ),
        ({"type": "c", "major": 1, "minor": 1, "access": "r"}, ("deny", "c 1:1 r")),
    ],
)
def test_rules_for_devices(rule: dict[str, Any], expected: tuple[str, str]) -> None:
    assert device_rules({"devices": [rule]}) == [expected]


def test_rules_for_devices_keep_their_order() -> None:
    rules = [{"allow": False}, {"allow": True, "type": "c", "access": "m"}]
    assert device_rules({"devices": rules}) == [("deny", "a"), ("allow", "c *:* m")]
    assert device_rules({}) == []
    assert device_rules({"devices": None}) == []
