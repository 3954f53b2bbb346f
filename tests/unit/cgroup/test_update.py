"""Limits of a running group: order, all or nothing, what errors say."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from isula_edge import errors
from isula_edge.cgroup import CgroupFile, Host
from isula_edge.cgroup.update import apply, changes, restore

MIB = 1 << 20
LIMIT = "memory.limit_in_bytes"
BOTH = "memory.memsw.limit_in_bytes"


class Kernel(Host):
    """A host whose files refuse what the kernel would."""

    def __init__(self, version: str, values: dict[str, str], top: int = 0) -> None:
        controllers = ("memory", "cpu", "pids", "io")
        super().__init__(version, dict.fromkeys(controllers, "/nowhere"))
        object.__setattr__(self, "values", dict(values))
        object.__setattr__(self, "log", [])
        object.__setattr__(self, "top", top)

    values: dict[str, str]
    log: list[tuple[str, str]]
    top: int

    def read(self, controller: str, group: str, name: str) -> str:
        return self.values.get(name, "")

    def write(self, controller: str, group: str, name: str, value: str) -> None:
        if controller not in self.mounts:
            raise KeyError(controller)
        if name not in self.values:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)
        new = {**self.values, name: value}
        if LIMIT in new and int(new[LIMIT]) > int(new[BOTH]):
            raise OSError(errno.EINVAL, "Invalid argument", name)
        if name == LIMIT and int(value) < self.top:
            raise OSError(errno.EBUSY, "Device or resource busy", name)
        object.__setattr__(self, "values", new)
        self.log.append((name, value))


def memory(limit: int, both: int) -> list[CgroupFile]:
    return [CgroupFile("memory", LIMIT, str(limit)), CgroupFile("memory", BOTH, str(both))]


@pytest.mark.parametrize(("limit", "both"), [(10, 20), (200, 300), (100, 100), (50, 60)])
def test_memory_and_swap_in_the_order_that_the_kernel_takes(limit: int, both: int) -> None:
    kernel = Kernel("1", {LIMIT: "100", BOTH: "150"})
    former = apply(kernel, "g", memory(limit, both))
    assert (kernel.values[LIMIT], kernel.values[BOTH]) == (str(limit), str(both))
    restore(kernel, "g", former)
    assert (kernel.values[LIMIT], kernel.values[BOTH]) == ("100", "150")


def test_one_that_is_refused_takes_the_others_back() -> None:
    kernel = Kernel("1", {LIMIT: "100", BOTH: "150", "pids.max": "max"}, top=60)
    files = [CgroupFile("pids", "pids.max", "5"), *memory(50, 150)]
    with pytest.raises(errors.FailedPrecondition) as caught:
        apply(kernel, "g", files)
    assert caught.value.message == "cannot set memory.limit_in_bytes to 50: Device or resource busy"
    assert kernel.values == {LIMIT: "100", BOTH: "150", "pids.max": "max"}


@pytest.mark.parametrize(
    ("file", "cls"),
    [
        (CgroupFile("memory", BOTH, "10"), errors.InvalidArgument),
        (CgroupFile("cpu", "cpu.absent", "10"), errors.Unimplemented),
        (CgroupFile("hugetlb", "hugetlb.2MB.max", "10"), errors.Unimplemented),
    ],
)
def test_errors_name_file_and_value(file: CgroupFile, cls: type[errors.EngineError]) -> None:
    with pytest.raises(cls, match=f"{file.name} to 10"):
        apply(Kernel("1", {LIMIT: "100", BOTH: "150"}), "g", [file])


def test_less_memory_than_is_used_would_kill_in_version_2() -> None:
    kernel = Kernel("2", {"memory.current": "80", "memory.max": "100", "pids.max": "9"})
    files = [CgroupFile("pids", "pids.max", "5"), CgroupFile("memory", "memory.max", "50")]
    with pytest.raises(errors.FailedPrecondition, match="80 bytes are in use"):
        apply(kernel, "g", files)
    assert kernel.log == []
    apply(kernel, "g", [CgroupFile("memory", "memory.max", "max")])
    assert kernel.values["memory.max"] == "max"


def test_files_of_several_lines_are_restored_line_by_line() -> None:
    kernel = Kernel("2", {"io.max": "8:0 rbps=1\n8:16 rbps=2"})
    former = apply(kernel, "g", [CgroupFile("io", "io.max", "8:0 rbps=9")])
    restore(kernel, "g", former)
    assert kernel.log[-2:] == [("io.max", "8:0 rbps=1"), ("io.max", "8:16 rbps=2")]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({}, {}, []),
        ({"pids": {"limit": 5}}, {"pids": {"limit": 5}}, []),
        ({"pids": {"limit": 5}}, {"pids": {"limit": 6}}, [("pids.max", "6")]),
        # one file of version 2 holds both numbers
        (
            {"cpu": {"quota": 5000, "period": 50000}},
            {"cpu": {"quota": 9000, "period": 50000}},
            [("cpu.max", "9000 50000")],
        ),
        # swap alone in the file: it changes when memory does
        (
            {"memory": {"limit": 10 * MIB, "swap": 30 * MIB}},
            {"memory": {"limit": 20 * MIB, "swap": 30 * MIB}},
            [("memory.max", str(20 * MIB)), ("memory.swap.max", str(10 * MIB))],
        ),
        # what is asked for by name wins
        (
            {"memory": {"limit": 10 * MIB, "swap": 10 * MIB}},
            {
                "memory": {"limit": 10 * MIB, "swap": 10 * MIB},
                "unified": {"memory.swap.max": "max", "memory.high": "5"},
            },
            [("memory.swap.max", "max"), ("memory.high", "5")],
        ),
    ],
)
def test_only_what_changes_is_written(
    old: dict[str, Any], new: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert [(file.name, file.value) for file in changes(old, new, "2")] == expected
