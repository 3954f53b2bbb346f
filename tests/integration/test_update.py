"""New limits of running and of stopped containers, read back from the kernel's own files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.kernel import Live, cgroup_layout
from tests.contract.test_runtimes_update import MIB, V2, memory, pid, quota, sleeper, update
from tests.groups import leaf, read

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.measuring import Measuring
    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]


@pytest.mark.parametrize(
    "steps",
    [
        # up and down again: each has to be written in another order
        [(64, 64), (32, 40), (64, 128), (128, 128), (16, 16)],
        [(200, 400), (32, -1), (64, 64)],
    ],
)
def test_memory_and_swap_move_in_any_order(
    measuring: Measuring, runtime: str, steps: list[tuple[int, int]]
) -> None:
    sleeper(measuring, runtime, "-m", "64m", "--memory-swap", "96m")
    for limit, swap in steps:
        update(measuring, memory=limit * MIB, memory_swap=swap * MIB if swap > 0 else -1)
        if swap > 0:
            assert memory(measuring) == (limit * MIB, swap * MIB)
        elif not V2:
            assert memory(measuring)[1] > 1 << 60


def test_no_limit_any_more(measuring: Measuring, runtime: str) -> None:
    sleeper(measuring, runtime, "-m", "64m", "--cpu-quota", "50000")
    update(measuring, memory=-1, cpu_quota=-1)
    found = read(pid(measuring), "memory", "memory.limit_in_bytes", "memory.max")
    assert found == "max" or int(found) > 1 << 60
    assert quota(measuring)[0] in ("-1", "max")


def test_cpus_that_are_not_there_are_refused(measuring: Measuring) -> None:
    sleeper(measuring, "lxc", run="create")
    with pytest.raises(errors.InvalidArgument, match="900"):
        update(measuring, cpuset_cpus="900")


def test_huge_pages_that_the_kubelet_forbids_need_no_controller(measuring: Measuring) -> None:
    sleeper(measuring, "lxc")
    update(measuring, hugepages=[("2MB", 0), ("1GB", 0)], pids_limit=20)
    assert read(pid(measuring), "pids", "pids.max", "pids.max") == "20"


@pytest.mark.skipif(V2, reason="this machine has cgroup v2")
def test_files_of_version_2_are_refused_by_name_on_version_1(measuring: Measuring) -> None:
    sleeper(measuring, "lxc", run="create")
    with pytest.raises(errors.Unimplemented, match=r"memory\.high"):
        update(measuring, unified={"memory.high": "1000000"})


def test_cgroups_of_a_pod_are_where_the_kubelet_looks(
    measuring: Measuring, runtime: str
) -> None:
    top = f"isula-test-{os.getpid()}"
    sleeper(measuring, runtime, "--cgroup-parent", f"/{top}/besteffort/podx")
    try:
        update(measuring, memory=20 * MIB)
        folder = leaf(pid(measuring), "memory")
        assert str(folder.parent).endswith(f"/{top}/besteffort/podx")
        assert memory(measuring)[0] == 20 * MIB
    finally:
        measuring.ok("rm", "-f", "box")
        clean(top)


def test_containers_are_in_slices_with_the_systemd_driver(
    make_engine: Callable[..., Engine],
) -> None:
    """LXC needs no systemd for it; runc does, which test machines often lack."""
    top = f"isulatest{os.getpid()}"
    engine = make_engine(config={"systemd-cgroup": True, "cgroup-parent": f"{top}-a.slice"})
    try:
        engine.ok("run", "-d", "--name", "box", "--runtime", "lxc", "busybox", "sleep", "1000")
        found = leaf(int(engine.state_of("box")["Pid"]), "memory")
        box = engine.inspect("box")["Id"]
        assert str(found).endswith(f"/{top}.slice/{top}-a.slice/isulad-{box}.scope")
        engine.ok("pause", "box")
        engine.ok("unpause", "box")
        engine.ok("rm", "-f", "box")
        assert not found.exists()
    finally:
        clean(f"{top}.slice")


def clean(top: str) -> None:
    """Removes empty groups from every hierarchy."""
    layout = cgroup_layout(Live())
    for mount in {*layout.mounts.values(), layout.unified} - {""}:
        for place, _, _ in os.walk(f"{mount}/{top}", topdown=False):
            os.rmdir(place)
