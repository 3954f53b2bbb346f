"""Limits that change: what is taken over, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from isula_edge import errors
from isula_edge.oci.options import Settings
from isula_edge.oci.resources import ResourceChange, changed, limits, swap_limit

MIB = 1 << 20


def change(settings: Settings, **wanted: Any) -> Settings:
    return changed(settings, ResourceChange(**wanted), cpuset="0-3", mems="0")


def test_nothing_asked_for_changes_nothing() -> None:
    before = Settings(memory=64 * MIB, cpu_quota=5000, cpuset_cpus="1", unified={"a.b": "1"})
    assert change(before) == before


def test_the_old_settings_stay_as_they_were() -> None:
    before = Settings(unified={"memory.high": "1"}, hugepages=[("2MB", 0)])
    change(before, unified={"memory.low": "2"}, hugepages=(("1GB", 4),), pids_limit=7)
    assert before == Settings(unified={"memory.high": "1"}, hugepages=[("2MB", 0)])


def test_every_field() -> None:
    found = change(
        Settings(),
        cpu_shares=2,
        cpu_period=50_000,
        cpu_quota=20_000,
        cpuset_cpus="0-1",
        cpuset_mems="0",
        memory=64 * MIB,
        memory_swap=80 * MIB,
        pids_limit=9,
        hugepages=(("2MB", 0),),
        unified={"memory.high": "60000000"},
    )
    assert limits(found) == {
        "memory": {"limit": 64 * MIB, "swap": 80 * MIB},
        "cpu": {"shares": 2, "period": 50_000, "quota": 20_000, "cpus": "0-1", "mems": "0"},
        "pids": {"limit": 9},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
        "unified": {"memory.high": "60000000"},
    }


def test_named_pages_and_files_change_and_the_others_stay() -> None:
    before = Settings(unified={"memory.high": "1"}, hugepages=[("2MB", 5), ("1GB", 6)])
    found = change(before, unified={"memory.low": "2"}, hugepages=(("2MB", 0),))
    assert found.unified == {"memory.high": "1", "memory.low": "2"}
    assert found.hugepages == [("2MB", 0), ("1GB", 6)]


# (memory, memory_swap, no_swap) before, change, (memory, memory with swap) after
MEMORY: list[tuple[tuple[int, int, bool], dict[str, int], tuple[int, int]]] = [
    ((0, 0, False), {"memory": 64}, (64, 128)),
    ((0, 0, True), {"memory": 64}, (64, 64)),
    # twice the memory of before is what the kernel has
    ((64, 0, False), {"memory": 100}, (100, 128)),
    ((64, 0, False), {"memory": 32}, (32, 128)),
    # without swap it follows
    ((64, 0, True), {"memory": 500}, (500, 500)),
    ((64, 0, True), {"memory": 500, "memory_swap": 600}, (500, 600)),
    ((64, 80, False), {"memory": 80}, (80, 80)),
    ((64, 80, True), {"memory": 70}, (70, 80)),
    ((64, 80, False), {"memory": 200, "memory_swap": 300}, (200, 300)),
    ((64, 80, False), {"memory_swap": -1}, (64, -1)),
    ((64, -1, False), {"memory": 900}, (900, -1)),
    ((64, 80, False), {"memory": -1}, (-1, -1)),
    ((64, 0, True), {"memory": -1}, (-1, -1)),
    ((-1, 0, True), {"memory": 64}, (64, 64)),
]


@pytest.mark.parametrize(("before", "asked", "after"), MEMORY)
def test_memory_and_swap(
    before: tuple[int, int, bool], asked: dict[str, int], after: tuple[int, int]
) -> None:
    memory, swap, no_swap = before
    settings = Settings(memory=_mib(memory), memory_swap=_mib(swap), no_swap=no_swap)
    found = change(settings, **{key: _mib(value) for key, value in asked.items()})
    assert (found.memory, swap_limit(found)) == tuple(_mib(value) for value in after)


def _mib(value: int) -> int:
    return value if value < 0 else value * MIB


@pytest.mark.parametrize(
    ("settings", "asked", "words"),
    [
        (Settings(), {"memory": MIB}, "Minimum memory limit"),
        (
            Settings(memory=64 * MIB, memory_swap=64 * MIB),
            {"memory": 65 * MIB},
            "update the memoryswap at the same time",
        ),
        (Settings(memory=64 * MIB), {"memory": 129 * MIB}, "update the memoryswap"),
        (
            Settings(memory=64 * MIB),
            {"memory": 64 * MIB, "memory_swap": 63 * MIB},
            "Minimum memoryswap limit",
        ),
        (Settings(), {"memory_swap": 64 * MIB}, "You should set the memory limit"),
        (
            Settings(memory=64 * MIB, memory_reservation=32 * MIB),
            {"memory": 16 * MIB},
            "reservation",
        ),
        (Settings(), {"cpu_period": 999}, "999"),
        (Settings(), {"cpu_period": 1_000_001}, "1000001"),
        (Settings(), {"cpu_quota": 999}, "less than 1ms"),
        (Settings(), {"cpu_shares": -1}, "-1"),
        (Settings(nano_cpus=10**9), {"cpu_quota": 5000}, "NanoCPUs"),
        (Settings(), {"cpuset_cpus": "4"}, "available: 0-3"),
        (Settings(), {"cpuset_mems": "1"}, "available: 0"),
        (Settings(), {"hugepages": (("../x", 1),)}, "page size"),
        (Settings(), {"unified": {"../../x.y": "1"}}, "no file of a cgroup"),
        (Settings(), {"unified": {"memory": "1"}}, "no file of a cgroup"),
        (Settings(), {"unified": {"memory.high": "1\0"}}, "no file of a cgroup"),
    ],
)
def test_what_is_refused(settings: Settings, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=words):
        change(settings, **asked)
