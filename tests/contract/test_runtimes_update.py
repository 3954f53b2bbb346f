"""Contract of the runtimes: new limits, read back from the kernel's own files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.kernel import Live, cgroup_layout
from tests.groups import leaf, read

if TYPE_CHECKING:
    from tests.fakes.measuring import Measuring

# native: qemu-user refuses clone(2) with namespaces
pytestmark = [pytest.mark.root, pytest.mark.lxc, pytest.mark.native]

MIB = 1 << 20
V2 = cgroup_layout(Live()).version == "v2"


def sleeper(measuring: Measuring, runtime: str, *words: str, run: str = "run") -> None:
    flags = ("-d",) if run == "run" else ()
    measuring.ok(
        *(run, *flags, "--name", "box", "--runtime", runtime, *words, "busybox", "sleep", "1000")
    )


def update(measuring: Measuring, **change: Any) -> None:
    measuring.call("update", ref="box", change=change)


def pid(measuring: Measuring) -> int:
    return int(measuring.state_of("box")["Pid"])


def memory(measuring: Measuring) -> tuple[int, int]:
    """Limits of memory, and of memory and swap together, as the kernel has them."""
    limit = int(read(pid(measuring), "memory", "memory.limit_in_bytes", "memory.max"))
    swap = int(read(pid(measuring), "memory", "memory.memsw.limit_in_bytes", "memory.swap.max"))
    return limit, swap + limit if V2 else swap


def quota(measuring: Measuring) -> tuple[str, str]:
    folder = leaf(pid(measuring), "cpu")
    if (folder / "cpu.max").exists():
        words = (folder / "cpu.max").read_text().split()
        return words[0], words[1]
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    found = [(folder / name).read_text().strip() for name in names]
    return found[0], found[1]


def test_every_limit_changes_at_once_and_stays(measuring: Measuring, runtime: str) -> None:
    sleeper(measuring, runtime, "-m", "32m")
    update(
        measuring,
        cpu_shares=2,
        cpu_period=50_000,
        cpu_quota=20_000,
        cpuset_cpus="0",
        cpuset_mems="0",
        memory=48 * MIB,
        memory_swap=80 * MIB,
        pids_limit=33,
    )

    def check() -> None:
        assert memory(measuring) == (48 * MIB, 80 * MIB)
        assert quota(measuring) == ("20000", "50000")
        assert read(pid(measuring), "cpu", "cpu.shares", "cpu.weight") == ("1" if V2 else "2")
        assert read(pid(measuring), "cpuset", "cpuset.cpus", "cpuset.cpus") == "0"
        assert read(pid(measuring), "cpuset", "cpuset.mems", "cpuset.mems") == "0"
        assert read(pid(measuring), "pids", "pids.max", "pids.max") == "33"

    check()
    (path,) = measuring.graph.glob(f"engines/{runtime}/*/config.json")
    described = json.loads(path.read_text())["linux"]["resources"]
    assert described["memory"] == {"limit": 48 * MIB, "swap": 80 * MIB}
    assert described["devices"]
    measuring.restart()
    check()
    measuring.ok("restart", "-t", "0", "box")
    check()


def test_a_created_container_starts_with_its_new_limits(measuring: Measuring, runtime: str) -> None:
    sleeper(measuring, runtime, run="create")
    update(measuring, memory=24 * MIB, cpu_quota=30_000)
    measuring.ok("start", "box")
    assert memory(measuring) == (24 * MIB, 48 * MIB)
    assert quota(measuring)[0] == "30000"


def test_more_memory_than_with_swap_is_refused_and_nothing_changes(
    measuring: Measuring, runtime: str
) -> None:
    sleeper(measuring, runtime, "-m", "32m", "--memory-swap", "32m")
    with pytest.raises(errors.InvalidArgument, match="update the memoryswap at the same time"):
        update(measuring, memory=64 * MIB, pids_limit=44)
    assert memory(measuring) == (32 * MIB, 32 * MIB)
    assert read(pid(measuring), "pids", "pids.max", "pids.max") == "max"


def test_all_or_nothing_when_the_kernel_refuses_one(measuring: Measuring, runtime: str) -> None:
    sleeper(measuring, runtime, "-m", "64m", "--memory-swap", "64m", "--cpu-quota", "20000")
    measuring.ok("exec", "box", "sh", "-c", "head -c 33554432 /dev/zero >/dev/shm/x")
    with pytest.raises(errors.FailedPrecondition, match=r"memory\.\S+ to 8388608"):
        # 32 MiB of a tmpfs without swap cannot be reclaimed
        update(measuring, cpu_quota=30_000, pids_limit=55, memory=8 * MIB, memory_swap=8 * MIB)
    assert quota(measuring)[0] == "20000"
    assert read(pid(measuring), "pids", "pids.max", "pids.max") == "max"
    assert memory(measuring) == (64 * MIB, 64 * MIB)
    assert measuring.state_of("box")["Running"]
    measuring.ok("restart", "-t", "0", "box")
    assert memory(measuring) == (64 * MIB, 64 * MIB)


def test_a_paused_container_takes_limits_too(measuring: Measuring, runtime: str) -> None:
    sleeper(measuring, runtime)
    measuring.ok("pause", "box")
    update(measuring, pids_limit=66)
    number = pid(measuring)
    assert read(number, "pids", "pids.max", "pids.max") == "66"
    measuring.ok("unpause", "box")
