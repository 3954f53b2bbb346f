"""Bundles of containers with the settings of pods: files, groups, namespaces, logs."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.container.bundle import Bundles
from isula_edge.container.record import Container
from isula_edge.container.table import Table
from isula_edge.oci.options import Settings
from isula_edge.sys.reserve import Reserve
from isula_edge.types import ContainerId, ImageId

if TYPE_CHECKING:
    from pathlib import Path

ID = ContainerId("c" * 64)


@pytest.fixture
def rootfs(tmp_path: Path) -> str:
    folder = tmp_path / "rootfs/etc"
    folder.mkdir(parents=True)
    (folder / "passwd").write_text("app:x:1000:1001::/:/bin/sh\n")
    (folder / "group").write_text("audio:x:29:app\n")
    return str(folder.parent)


@pytest.fixture
def bundles(tmp_path: Path) -> Bundles:
    table = Table(str(tmp_path / "graph"), Reserve(str(tmp_path / "spare")))
    return Bundles(table, str(tmp_path / "state"), "/isula", lambda _text, _names: None)


def container(pod: str = "", **given: Any) -> Container:
    settings = Settings(**given)
    return Container(ID, "box", 1, "i", ImageId(""), {}, [], "runc", ["sh"], settings, pod=pod)


def document(bundles: Bundles, found: Container, rootfs: str) -> dict[str, Any]:
    os.makedirs(bundles.table.dir(found), exist_ok=True)
    bundle = bundles.prepare(found, rootfs, [])
    with open(f"{bundle.dir}/config.json") as file:
        spec: dict[str, Any] = json.load(file)
    return spec


@pytest.mark.parametrize(
    ("pod", "strict", "user", "groups"),
    [
        ("", False, "app", [29, 1001]),
        ("", False, "app:5", [5]),
        ("p", False, "app:5", [5, 29]),
        ("p", True, "app", [1001]),
    ],
)
def test_groups(
    bundles: Bundles, rootfs: str, pod: str, strict: bool, user: str, groups: list[int]
) -> None:
    found = container(pod, user=user, groups_strict=strict)
    spec = document(bundles, found, rootfs)
    assert spec["process"]["user"]["additionalGids"] == groups


def test_files_replace_the_engines_own(bundles: Bundles, rootfs: str, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("hosts\n")
    found = container(files={"/etc/hosts": str(tmp_path / "hosts")})
    spec = document(bundles, found, rootfs)
    sources = {mount["destination"]: mount["source"] for mount in spec["mounts"]}
    assert sources["/etc/hosts"] == str(tmp_path / "hosts")
    assert "/etc/resolv.conf" not in sources
    assert os.listdir(bundles.table.dir(found)) == ["config.json"]


def test_shared_memory(bundles: Bundles) -> None:
    assert bundles.shm(container(shm_path="/pod/shm", ipc="host")) == "/pod/shm"
    assert bundles.shm(container(join={"ipc": None})) == "/dev/shm"
    own = f"{bundles.table.dir(container())}/mounts/shm"
    assert bundles.shm(container(join={"ipc": "/pod/ipc"})) == own
    # what is not the container's is neither mounted nor taken away
    bundles.mount_shm(container(shm_path="/pod/shm"))
    bundles.unmount_shm(container(shm_path="/pod/shm"))


def test_names(bundles: Bundles) -> None:
    assert bundles.hostname(container(join={"uts": None})) == os.uname().nodename
    assert bundles.hostname(container(join={"uts": "/pod/uts"}, hostname="pod")) == "pod"
    assert bundles.hostname(container(join={"uts": ""}, uts="host")) == ID[:12]


def test_namespaces(bundles: Bundles, rootfs: str, tmp_path: Path) -> None:
    (tmp_path / "net").touch()
    join = {"network": str(tmp_path / "net"), "ipc": None, "uts": "", "user": str(tmp_path / "net")}
    spec = document(bundles, container(join=join, net="host"), rootfs)
    found = {entry["type"]: entry.get("path", "") for entry in spec["linux"]["namespaces"]}
    assert found["network"] == found["user"] == str(tmp_path / "net")
    assert found["uts"] == found["pid"] == ""
    assert "ipc" not in found
    with pytest.raises(errors.FailedPrecondition, match="ipc namespace"):
        document(bundles, container(join={"ipc": str(tmp_path / "gone")}), rootfs)


def test_logs(bundles: Bundles, rootfs: str, tmp_path: Path) -> None:
    path = tmp_path / "pods/0.log"
    found = container(log_path=str(path), log_max_size=5)
    document(bundles, found, rootfs)
    assert path.exists()
    bundle = bundles.load(found)
    assert (bundle.log_path, bundle.log_max_bytes) == (str(path), 0)
    own = bundles.load(container(log_max_size=5))
    assert own.log_path == f"{bundles.table.dir(found)}/console.log"
    assert own.log_max_bytes == 5
