"""Contract of the runtimes: statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.rig import until

if TYPE_CHECKING:
    from tests.fakes.measuring import Measuring

# native: qemu-user refuses clone(2) with namespaces
pytestmark = [pytest.mark.root, pytest.mark.lxc, pytest.mark.native]

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
