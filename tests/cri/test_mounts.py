"""Volumes, devices, propagation, recursion of read-only, images as volumes."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.cri.client import refused
from tests.fakes.images import FakeLayer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cri.node import Node, Pod

pytestmark = [pytest.mark.root, pytest.mark.lxc]


@pytest.fixture
def pod(node: Node) -> Pod:
    return node.pod()


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A shared mount of its own, as the folders of a kubelet are."""
    place = tmp_path / "volume"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tests", place], check=True)
    try:
        subprocess.run(["mount", "--make-rshared", place], check=True)
        yield place
    finally:
        subprocess.run(["umount", "-R", place], check=True)


def mount(host: Path, **fields: Any) -> dict[str, Any]:
    return {"host_path": str(host), "container_path": "/volume", **fields}


def test_volume(pod: Pod, tmp_path: Path) -> None:
    """Spec: runtime should support starting container with volume."""
    (tmp_path / "file").write_text("seen\n")
    container = pod.run(mounts=[mount(tmp_path)])
    assert container.output("cat", "/volume/file") == "seen"
    container.output("touch", "/volume/made")
    assert (tmp_path / "made").exists()


def test_a_link_to_a_volume(pod: Pod, tmp_path: Path) -> None:
    """Spec: runtime should support starting container with volume when host path is a symlink."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_text("seen\n")
    link = tmp_path / "link"
    link.symlink_to("folder")
    container = pod.run(mounts=[mount(link)])
    assert container.output("cat", "/volume/file") == "seen"


def test_status_has_the_mounts_that_were_asked_for(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    mounts = [
        mount(tmp_path, readonly=True),
        {"host_path": str(tmp_path / "file"), "container_path": "/file"},
    ]
    found = pod.run(mounts=mounts).status().mounts
    assert [
        (item.host_path, item.container_path, item.readonly, item.selinux_relabel) for item in found
    ] == [
        (str(tmp_path), "/volume", True, False),
        (str(tmp_path / "file"), "/file", False, False),
    ]


def test_a_volume_may_cover_etc_hosts(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("1.2.3.4 own\n")
    own = {"host_path": str(tmp_path / "hosts"), "container_path": "/etc/hosts"}
    assert pod.output("cat /etc/hosts", mounts=[own]) == ["1.2.3.4 own"]


@pytest.mark.parametrize(
    ("propagation", "inward", "outward"),
    [
        ("PROPAGATION_PRIVATE", False, False),
        ("PROPAGATION_HOST_TO_CONTAINER", True, False),
        ("PROPAGATION_BIDIRECTIONAL", True, True),
    ],
)
def test_propagation(
    node: Node, volume: Path, propagation: str, inward: bool, outward: bool
) -> None:
    """Specs: mount with 'rprivate', 'rslave', 'rshared'."""
    for name in ("host", "container"):
        (volume / name).mkdir()
    pod = node.pod(linux={"security_context": {"privileged": True}})
    container = pod.run(
        mounts=[mount(volume, propagation=propagation)], security={"privileged": True}
    )
    found = container.status().mounts[0].propagation
    assert found == ["PRIVATE", "HOST_TO_CONTAINER", "BIDIRECTIONAL"].index(
        propagation.removeprefix("PROPAGATION_")
    )
    subprocess.run(["mount", "-t", "tmpfs", "tests", volume / "host"], check=True)
    (volume / "host/file").touch()
    script = "mount -t tmpfs tests /volume/container && touch /volume/container/f"
    container.output("sh", "-c", script)
    assert (container.exec("test", "-e", "/volume/host/file").code == 0) is inward
    assert (volume / "container/f").exists() is outward


def test_read_only_without_recursion(pod: Pod, volume: Path) -> None:
    """Spec: should support non-recursive readonly mounts."""
    (volume / "sub").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tests", volume / "sub"], check=True)
    container = pod.run(mounts=[mount(volume, readonly=True)])
    assert container.exec("touch", "/volume/file").code != 0
    assert container.exec("touch", "/volume/sub/file").code == 0
    assert not container.status().mounts[0].recursive_read_only


@pytest.fixture
def recursive(node: Node) -> Pod:
    """A pod of a handler that has recursive read-only mounts."""
    handlers = node.call("Status").runtime_handlers
    if not any(
        item.features.recursive_read_only_mounts for item in handlers if item.name == node.handler
    ):
        pytest.skip("this handler does not announce recursive read-only mounts")
    return node.pod()


def test_read_only_with_recursion(recursive: Pod, volume: Path) -> None:
    """Spec: should support recursive readonly mounts."""
    (volume / "sub").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tests", volume / "sub"], check=True)
    container = recursive.run(mounts=[mount(volume, readonly=True, recursive_read_only=True)])
    assert container.exec("touch", "/volume/file").code != 0
    assert container.exec("touch", "/volume/sub/file").code != 0
    assert container.status().mounts[0].recursive_read_only
    (volume / "sub/file").touch()


@pytest.mark.parametrize(
    "fields",
    [
        {"readonly": False},
        {"readonly": True, "propagation": "PROPAGATION_HOST_TO_CONTAINER"},
        {"readonly": True, "propagation": "PROPAGATION_BIDIRECTIONAL"},
    ],
)
def test_recursion_that_is_refused(recursive: Pod, volume: Path, fields: dict[str, Any]) -> None:
    """Specs: should reject a recursive readonly mount with …."""
    with refused():
        recursive.create("true", mounts=[mount(volume, recursive_read_only=True, **fields)])


def test_device(pod: Pod, tmp_path: Path) -> None:
    # a loop device is not one of those that every container may use
    os.mknod(tmp_path / "loop", 0o600 | stat.S_IFBLK, os.makedev(7, 0))
    device = {"host_path": str(tmp_path / "loop"), "container_path": "/dev/own", "permissions": "r"}
    container = pod.run(devices=[device])
    container.output("sh", "-c", "true < /dev/own")
    assert container.exec("sh", "-c", "true >> /dev/own").code != 0
    assert pod.run().exec("ls", "/dev/own").code != 0


# images as volumes


@pytest.fixture
def content(pod: Pod) -> dict[str, Any]:
    """A mount of an image that holds folder/file."""
    images = pod.node.machine.images
    layer = FakeLayer.of({"folder/file": b"of the image\n"})
    name = images.add("tests/content", layers=[layer])
    reference = pod.node.pull(name)
    if not pod.node.call("Status").HasField("features"):
        pytest.skip("this runtime is older than image volumes")
    return {
        "container_path": "/volume",
        "image": {"image": name, "image_ref": reference},
        "readonly": True,
    }


def test_image_volume(pod: Pod, content: dict[str, Any]) -> None:
    """Specs: should correctly mount image and enforce read-only, return image digest in status."""
    container = pod.run(mounts=[content])
    assert container.output("cat", "/volume/folder/file") == "of the image"
    assert container.exec("touch", "/volume/new").code != 0
    (found,) = container.status().mounts
    assert found.image.image_ref == content["image"]["image_ref"]
    assert found.image.image == content["image"]["image"]
    assert (found.container_path, found.readonly) == ("/volume", True)


def test_a_folder_of_an_image(pod: Pod, content: dict[str, Any]) -> None:
    """Spec: subPath should succeed when using a valid subPath."""
    container = pod.run(mounts=[{**content, "image_sub_path": "folder"}])
    assert container.output("cat", "/volume/file") == "of the image"
    assert container.status().mounts[0].image_sub_path == "folder"


@pytest.mark.parametrize("folder", ["none", "../etc", "folder/../../etc"])
def test_a_folder_that_the_image_lacks(pod: Pod, content: dict[str, Any], folder: str) -> None:
    """Spec: subPath should fail when subPath does not exist in the image."""
    with refused():
        pod.run(mounts=[{**content, "image_sub_path": folder}])


def test_an_image_is_not_written(pod: Pod, content: dict[str, Any]) -> None:
    """Spec: should reject Image Volume with Readonly set to false."""
    with refused():
        pod.run(mounts=[{**content, "readonly": False}])


def test_an_image_in_use_stays(pod: Pod, content: dict[str, Any]) -> None:
    container = pod.run(mounts=[content])
    with contextlib.suppress(grpc.RpcError):  # whether it is refused is the engine's choice
        pod.node.remove_image(content["image"]["image"])
    assert container.output("cat", "/volume/folder/file") == "of the image"
