"""Statistics of real containers and pods."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge.cgroup.pods import make_group, remove_groups
from isula_edge.service.engine import _cgroup_host
from tests.rig import NetworkNamespace

if TYPE_CHECKING:
    from tests.fakes.measuring import Measuring

pytestmark = [pytest.mark.root, pytest.mark.lxc]


def start(engine: Measuring, runtime: str, name: str, script: str, *words: str) -> None:
    engine.ok(
        *("run", "-d", "--name", name, "--runtime", runtime, *words),
        *("busybox", "sh", "-c", f"{script}; sleep 1000"),
    )


def stats(engine: Measuring, *refs: str, detailed: bool = False) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = engine.call("stats", refs=list(refs), detailed=detailed)["items"]
    return found


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
