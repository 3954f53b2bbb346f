"""Contract of the runtimes: limits, read back from the kernel's own files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.groups import leaf, read

if TYPE_CHECKING:
    from tests.rig import Engine

# native: qemu-user refuses clone(2) with namespaces
pytestmark = [pytest.mark.root, pytest.mark.lxc, pytest.mark.native]


def test_every_limit_stands_in_the_leaf_files(engine: Engine, runtime: str) -> None:
    engine.ok(
        *("run", "-d", "--name", "limited", "--runtime", runtime, "-m", "32m"),
        *("--cpus", "0.5", "--cpu-shares", "512", "--cpuset-cpus", "0", "--pids-limit", "37"),
        *("busybox", "sleep", "1000"),
    )
    pid = int(engine.state_of("limited")["Pid"])
    assert read(pid, "memory", "memory.limit_in_bytes", "memory.max") == str(32 << 20)
    assert read(pid, "pids", "pids.max", "pids.max") == "37"
    assert read(pid, "cpuset", "cpuset.cpus", "cpuset.cpus") == "0"
    folder = leaf(pid, "cpu")
    if (folder / "cpu.cfs_quota_us").exists():
        assert (folder / "cpu.cfs_quota_us").read_text().strip() == "50000"
        assert (folder / "cpu.cfs_period_us").read_text().strip() == "100000"
        assert (folder / "cpu.shares").read_text().strip() == "512"
    else:
        assert (folder / "cpu.max").read_text().split() == ["50000", "100000"]
        assert (folder / "cpu.weight").read_text().strip() == "20"


def test_a_container_that_eats_too_much_is_killed_and_says_so(engine: Engine, runtime: str) -> None:
    # tail keeps a line whole, and this one does not end
    result = engine.isula(
        *("run", "--name", "eater", "--runtime", runtime, "-m", "16m", "busybox"),
        *("sh", "-c", "exec tail -n 1 /dev/zero"),
    )
    assert result.code == 137
    state = engine.state_of("eater")
    assert (state["ExitCode"], state["OOMKilled"]) == (137, True)


def test_no_more_processes_than_allowed(engine: Engine, runtime: str) -> None:
    # runc's own threads count too until the program runs
    script = "for i in $(seq 40); do sleep 5 & done; echo never"
    result = engine.isula(
        *("run", "--rm", "--runtime", runtime, "--pids-limit", "25"),
        *("busybox", "sh", "-c", script),
    )
    assert "never" not in result.out
    assert "can't fork" in result.err


def test_cgroups_go_with_the_container(engine: Engine, runtime: str) -> None:
    engine.ok("run", "-d", "--name", "short", "--runtime", runtime, "busybox", "sleep", "1000")
    pid = int(engine.state_of("short")["Pid"])
    folders = [leaf(pid, name) for name in ("memory", "pids", "cpu", "freezer")]
    assert all(folder.is_dir() for folder in folders)
    engine.ok("rm", "-f", "short")
    assert not any(folder.exists() for folder in folders)
