"""Names of cgroups by either driver, and groups that are made and removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isula_edge.cgroup import Host
from isula_edge.cgroup.pods import (
    container_dir,
    group_dir,
    make_group,
    open_cpuset,
    remove_groups,
    systemd_path,
)

if TYPE_CHECKING:
    from pathlib import Path

SLICE = "kubepods-burstable-pod1_2.slice"
PLACE = f"kubepods.slice/kubepods-burstable.slice/{SLICE}"


@pytest.mark.parametrize(
    ("parent", "systemd", "expected"),
    [
        ("/kubepods/burstable/pod1", False, "kubepods/burstable/pod1"),
        ("/isulad", True, "isulad"),
        (SLICE, True, PLACE),
        # the kubelet's own words
        (f"/{PLACE}", True, PLACE),
        ("system.slice", True, "system.slice"),
        ("-.slice", True, ""),
        (SLICE, False, SLICE),
    ],
)
def test_where_a_parent_is(parent: str, systemd: bool, expected: str) -> None:
    assert group_dir(parent, systemd=systemd) == expected


def test_containers_are_scopes_in_a_slice() -> None:
    assert container_dir(SLICE, "abc", systemd=True) == f"{PLACE}/isulad-abc.scope"
    assert container_dir(f"/{PLACE}/", "abc", systemd=True) == f"{PLACE}/isulad-abc.scope"
    assert systemd_path(f"/{PLACE}", "abc") == f"{SLICE}:isulad:abc"
    assert systemd_path("system.slice", "abc") == "system.slice:isulad:abc"


def test_containers_of_the_cgroupfs_driver_are_called_by_their_id() -> None:
    assert container_dir("/kubepods/pod1", "abc") == "kubepods/pod1/abc"
    assert container_dir("/isulad", "abc", systemd=True) == "isulad/abc"


@pytest.fixture
def v1(tmp_path: Path) -> Host:
    for name in ("memory", "cpuset"):
        (tmp_path / name).mkdir()
    for name, value in (("cpus", "0-1\n"), ("mems", "0\n")):
        (tmp_path / "cpuset" / f"cpuset.{name}").write_text(value)
    return Host("1", {name: str(tmp_path / name) for name in ("memory", "cpuset")})


def test_groups_are_made_in_every_hierarchy_and_only_those_removed(
    v1: Host, tmp_path: Path
) -> None:
    (tmp_path / "memory" / "kubepods").mkdir()
    made = make_group(v1, "/kubepods/pod1")
    assert sorted(made) == [
        f"{tmp_path}/cpuset/kubepods",
        f"{tmp_path}/cpuset/kubepods/pod1",
        f"{tmp_path}/memory/kubepods/pod1",
    ]
    assert make_group(v1, "/kubepods/pod1") == []
    for name in ("cpuset.cpus", "cpuset.mems"):
        for folder in ("kubepods/pod1", "kubepods"):
            (tmp_path / "cpuset" / folder / name).unlink(missing_ok=True)
    remove_groups(made)
    assert (tmp_path / "memory" / "kubepods").is_dir()
    assert not (tmp_path / "memory" / "kubepods" / "pod1").exists()
    assert not (tmp_path / "cpuset" / "kubepods").exists()
    remove_groups(made)


def test_a_cpuset_gets_what_its_parent_has(v1: Host, tmp_path: Path) -> None:
    group = tmp_path / "cpuset" / "kubepods"
    group.mkdir()
    for name in ("cpuset.cpus", "cpuset.mems"):
        (group / name).write_text("\n")
    make_group(v1, "kubepods")
    assert (group / "cpuset.cpus").read_text() == "0-1\n"
    assert (group / "cpuset.mems").read_text() == "0\n"


def test_a_cpuset_that_has_cpus_keeps_them(v1: Host, tmp_path: Path) -> None:
    group = tmp_path / "cpuset" / "kubepods"
    group.mkdir()
    (group / "cpuset.cpus").write_text("1\n")
    make_group(v1, "kubepods")
    assert (group / "cpuset.cpus").read_text() == "1\n"


def test_children_of_groups_that_others_made_inherit_cpus(v1: Host, tmp_path: Path) -> None:
    group = tmp_path / "cpuset" / "kubepods"
    (group / "pod1").mkdir(parents=True)
    for folder in (group, group / "pod1"):
        (folder / "cgroup.clone_children").write_text("0")
    open_cpuset(v1, "kubepods/pod1/absent")
    assert (group / "cgroup.clone_children").read_text() == "1"
    assert (group / "pod1" / "cgroup.clone_children").read_text() == "1"
    assert not (group / "pod1" / "absent").exists()


def test_controllers_of_version_2_are_switched_on_from_above(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    (tmp_path / "cgroup.subtree_control").write_text("cpu\n")
    host = Host("2", dict.fromkeys(("cpu", "memory", ""), str(tmp_path)))
    assert make_group(host, "kubepods/pod1") == [
        f"{tmp_path}/kubepods",
        f"{tmp_path}/kubepods/pod1",
    ]
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory"
