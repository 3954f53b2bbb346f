"""Case A21: is the memory controller there?  v1, hybrid, v2, enabled=0, not delegated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isula_edge import kernel
from isula_edge.kernel import State

if TYPE_CHECKING:
    from tests.unit.kernel.conftest import Made

HEAD = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"
V1 = "31 25 0:24 / /sys/fs/cgroup/memory rw,relatime shared:15 - cgroup cgroup rw,memory\n"
CPU = "30 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw shared:14 - cgroup cgroup rw,cpu,cpuacct\n"
NAMED = "37 25 0:32 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
UNIFIED = "38 25 0:33 / /sys/fs/cgroup/unified rw shared:24 - cgroup2 cgroup2 rw,nsdelegate\n"
V2 = "25 16 0:20 / /sys/fs/cgroup rw,relatime shared:11 - cgroup2 cgroup2 rw,nsdelegate\n"
TOP = "/sys/fs/cgroup"


def row(name: str, hierarchy: int, enabled: int) -> str:
    return f"{HEAD}{name}\t{hierarchy}\t1\t{enabled}\n"


CASES = {
    "v1": (
        {"/proc/self/mountinfo": V1 + CPU, "/proc/cgroups": row("memory", 17, 1)},
        State.PRESENT,
        "/sys/fs/cgroup/memory",
    ),
    "v1, switched off by the command line": (
        {"/proc/self/mountinfo": CPU, "/proc/cgroups": row("memory", 0, 0)},
        State.ABSENT,
        "enabled=0",
    ),
    "v1, not mounted": (
        {"/proc/self/mountinfo": CPU, "/proc/cgroups": row("memory", 0, 1)},
        State.UNUSABLE,
        "no hierarchy of it is mounted",
    ),
    "v1, not built": (
        {"/proc/self/mountinfo": CPU, "/proc/cgroups": row("cpu", 3, 1)},
        State.ABSENT,
        "does not list memory",
    ),
    "hybrid": (
        {
            "/proc/self/mountinfo": V1 + NAMED + UNIFIED,
            "/proc/cgroups": row("memory", 17, 1),
            f"{TOP}/unified/cgroup.controllers": "\n",
        },
        State.PRESENT,
        "/sys/fs/cgroup/memory",
    ),
    "hybrid, memory in the unified hierarchy": (
        {
            "/proc/self/mountinfo": CPU + UNIFIED,
            "/proc/cgroups": row("memory", 0, 1),
            f"{TOP}/unified/cgroup.controllers": "cpuset memory\n",
        },
        State.UNUSABLE,
        "unified hierarchy",
    ),
    "v2, switched on for children": (
        {
            "/proc/self/mountinfo": V2,
            "/proc/cgroups": row("memory", 0, 1),
            f"{TOP}/cgroup.controllers": "cpu memory pids\n",
            f"{TOP}/cgroup.subtree_control": "memory\n",
        },
        State.PRESENT,
        "subtree_control has memory",
    ),
    "v2, the true root has it": (
        {
            "/proc/self/mountinfo": V2,
            "/proc/cgroups": row("memory", 0, 1),
            f"{TOP}/cgroup.controllers": "cpu memory pids\n",
            f"{TOP}/cgroup.subtree_control": "\n",
        },
        State.PRESENT,
        "the engine switches it on",
    ),
    "v2, no line in /proc/cgroups (7.x without version 1)": (
        {
            "/proc/self/mountinfo": V2,
            f"{TOP}/cgroup.controllers": "memory\n",
            f"{TOP}/cgroup.subtree_control": "memory\n",
        },
        State.PRESENT,
        "",
    ),
    "v2, switched off by the command line": (
        {
            "/proc/self/mountinfo": V2,
            "/proc/cgroups": row("memory", 0, 0),
            f"{TOP}/cgroup.controllers": "cpu pids\n",
        },
        State.ABSENT,
        "enabled=0",
    ),
    "v2, bound to a version 1 hierarchy": (
        {
            "/proc/self/mountinfo": V2,
            "/proc/cgroups": row("memory", 4, 1),
            f"{TOP}/cgroup.controllers": "hugetlb\n",
        },
        State.UNUSABLE,
        "version 1 hierarchy 4",
    ),
    "v2, not delegated to this group": (
        {
            "/proc/self/mountinfo": V2,
            "/proc/cgroups": row("memory", 0, 1),
            f"{TOP}/cgroup.controllers": "cpu pids\n",
            f"{TOP}/cgroup.events": "populated 1\n",
        },
        State.UNUSABLE,
        "not delegated",
    ),
    "v2, here but not for children": (
        {
            "/proc/self/mountinfo": V2,
            "/proc/cgroups": row("memory", 0, 1),
            f"{TOP}/cgroup.controllers": "cpu memory pids\n",
            f"{TOP}/cgroup.subtree_control": "cpu\n",
            f"{TOP}/cgroup.events": "populated 1\n",
        },
        State.UNUSABLE,
        "not delegated",
    ),
    "no cgroups at all": ({"/proc/self/mountinfo": ""}, State.ABSENT, "no /proc/cgroups"),
}


@pytest.mark.parametrize("case", CASES)
def test_memory(made: Made, case: str) -> None:
    files, state, why = CASES[case]
    found = kernel.probe(made(files)).get("cgroup-memory")
    assert found.state is state, found.why
    assert why in found.why
    assert "--memory is refused with the reason" in found.without


LAYOUTS = [
    (V1 + CPU + NAMED, "v1", {"memory": f"{TOP}/memory", "cpu": f"{TOP}/cpu,cpuacct"}),
    (V1 + UNIFIED, "hybrid", {"memory": f"{TOP}/memory"}),
    (V2, "v2", {"cpu": TOP, "pids": TOP}),
    (NAMED, "none", {"name=systemd": f"{TOP}/systemd"}),
    (NAMED + UNIFIED, "v2", {}),
    ("", "none", {}),
    # a second mount of a hierarchy elsewhere does not count
    (
        V1.replace("/sys/fs/cgroup/memory", "/srv/root/sys/fs/cgroup/memory") + V1,
        "v1",
        {"memory": f"{TOP}/memory"},
    ),
    (V1.replace("/sys/fs/cgroup/memory", r"/a\040b"), "v1", {"memory": "/a b"}),
    ("garbage\n- cgroup x\n - cgroup\n", "none", {}),
]


@pytest.mark.parametrize(("mountinfo", "version", "mounts"), LAYOUTS)
def test_layout(made: Made, mountinfo: str, version: str, mounts: dict[str, str]) -> None:
    files = {"/proc/self/mountinfo": mountinfo, f"{TOP}/cgroup.controllers": "cpu pids\n"}
    layout = kernel.cgroup_layout(made(files))
    assert layout.version == version
    assert mounts.items() <= layout.mounts.items()
