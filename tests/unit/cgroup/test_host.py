"""Files of cgroups, over trees that look like the hierarchies of version 1, 2 and both."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from isula_edge import kernel
from isula_edge.cgroup import Host, container_dir, init_groups, nests

if TYPE_CHECKING:
    from pathlib import Path

GROUP = "isula/0123"


def tree(top: Path, *groups: str, pids: str = "") -> None:
    for group in groups:
        (top / group).mkdir(parents=True)
        (top / group / "cgroup.procs").write_text(pids)


@pytest.fixture
def v1(tmp_path: Path) -> Host:
    for name in ("cpu,cpuacct", "memory", "pids", "freezer"):
        tree(tmp_path / name, GROUP)
        (tmp_path / name / "cgroup.procs").write_text("1\n2\n")
    return Host(
        "1",
        {
            "cpu": str(tmp_path / "cpu,cpuacct"),
            "cpuacct": str(tmp_path / "cpu,cpuacct"),
            **{name: str(tmp_path / name) for name in ("memory", "pids", "freezer")},
        },
    )


@pytest.fixture
def v2(tmp_path: Path) -> Host:
    tree(tmp_path / "unified", GROUP)
    return Host("2", dict.fromkeys(("cpu", "memory", "pids", ""), str(tmp_path / "unified")))


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        ("/isula", "isula/abc"),
        ("isula", "isula/abc"),
        ("/edge/box/", "edge/box/abc"),
    ],
)
def test_a_containers_group_has_no_leading_slash(parent: str, expected: str) -> None:
    assert container_dir(parent, "abc") == expected


def test_a_group_right_below_the_root_has_no_leading_slash_either() -> None:
    assert container_dir("/", "abc") == "abc"


def test_paths_lie_in_the_hierarchy_of_their_controller(v1: Host, tmp_path: Path) -> None:
    assert v1.path("cpuacct", GROUP) == f"{tmp_path}/cpu,cpuacct/{GROUP}"
    assert v1.path("pids", GROUP, "pids.max") == f"{tmp_path}/pids/{GROUP}/pids.max"
    with pytest.raises(KeyError):
        v1.path("hugetlb", GROUP)


def test_which_controllers_there_are(v1: Host, v2: Host) -> None:
    assert v1.has("memory")
    assert not v1.has("hugetlb")
    assert v2.has("memory")
    assert not v2.has("freezer")
    assert not Host("", {}).has("memory")


def test_files_are_written_and_read(v1: Host, tmp_path: Path) -> None:
    v1.write("memory", GROUP, "memory.limit_in_bytes", "5")
    assert (tmp_path / "memory" / GROUP / "memory.limit_in_bytes").read_text() == "5"
    (tmp_path / "memory" / GROUP / "memory.stat").write_text("a 1\nb 2\n")
    assert v1.read("memory", GROUP, "memory.stat") == "a 1\nb 2"


def test_what_cannot_be_read_is_empty(v1: Host) -> None:
    assert v1.read("memory", GROUP, "absent") == ""
    assert v1.read("hugetlb", GROUP, "absent") == ""
    assert v1.read("memory", "no/group", "absent") == ""


def test_what_cannot_be_written_is_named(v1: Host) -> None:
    with pytest.raises(FileNotFoundError, match=r"no/group/pids\.max"):
        v1.write("pids", "no/group", "pids.max", "5")
    with pytest.raises(KeyError):
        v1.write("hugetlb", GROUP, "x", "5")


def test_processes_of_a_group_and_below_it(v1: Host, tmp_path: Path) -> None:
    (tmp_path / "pids" / GROUP / "cgroup.procs").write_text("30\n4\n")
    tree(tmp_path / "pids", f"{GROUP}/sub/deep", pids="100\n4\n")
    tree(tmp_path / "pids", "isula/other", pids="7\n")
    assert v1.pids(GROUP) == [4, 30, 100]


def test_processes_are_looked_for_where_there_is_a_hierarchy(v2: Host, tmp_path: Path) -> None:
    tree(tmp_path / "unified", f"{GROUP}/init", pids="5\n")
    assert v2.pids(GROUP) == [5]
    bare = Host("2", {"": str(tmp_path / "unified")})
    assert bare.pids(GROUP) == [5]


def test_a_group_that_is_not_there_has_no_processes(v1: Host) -> None:
    assert v1.pids("no/group") == []
    assert Host("", {}).pids(GROUP) == []
    assert Host("1", {"hugetlb": "/x"}).pids(GROUP) == []


@pytest.mark.parametrize(("frozen", "word"), [(True, "FROZEN"), (False, "THAWED")])
@pytest.mark.parametrize("version", ["1", "hybrid"])
def test_freezing_in_version_1(
    v1: Host, tmp_path: Path, version: str, frozen: bool, word: str
) -> None:
    unified = {"": str(tmp_path / "unified")} if version == "hybrid" else {}
    Host(version, {**v1.mounts, **unified}).freeze(GROUP, frozen)
    assert (tmp_path / "freezer" / GROUP / "freezer.state").read_text() == word


@pytest.mark.parametrize(("frozen", "word"), [(True, "1"), (False, "0")])
def test_freezing_in_version_2(v2: Host, tmp_path: Path, frozen: bool, word: str) -> None:
    v2.freeze(GROUP, frozen)
    assert (tmp_path / "unified" / GROUP / "cgroup.freeze").read_text() == word


def test_where_the_oom_killer_is_counted(v1: Host, v2: Host, tmp_path: Path) -> None:
    assert v1.oom_files(GROUP) == [f"{tmp_path}/memory/{GROUP}/memory.oom_control"]
    assert v2.oom_files(GROUP) == [f"{tmp_path}/unified/{GROUP}/memory.events"]
    assert Host("1", {"pids": "/x"}).oom_files(GROUP) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9:name=systemd:/init.scope\n4:memory:/\n0::/init.scope\n", {}),
        ("4:memory:/a/b\n2:cpu,cpuacct:/c\n", {"memory": "a/b", "cpu": "c", "cpuacct": "c"}),
        ("0::/box.slice/init.scope\n", {"": "box.slice"}),
        ("0::/../..\n", {}),
        ("", {}),
    ],
)
def test_the_cgroup_of_process_1(text: str, expected: dict[str, str]) -> None:
    assert init_groups(text) == expected


@pytest.mark.parametrize(("version", "key"), [("1", "memory"), ("2", "")])
def test_groups_below_process_1_are_found_and_those_at_the_root_too(
    tmp_path: Path, version: str, key: str
) -> None:
    host = Host(version, {"memory": str(tmp_path)}, {key: "box"})
    name = {"1": "memory.oom_control", "2": "memory.events"}[version]
    assert host.oom_files(GROUP) == [f"{tmp_path}/box/{GROUP}/{name}", f"{tmp_path}/{GROUP}/{name}"]
    assert host.path("memory", GROUP) == f"{tmp_path}/{GROUP}"
    tree(tmp_path, GROUP, f"box/{GROUP}")
    assert host.path("memory", GROUP, "x") == f"{tmp_path}/box/{GROUP}/x"
    for place in ("", "box/"):
        (tmp_path / place / GROUP / "cgroup.procs").unlink()
    host.remove(GROUP)
    assert not (tmp_path / GROUP).exists()
    assert not (tmp_path / "box" / GROUP).exists()


def test_a_group_is_removed_from_every_hierarchy(tmp_path: Path) -> None:
    """Directories of a cgroup hierarchy can be removed with the kernel's files in them."""
    for name in ("memory", "pids"):
        (tmp_path / name / GROUP / "sub/deep").mkdir(parents=True)
        (tmp_path / name / "isula/other").mkdir()
    host = Host("1", {name: str(tmp_path / name) for name in ("memory", "pids", "cpu")})
    host.remove(GROUP)
    for name in ("memory", "pids"):
        assert not (tmp_path / name / GROUP).exists()
        assert (tmp_path / name / "isula/other").exists()
    host.remove(GROUP)


def test_a_busy_group_holds_nobody_else_up(tmp_path: Path) -> None:
    (tmp_path / "busy" / GROUP / "sub").mkdir(parents=True)
    # what rmdir refuses here, as it does for a group with processes
    (tmp_path / "busy" / GROUP / "sub/process").write_text("")
    (tmp_path / "free" / GROUP).mkdir(parents=True)
    host = Host("1", {"cpu": str(tmp_path / "busy"), "pids": str(tmp_path / "free")})
    host.remove(GROUP)
    assert (tmp_path / "busy" / GROUP / "sub/process").exists()
    assert not (tmp_path / "free" / GROUP).exists()


V1 = "31 25 0:24 / {top}/memory rw - cgroup cgroup rw,memory\n"
NAMED = "32 25 0:25 / {top}/systemd rw - cgroup cgroup rw,name=systemd\n"
V2 = "33 25 0:26 / {top}/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.mark.parametrize(
    ("mountinfo", "version", "controllers"),
    [
        (V1, "v1", {"memory"}),
        (V1 + NAMED, "v1", {"memory", "name=systemd"}),
        (V1 + NAMED + V2, "hybrid", {"memory", "name=systemd"}),
        (V2, "v2", {"cpu", "pids"}),
        (NAMED + V2, "v2", {"cpu", "pids"}),
        (NAMED, "none", {"name=systemd"}),
        ("", "none", set()),
    ],
)
def test_a_hierarchy_is_found_where_it_is_mounted(
    tmp_path: Path, mountinfo: str, version: str, controllers: set[str]
) -> None:
    """What the kernel shows is what a host is made of."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(mountinfo.format(top="/cg"))
    (tmp_path / "cg/unified").mkdir(parents=True)
    (tmp_path / "cg/unified/cgroup.controllers").write_text("cpu pids\n")
    layout = kernel.cgroup_layout(kernel.Saved(str(tmp_path)))
    assert layout.version == version
    assert set(layout.mounts) == controllers
    host = Host({"v1": "1", "v2": "2"}.get(version, version), layout.mounts)
    assert {name for name in ("cpu", "memory", "pids") if host.has(name)} == (
        controllers - {"name=systemd"}
    )


def test_groups_are_nested_where_they_can_be(tmp_path: Path) -> None:
    assert nests({"net_prio": str(tmp_path)})
    assert os.listdir(tmp_path) == []
    assert nests({"memory": "/nowhere"})
    host = Host("1", {})
    assert host.group("/isulad/abc") == "isulad/abc"


def test_one_level_of_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As net_prio of Linux 3.4 does: a group below a group is EINVAL."""
    make = os.mkdir

    def one_level(path: str, mode: int = 0o777) -> None:
        if os.path.dirname(path) != str(tmp_path):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        make(path, mode)

    monkeypatch.setattr(os, "mkdir", one_level)
    mounts = {"net_prio": str(tmp_path)}
    assert not nests(mounts)
    assert os.listdir(tmp_path) == []
    host = Host("1", mounts, flat=not nests(mounts))
    assert host.group("/isulad/abc") == "isulad-abc"
    assert host.group("abc") == "abc"
