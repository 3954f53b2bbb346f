"""Images: names, digests, users, and what is left after removal."""

from __future__ import annotations

import base64
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.cri.client import refused
from tests.fakes.images import FakeLayer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cri.images import Images
    from tests.cri.node import Node

pytestmark = [pytest.mark.root, pytest.mark.lxc]


@pytest.fixture
def shelf(machine: Any, plain: Node) -> Iterator[Images]:
    """Images to be pulled; those of the tests that are left are removed."""
    found: Images = machine.images
    yield found
    found.registry.faults.__init__()  # type: ignore[misc]
    for image in plain.image_list():
        for name in (*image.repo_tags, *image.repo_digests):
            if "/tests/i-" in name:
                plain.remove_image(name)


def test_with_a_tag(plain: Node, shelf: Images) -> None:
    """Spec: public image with tag should be pulled and removed."""
    name = shelf.marked("tests/i-tag", "all") + ":all"
    reference = plain.pull(name)
    image = plain.image_status(name)
    assert image.id == reference
    assert list(image.repo_tags) == [name]
    assert image.size > 0
    (digest,) = image.repo_digests
    assert re.fullmatch(re.escape(name.removesuffix(":all")) + "@sha256:[0-9a-f]{64}", digest)
    plain.remove_image(name)
    assert plain.image_status(name) is None
    assert plain.image_status(reference) is None


def test_without_a_tag(plain: Node, shelf: Images) -> None:
    """Spec: public image without tag should be pulled and removed."""
    name = shelf.marked("tests/i-none", "latest")
    plain.pull(name)
    assert list(plain.image_status(name).repo_tags) == [f"{name}:latest"]
    plain.remove_image(name)
    assert plain.image_list(name) == []


def test_by_digest(plain: Node, shelf: Images) -> None:
    """Spec: public image with digest should be pulled and removed."""
    name, digest = shelf.index("tests/i-digest", "")
    plain.pull(f"{name}@{digest}")
    image = plain.image_status(f"{name}@{digest}")
    assert list(image.repo_tags) == []
    assert list(image.repo_digests) == [f"{name}@{digest}"]
    plain.remove_image(f"{name}@{digest}")
    assert plain.image_status(image.id) is None


def test_three_images(plain: Node, shelf: Images) -> None:
    """Spec: listImage should get exactly 3 image in the result list."""
    names = [f"{shelf.marked(f'tests/i-{number}', 'latest')}:latest" for number in range(3)]
    for name in names:
        plain.pull(name)
    found = [tag for image in plain.image_list() for tag in image.repo_tags if "/i-" in tag]
    assert sorted(found) == sorted(names)


def test_three_tags(plain: Node, shelf: Images) -> None:
    """Spec: listImage should get exactly 3 repoTags in the result image."""
    name = shelf.marked("tests/i-tags", "1", "2", "3")
    tags = [f"{name}:{number}" for number in (1, 2, 3)]
    ids = {plain.pull(tag) for tag in tags}
    assert len(ids) == 1
    (image,) = [image for image in plain.image_list() if image.id in ids]
    assert list(image.repo_tags) == tags
    assert [item.id for item in plain.image_list(tags[1])] == [image.id]


def test_every_kind_of_reference(plain: Node, shelf: Images) -> None:
    """Spec: image status should support all kinds of references."""
    name = shelf.marked("tests/i-kinds", "1", "2")
    for tag in ("1", "2"):
        plain.pull(f"{name}:{tag}")
    image = plain.image_status(f"{name}:1")
    for reference in (image.id, *image.repo_tags, *image.repo_digests):
        assert plain.image_status(reference) == image
        assert plain.image_list(reference) == [image]


def test_an_image_that_is_not_there(plain: Node) -> None:
    assert plain.image_status("127.0.0.1:1/no/such:image") is None
    assert plain.image_status("f" * 64) is None
    assert plain.image_list("127.0.0.1:1/no/such:image") == []


@pytest.mark.parametrize(
    ("user", "uid", "name"),
    [
        ("1002", 1002, ""),
        ("www-data", None, "www-data"),
        ("1003:1004", 1003, ""),
        ("www-data:1004", None, "www-data"),
        ("0", 0, ""),
    ],
)
def test_user(plain: Node, shelf: Images, user: str, uid: int | None, name: str) -> None:
    """Spec: image status get image fields should not have Uid|Username empty."""
    reference = shelf.add("tests/i-user", re.sub(r"\W", "-", user), User=user)
    plain.pull(reference)
    image = plain.image_status(reference)
    assert image.username == name
    assert (image.uid.value if image.HasField("uid") else None) == uid


def test_one_tag_takes_all_along(plain: Node, shelf: Images) -> None:
    """Spec: removing image by one tag should remove all tags."""
    name = shelf.marked("tests/i-all", "1", "2")
    for tag in ("1", "2"):
        plain.pull(f"{name}:{tag}")
    plain.remove_image(f"{name}:1")
    assert plain.image_status(f"{name}:2") is None
    assert not [tag for image in plain.image_list() for tag in image.repo_tags if "i-all" in tag]


def test_one_registry_takes_the_others_along(plain: Node, shelf: Images) -> None:
    """Specs: same identifier from different registries; removing from one removes from others."""
    name = shelf.marked("tests/i-two", "1") + ":1"
    other = name.replace("127.0.0.1", "localhost")
    assert plain.pull(name) == plain.pull(other)
    assert set(plain.image_status(name).repo_tags) == {name, other}
    plain.remove_image(other)
    assert plain.image_status(name) is None


def test_seen_at_once_and_gone_at_once(plain: Node, shelf: Images) -> None:
    """Specs: Image Consistency: immediately after pulling, immediately after removal."""
    name = shelf.marked("tests/i-now", "1") + ":1"
    for _ in range(5):
        plain.pull(name)
        assert plain.image_status(name) is not None
        assert len(plain.image_list(name)) == 1
        plain.remove_image(name)
        assert plain.image_status(name) is None
        assert plain.image_list(name) == []


def test_removed_by_many_at_once(plain: Node, shelf: Images) -> None:
    """Spec: should not fail on simultaneous RemoveImage calls."""
    name = shelf.marked("tests/i-many", "1") + ":1"
    plain.pull(name)
    calls = [plain.call.later("RemoveImage", image={"image": name}) for _ in range(8)]
    for call in calls:
        call.result()
    assert plain.image_status(name) is None


def test_one_identifier_everywhere(node: Node, shelf: Images) -> None:
    """Spec: should return the same image identifier across all APIs."""
    name = shelf.marked("tests/i-same", "1") + ":1"
    reference = node.pull(name)
    assert node.image_status(name).id == reference
    container = node.pod().create("true", image=reference)
    assert container.status().image_id == reference
    assert [item.image_id for item in container.listed()] == [reference]


def test_a_deadline_ends_the_pull(plain: Node, shelf: Images) -> None:
    """Spec: public image should timeout if requested."""
    layer = FakeLayer.of({"big": bytes(1 << 20)}, "application/vnd.oci.image.layer.v1.tar")
    name = shelf.add("tests/i-slow", layers=[FakeLayer(layer.tar, layer.tar, layer.media_type)])
    shelf.registry.faults.gate = threading.Event()
    try:
        with refused("DEADLINE_EXCEEDED"):
            plain.call("PullImage", image={"image": name}, timeout_s=1)
        assert plain.image_status(name) is None
    finally:
        shelf.registry.faults.gate.set()
    shelf.registry.faults.gate = None
    assert plain.pull(name) == plain.image_status(name).id


def test_credentials(plain: Node, shelf: Images) -> None:
    name = shelf.marked("tests/i-auth", "1") + ":1"
    shelf.registry.faults.auth = "basic"
    shelf.registry.faults.users = {"me": "secret"}
    with refused():
        plain.pull(name)
    with refused():
        wrong = {"username": "me", "password": "wrong"}
        plain.call("PullImage", image={"image": name}, auth=wrong)
    right = {"username": "me", "password": "secret"}
    plain.call("PullImage", image={"image": name}, auth=right)
    plain.remove_image(name)
    encoded = {"auth": base64.b64encode(b"me:secret").decode()}
    plain.call("PullImage", image={"image": name}, auth=encoded)


def test_an_image_that_no_registry_has(plain: Node, shelf: Images) -> None:
    with refused("NOT_FOUND", "UNKNOWN"):
        plain.pull(f"{shelf.registry.host}/tests/i-nowhere:1")
    with refused():
        plain.pull("NOT/A:NAME:AT:ALL")


def test_file_system(plain: Node) -> None:
    found = plain.call("ImageFsInfo").image_filesystems
    assert len(found) >= 1
    assert found[0].timestamp > 0
    assert found[0].fs_id.mountpoint.startswith("/")
    assert found[0].used_bytes.value > 0
    assert found[0].inodes_used.value > 0


def test_names_of_the_default_registry(machine: Any, plain: Node, shelf: Images) -> None:
    if machine.engine is None:
        pytest.skip("the mirrors of another engine are not known")
    shelf.marked("library/i-hub", "latest", "1")
    for name in ("i-hub", "docker.io/library/i-hub:1"):
        plain.pull(name)
    image = plain.image_status("i-hub:1")
    assert list(image.repo_tags) == [
        "docker.io/library/i-hub:latest",
        "docker.io/library/i-hub:1",
    ]
    assert image.repo_digests[0].startswith("docker.io/library/i-hub@sha256:")
    for name in ("i-hub", "library/i-hub", "docker.io/i-hub:latest"):
        assert plain.image_status(name) == image
    plain.remove_image("i-hub")


def test_verbose_status(plain: Node) -> None:
    assert plain.call("ImageStatus", image={"image": plain.image}, verbose=True).info["info"]
    assert not plain.call("ImageStatus", image={"image": plain.image}).info


def test_many_pulls_of_one_image(plain: Node, shelf: Images) -> None:
    name = shelf.marked("tests/i-together", "1") + ":1"
    calls = [plain.call.later("PullImage", image={"image": name}) for _ in range(4)]
    assert len({call.result().image_ref for call in calls}) == 1
