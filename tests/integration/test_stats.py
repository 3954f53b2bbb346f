"""Statistics of real containers and pods."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge.cgroup.pods import make_group, remove_groups
from isula_edge.service.engine import _cgroup_host
from tests.rig import NetworkNamespace, until

if TYPE_CHECKING:
    from tests.fakes.measuring import Measuring

pytestmark = [pytest.mark.root, pytest.mark.lxc]

MIB = 1 << 20


def start(engine: Measuring, runtime: str, name: str, script: str, *words: str) -> None:
    engine.ok(
        *("run", "-d", "--name", name, "--runtime", runtime, *words),
        *("busybox", "sh", "-c", f"{script}; sleep 1000"),
    )


def stats(engine: Measuring, *refs: str, detailed: bool = False) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = engine.call("stats", refs=list(refs), detailed=detailed)["items"]
    return found


def one(engine: Measuring, detailed: bool = False) -> dict[str, Any]:
    return stats(engine, "box", detailed=detailed)[0]


def test_what_a_container_uses(measuring: Measuring, runtime: str) -> None:
    script = "head -c 4194304 /dev/zero >/dev/shm/x; for i in $(seq 3); do sleep 999 & done"
    start(measuring, runtime, "box", script, "-m", "64m", "--memory-swap", "96m")
    until(lambda: one(measuring)["group"]["pids"] == 4, "four processes")
    found = one(measuring)
    group = found["group"]
    assert group["taken_ns"] > 0
    assert 0 < group["cpu_ns"] < 60 * 10**9
    assert group["memory_limit"] == 64 * MIB
    assert group["swap_limit"] == 32 * MIB
    assert 4 * MIB <= group["memory_usage"] < 64 * MIB
    assert 0 < group["memory_working_set"] <= group["memory_usage"]
    assert 0 < group["memory_rss"] < group["memory_usage"]
    assert group["memory_cache"] >= 4 * MIB
    assert group["page_faults"] > 0
    assert found["layer"]["mountpoint"] == f"{measuring.graph}/storage/overlay"
    assert group["details"] is None


def test_details_of_a_busy_container(measuring: Measuring, runtime: str) -> None:
    script = "while :; do :; done"
    start(measuring, runtime, "box", script, "--cpu-quota", "20000", "--pids-limit", "50")
    until(
        lambda: one(measuring, detailed=True)["group"]["details"]["throttled_periods"] > 2,
        "throttled periods",
    )
    found = one(measuring, detailed=True)
    details = found["group"]["details"]
    assert details["periods"] >= details["throttled_periods"] > 0
    assert details["throttled_ns"] > 0
    assert details["cpu_user_ns"] > 0
    assert details["pids_max"] == 50
    assert details["memory_max_usage"] >= found["group"]["memory_usage"] // 2
    assert found["open"]["processes"] == 1
    assert found["open"]["files"] >= 3
    assert found["max_files"] > 0
    # a fifth of a CPU, whatever else the machine does
    until(lambda: one(measuring)["nano_cores"], "a rate since the sample before")
    assert one(measuring)["nano_cores"] < 10**9


def test_a_killed_process_counts(measuring: Measuring, runtime: str) -> None:
    script = "tail -n 1 /dev/zero"
    start(measuring, runtime, "box", script, "-m", "16m", "--memory-swap", "16m")
    until(
        lambda: one(measuring, detailed=True)["group"]["details"]["oom_kills"] > 0, "an OOM kill"
    )


def test_the_writable_layer_is_measured_again(measuring: Measuring, runtime: str) -> None:
    script = "head -c 3145728 /dev/urandom >/big; for i in 1 2 3 4 5; do : >/f$i; done; : >/done"
    start(measuring, runtime, "box", script)
    until(lambda: measuring.isula("exec", "box", "test", "-e", "/done").code == 0, "files")
    size = one(measuring)["layer"]["size"]
    assert size["bytes"] >= 3 * MIB
    assert size["inodes"] >= 8


def test_a_created_container_has_zeros(measuring: Measuring, runtime: str) -> None:
    measuring.ok("create", "--name", "box", "--runtime", runtime, "busybox", "true")
    found = one(measuring, detailed=True)
    assert found["group"]["taken_ns"] > 0
    assert found["group"]["cpu_ns"] == found["group"]["memory_usage"] == 0
    assert found["nano_cores"] is None


def test_many_at_once(measuring: Measuring) -> None:
    names = [f"box{number}" for number in range(4)]
    for name in names:
        start(measuring, "lxc", name, ":")
    found = stats(measuring, *names)
    ids = [measuring.inspect(name)["Id"] for name in names]
    assert [item["id"] for item in found] == ids
    assert all(item["group"]["memory_usage"] > 0 for item in found)


def test_a_pod_is_its_cgroup_and_its_network(measuring: Measuring, runtime: str) -> None:
    host = _cgroup_host()
    top = f"isula-test-{os.getpid()}"
    parent = f"/{top}/besteffort/podx"
    made = make_group(host, parent)
    network = NetworkNamespace()
    try:
        with network.make(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
            sender.bind(("127.0.0.1", 0))
            for _ in range(3):
                sender.sendto(b"x" * 100, sender.getsockname())
        start(measuring, runtime, "box", ":", "--cgroup-parent", parent)
        start(measuring, runtime, "other", ":", "--cgroup-parent", parent)
        found = measuring.call(
            "pod", refs=["box", "other"], parent=parent, network=f"/run/netns/{network.name}"
        )
        one, two = (item["group"] for item in found["containers"])
        assert found["group"]["pids"] == one["pids"] + two["pids"]
        assert found["group"]["memory_usage"] >= max(one["memory_usage"], two["memory_usage"])
        (lo,) = found["network"]
        assert lo["name"] == "lo"
        assert lo["rx_packets"] == lo["tx_packets"] == 3
        # with the headers of UDP and IP
        assert lo["rx_bytes"] == lo["tx_bytes"] == 3 * (100 + 8 + 20)
        measuring.remove_containers()
    finally:
        network.remove()
        remove_groups(made)
    assert not [mount for mount in host.mounts.values() if Path(mount, top).exists()]


def test_a_pod_without_a_cgroup_of_its_own_is_the_sum(measuring: Measuring) -> None:
    start(measuring, "lxc", "box", ":")
    found = measuring.call("pod", refs=["box"], parent="", network=None)
    assert found["network"] is None
    assert found["group"]["pids"] == found["containers"][0]["group"]["pids"] == 1


def test_a_network_namespace_that_is_gone_is_none(measuring: Measuring) -> None:
    found = measuring.call("pod", refs=[], parent="", network="/run/netns/isula-test-absent")
    assert found["network"] is None
    assert found["group"]["memory_usage"] == 0
