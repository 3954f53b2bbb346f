"""Counters of a group, from trees that hold what kernels write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isula_edge.cgroup import Host, stats
from isula_edge.cgroup.stats import (
    Details,
    Device,
    GroupStats,
    HugePages,
    Pressure,
    Stall,
    read_stats,
    total,
)

if TYPE_CHECKING:
    from pathlib import Path

GROUP = "kubepods/pod1/0123"
UNLIMITED = "9223372036854771712"
PRESSURE = (
    "some avg10=1.50 avg60=0.25 avg300=0.00 total=1234\n"
    "full avg10=0.50 avg60=0.00 avg300=0.00 total=34\n"
)
STALL = Stall(Pressure(1234000, 1.5, 0.25, 0.0), Pressure(34000, 0.5, 0.0, 0.0))

V1 = {
    "cpuacct/cpuacct.usage": "5000000123\n",
    "cpuacct/cpuacct.stat": "user 300\nsystem 200\n",
    "cpu/cpu.stat": "nr_periods 40\nnr_throttled 30\nthrottled_time 777\n",
    "memory/memory.usage_in_bytes": "9000\n",
    "memory/memory.limit_in_bytes": "20000\n",
    "memory/memory.memsw.limit_in_bytes": "25000\n",
    "memory/memory.max_usage_in_bytes": "12000\n",
    "memory/memory.kmem.usage_in_bytes": "55\n",
    "memory/memory.failcnt": "3\n",
    "memory/memory.memsw.failcnt": "4\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "memory/memory.stat": (
        "cache 1\nrss 2\ntotal_cache 700\ntotal_rss 600\ntotal_mapped_file 50\n"
        "total_pgfault 11\ntotal_pgmajfault 1\ntotal_inactive_file 400\ntotal_swap 66\n"
    ),
    "pids/pids.current": "7\n",
    "pids/pids.max": "max\n",
    "blkio/blkio.throttle.io_service_bytes": (
        "8:0 Read 100\n8:0 Write 200\n8:0 Sync 1\n8:0 Total 300\nTotal 300\n"
    ),
    "blkio/blkio.throttle.io_serviced": "8:0 Read 10\n8:0 Write 20\nTotal 30\n",
    "hugetlb/hugetlb.2MB.usage_in_bytes": "2097152\n",
    "hugetlb/hugetlb.2MB.max_usage_in_bytes": "4194304\n",
}
V2 = {
    "cpu.stat": (
        "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\n"
        "nr_periods 40\nnr_throttled 30\nthrottled_usec 7\n"
    ),
    "memory.current": "9000\n",
    "memory.max": "20000\n",
    "memory.peak": "12000\n",
    "memory.swap.current": "66\n",
    "memory.swap.max": "5000\n",
    "memory.events": "low 0\nhigh 0\nmax 3\noom 2\noom_kill 2\n",
    "memory.stat": (
        "anon 600\nfile 700\nkernel 55\nfile_mapped 50\ninactive_file 400\n"
        "pgfault 11\npgmajfault 1\n"
    ),
    "pids.current": "7\n",
    "pids.max": "100\n",
    "io.stat": "8:0 rbytes=100 wbytes=200 rios=10 wios=20 dbytes=0 dios=0\n7:1\n",
    "hugetlb.2MB.current": "2097152\n",
    "cpu.pressure": PRESSURE,
    "memory.pressure": PRESSURE,
    "io.pressure": PRESSURE,
}
DEVICE = Device(8, 0, "disk", 100, 200, 10, 20)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "page_sizes", lambda: ("2MB",))
    monkeypatch.setattr(stats, "_device_name", lambda number: "disk")
    monkeypatch.setattr("os.sysconf", lambda name: 100)


def fill(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def v1(tmp_path: Path, changes: dict[str, str] | None = None) -> Host:
    names = ("cpu", "cpuacct", "memory", "pids", "blkio", "hugetlb")
    for path, text in {**V1, **(changes or {})}.items():
        controller, _, name = path.partition("/")
        fill(tmp_path / controller / GROUP, {name: text})
    return Host("1", {name: str(tmp_path / name) for name in names})


def v2(tmp_path: Path, changes: dict[str, str] | None = None) -> Host:
    fill(tmp_path / GROUP, {**V2, **(changes or {})})
    return Host("2", dict.fromkeys(("cpu", "memory", "pids", "io", "hugetlb", ""), str(tmp_path)))


def known(found: GroupStats | None) -> GroupStats:
    assert found is not None
    return found


def test_version_1(tmp_path: Path) -> None:
    found = known(read_stats(v1(tmp_path), GROUP))
    assert found.taken_ns > 0
    assert found == GroupStats(
        taken_ns=found.taken_ns,
        cpu_ns=5000000123,
        memory_usage=9000,
        memory_working_set=8600,
        memory_limit=20000,
        memory_rss=600,
        memory_cache=700,
        memory_mapped_file=50,
        page_faults=11,
        major_page_faults=1,
        swap_usage=66,
        swap_limit=5000,
        pids=7,
    )


def test_version_2(tmp_path: Path) -> None:
    found = known(read_stats(v2(tmp_path), GROUP))
    assert found == GroupStats(
        taken_ns=found.taken_ns,
        cpu_ns=5_000_000,
        memory_usage=9000,
        memory_working_set=8600,
        memory_limit=20000,
        memory_rss=600,
        memory_cache=700,
        memory_mapped_file=50,
        page_faults=11,
        major_page_faults=1,
        swap_usage=66,
        swap_limit=5000,
        pids=7,
        cpu_stall=STALL,
        memory_stall=STALL,
        io_stall=STALL,
    )


def test_details_of_version_1(tmp_path: Path) -> None:
    assert known(read_stats(v1(tmp_path), GROUP, detailed=True)).details == Details(
        cpu_user_ns=3 * 10**9,
        cpu_system_ns=2 * 10**9,
        periods=40,
        throttled_periods=30,
        throttled_ns=777,
        memory_max_usage=12000,
        memory_failures=7,
        memory_kernel=55,
        oom_kills=2,
        devices=(DEVICE,),
        huge_pages=(HugePages("2MB", 2 << 20, 4 << 20),),
    )


def test_details_of_version_2(tmp_path: Path) -> None:
    assert known(read_stats(v2(tmp_path), GROUP, detailed=True)).details == Details(
        cpu_user_ns=3_000_000,
        cpu_system_ns=2_000_000,
        periods=40,
        throttled_periods=30,
        throttled_ns=7000,
        memory_max_usage=12000,
        memory_failures=3,
        memory_kernel=55,
        oom_kills=2,
        pids_max=100,
        devices=(DEVICE,),
        huge_pages=(HugePages("2MB", 2 << 20, 0),),
    )


def test_pressure_of_a_hybrid_machine_is_in_the_unified_hierarchy(tmp_path: Path) -> None:
    legacy = v1(tmp_path / "legacy")
    fill(tmp_path / "unified" / GROUP, {"memory.pressure": PRESSURE})
    host = Host("hybrid", {**legacy.mounts, "": str(tmp_path / "unified")})
    found = known(read_stats(host, GROUP))
    assert (found.cpu_stall, found.memory_stall) == (None, STALL)
    assert found.memory_usage == 9000


def test_no_limit_is_none_in_either_version(tmp_path: Path) -> None:
    names = ("memory/memory.limit_in_bytes", "memory/memory.memsw.limit_in_bytes")
    found = known(read_stats(v1(tmp_path / "1", dict.fromkeys(names, UNLIMITED)), GROUP))
    assert (found.memory_limit, found.swap_limit) == (None, None)
    host = v2(tmp_path / "2", dict.fromkeys(("memory.max", "memory.swap.max"), "max\n"))
    found = known(read_stats(host, GROUP))
    assert (found.memory_limit, found.swap_limit) == (None, None)


def test_no_swap_is_a_limit_of_0(tmp_path: Path) -> None:
    found = known(read_stats(v2(tmp_path, {"memory.swap.max": "0\n"}), GROUP))
    assert found.swap_limit == 0


def test_the_working_set_is_never_less_than_nothing(tmp_path: Path) -> None:
    found = known(read_stats(v2(tmp_path, {"memory.current": "100\n"}), GROUP))
    assert found.memory_working_set == 0


def test_older_kernels_tell_only_parts_of_their_memory(tmp_path: Path) -> None:
    host = v2(tmp_path, {"memory.stat": "kernel_stack 5\nslab 10\nsock 1\n"})
    details = known(read_stats(host, GROUP, detailed=True)).details
    assert details is not None
    assert details.memory_kernel == 16


def test_what_a_machine_lacks_is_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "pids" / GROUP, {"pids.current": "2\n"})
    found = known(read_stats(Host("1", {"pids": str(tmp_path / "pids")}), GROUP, detailed=True))
    assert found == GroupStats(taken_ns=found.taken_ns, pids=2, details=Details())


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_group_that_is_not_there_is_none(tmp_path: Path, version: str) -> None:
    assert read_stats(Host(version, {"memory": str(tmp_path)}), GROUP) is None


def test_a_group_below_that_of_process_1(tmp_path: Path) -> None:
    fill(tmp_path / "init" / GROUP, {"pids.current": "4\n"})
    host = Host("1", {"pids": str(tmp_path)}, {"pids": "init"})
    assert known(read_stats(host, GROUP)).pids == 4


def test_the_sum_of_several_groups() -> None:
    parts = [
        GroupStats(taken_ns=5, cpu_ns=1, memory_usage=10, memory_limit=3, pids=1, cpu_stall=STALL),
        GroupStats(taken_ns=9, cpu_ns=2, memory_usage=20, pids=2),
    ]
    assert total(parts) == GroupStats(taken_ns=9, cpu_ns=3, memory_usage=30, pids=3)
    assert total([]) == GroupStats()


@pytest.mark.parametrize(
    ("kilobytes", "size"), [(64, "64KB"), (2048, "2MB"), (32768, "32MB"), (1048576, "1GB")]
)
def test_sizes_of_huge_pages_as_the_controller_writes_them(kilobytes: int, size: str) -> None:
    assert stats._page_size(kilobytes) == size
