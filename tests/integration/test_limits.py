"""Limits, read back from the kernel's own files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isula_edge.kernel import Live, cgroup_layout

if TYPE_CHECKING:
    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]


def leaf(pid: int, controller: str) -> Path:
    """The directory of a process's cgroup in the hierarchy of ``controller``."""
    groups = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    for _, names, path in groups:
        if controller in names.split(","):
            return (
                Path("/sys/fs/cgroup", names) / path.lstrip("/")
                if not (Path("/sys/fs/cgroup") / controller).exists()
                else Path("/sys/fs/cgroup", controller) / path.lstrip("/")
            )
    path = next(path for number, names, path in groups if number == "0" and not names)
    return Path("/sys/fs/cgroup") / path.lstrip("/")


def read(pid: int, controller: str, v1: str, v2: str) -> str:
    """Text of the leaf file that holds a limit, whichever hierarchy the controller is in."""
    folder = leaf(pid, controller)
    for name in (v1, v2):
        if (folder / name).exists():
            return (folder / name).read_text().strip()
    raise AssertionError(f"neither {v1} nor {v2} in {folder}")


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


def test_a_limit_without_its_controller_is_refused_with_the_reason(engine: Engine) -> None:
    flags = {
        "memory": ("-m", "32m"),
        "cpu": ("--cpus", "0.5"),
        "cpuset": ("--cpuset-cpus", "0"),
        "pids": ("--pids-limit", "9"),
    }
    layout = cgroup_layout(Live())
    for controller, words in flags.items():
        result = engine.isula("run", "--rm", *words, "busybox", "true")
        if controller in layout.mounts:
            assert result.code == 0
        else:
            assert result.code == 125
            assert controller in result.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("-m", "4x"), ("4x",)),
        (("-m", "1k"), ("memory", "4MB")),
        (("--cpus", "1000"), ("CPU",)),
        (("--cpuset-cpus", "900"), ("900",)),
        (("--cpu-shares", "-3"), ("-3",)),
        (("--pids-limit", "many"), ("many",)),
    ],
)
def test_a_bad_limit_is_refused_before_anything_is_made(
    engine: Engine, flags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    before = sorted(os.listdir(engine.graph / "engines")) if engine.graph.exists() else []
    result = engine.isula("run", *flags, "busybox", "true")
    assert result.code == 125
    for word in words:
        assert word.lower() in result.err.lower()
    assert engine.ok("ps", "-aq") == ""
    assert sorted(os.listdir(engine.graph / "engines")) == before
