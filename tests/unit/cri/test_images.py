"""ImageService: what a kubelet asks of images, answered from a real store."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from isula_cri import messages
from isula_cri.images import ImageService
from isula_edge import errors
from isula_edge.container.table import Table
from isula_edge.image.store import ImageStore
from isula_edge.service import cri_images
from isula_edge.service.config import CriConfig, EngineConfig
from isula_edge.service.events import Events
from isula_edge.service.images import Images
from isula_edge.snapshot import LayerStore

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from isula_edge.image.store import Image
    from isula_edge.service.engine import Engine

DIGEST = "sha256:" + "d" * 64


@dataclass
class Rig:
    """A service over real stores; pulls are written down."""

    images: Images
    store: ImageStore
    service: ImageService
    engine: Engine
    pulls: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def add(
        self,
        number: int,
        *names: str,
        digests: tuple[str, ...] = (),
        user: object = "",
        size: int = 7,
    ) -> Image:
        document = {"config": {"User": user, "Labels": {"a": "b"}}}
        return self.store.put(
            {
                "id": f"{number:064x}",
                "config": json.dumps(document).encode(),
                "chain_ids": [],
                "names": list(names),
                "digest_refs": list(digests),
                "size": size,
            }
        )

    def status(self, ref: str, *, verbose: bool = False) -> Any:
        request = messages.ImageStatusRequest(image={"image": ref}, verbose=verbose)
        return asyncio.run(self.service.ImageStatus(request, None))

    def ids(self, ref: str = "") -> list[int]:
        """Numbers of the images that are listed."""
        request = messages.ListImagesRequest(filter={"image": {"image": ref}})
        answer = asyncio.run(self.service.ListImages(request, None))
        return [int(image.id.removeprefix("sha256:"), 16) for image in answer.images]

    def remove(self, *refs: str) -> None:
        """Removes by all ``refs`` at once."""

        async def work() -> None:
            requests = [messages.RemoveImageRequest(image={"image": ref}) for ref in refs]
            await asyncio.gather(*(self.service.RemoveImage(item, None) for item in requests))

        asyncio.run(work())

    def pull(self, ref: str, **auth: str) -> str:
        request = messages.PullImageRequest(image={"image": ref}, auth=auth)
        return str(asyncio.run(self.service.PullImage(request, None)).image_ref)


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return made(tmp_path, monkeypatch)


def made(graph: Path, monkeypatch: pytest.MonkeyPatch, **config: Any) -> Rig:
    (graph / "storage/vfs/rw").mkdir(parents=True)
    layers, store, table = LayerStore(str(graph), "vfs"), ImageStore(str(graph)), Table(str(graph))
    settings = EngineConfig(graph=str(graph), **config)
    images = Images(settings, store, layers, table, cast("Any", None), Events())
    fake = SimpleNamespace(config=settings, images=images, layers=layers, table=table)
    engine = cast("Engine", fake)
    found = Rig(images, store, ImageService(engine), engine)

    async def pull(ref: str, platform: str, progress: Any, auth: Mapping[str, str]) -> Any:
        del platform, progress
        found.pulls.append((ref, dict(auth)))
        return {"ref": ref, "id": "ab" * 32}

    monkeypatch.setattr(images, "pull", pull)
    return found


def use(rig: Rig, image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says that a container uses ``image``."""
    table = rig.engine.table
    monkeypatch.setattr(table, "uses", lambda: {image.id: [SimpleNamespace(id="c0ffee")]})


def test_names_are_whole_and_in_the_order_of_pulling(rig: Rig) -> None:
    rig.add(1, "busybox:3", "localhost:5000/a/b:1", digests=(f"busybox@{DIGEST}",))
    rig.add(1, "busybox:1")
    image = (rig.status("busybox:3")).image
    assert list(image.repo_tags) == [
        "docker.io/library/busybox:3",
        "localhost:5000/a/b:1",
        "docker.io/library/busybox:1",
    ]
    assert list(image.repo_digests) == [f"docker.io/library/busybox@{DIGEST}"]
    assert image.id == f"sha256:{1:064x}"
    assert image.size == 7
    assert image.spec.image == "docker.io/library/busybox:3"


@pytest.mark.parametrize(
    "ref",
    [
        f"{1:064x}",
        f"sha256:{1:064x}",
        "0000000000",
        "sha256:0000000000",
        "busybox",
        "busybox:latest",
        "docker.io/library/busybox:latest",
        "index.docker.io/library/busybox",
        f"busybox@{DIGEST}",
        f"docker.io/library/busybox@{DIGEST}",
        f"busybox:other@{DIGEST}",
        "localhost:5000/busybox:1",
        f"localhost:5000/busybox:2@{DIGEST}",
    ],
)
def test_every_kind_of_reference_gives_the_same_answer(rig: Rig, ref: str) -> None:
    names = ("busybox:latest", "localhost:5000/busybox:1")
    rig.add(1, *names, digests=(f"busybox@{DIGEST}", f"localhost:5000/busybox@{DIGEST}"))
    rig.add(1 << 255)
    answer = rig.status(ref)
    assert answer == rig.status(f"{1:064x}")
    assert answer.HasField("image")
    assert rig.ids(ref) == [1]


def test_an_id_goes_before_a_name_that_looks_like_it(rig: Rig) -> None:
    rig.add(1)
    rig.add(2, f"sha256:{1:064x}")
    assert (rig.status(f"sha256:{1:064x}")).image.id == f"sha256:{1:064x}"


@pytest.mark.parametrize("ref", ["other", f"{2:064x}", f"busybox@{DIGEST}", "Not A Name", "0000"])
def test_an_absent_image_is_unset_and_no_error(rig: Rig, ref: str) -> None:
    rig.add(1, "busybox")
    rig.add(3, "third")
    answer = rig.status(ref, verbose=True)
    assert not answer.HasField("image")
    assert not answer.info
    assert rig.ids(ref) == []


def test_a_request_for_no_image_is_refused(rig: Rig) -> None:
    for call in (rig.status, rig.remove, rig.pull):
        with pytest.raises(errors.InvalidArgument):
            call("")


def test_info_is_there_when_asked_for(rig: Rig) -> None:
    rig.add(1, "busybox", user="7")
    assert not (rig.status("busybox")).info
    info = json.loads((rig.status("busybox", verbose=True)).info["info"])
    assert info["imageSpec"]["config"]["User"] == "7"
    assert info["labels"] == {"a": "b"}


@pytest.mark.parametrize(
    ("user", "uid", "username"),
    [
        ("", None, ""),
        ("0", 0, ""),
        ("1002", 1002, ""),
        ("www-data", None, "www-data"),
        ("1003:users", 1003, ""),
        ("www-data:100", None, "www-data"),
        ("9" * 5000, None, "9" * 5000),
        ("²", None, "²"),
        ("a\ud800", None, "a?"),
        (None, None, ""),
    ],
)
def test_the_user_is_a_number_or_a_name(
    rig: Rig, user: object, uid: int | None, username: str
) -> None:
    rig.add(1, "busybox", user=user)
    image = (rig.status("busybox")).image
    assert (image.uid.value if image.HasField("uid") else None) == uid
    assert image.username == username


def test_an_image_without_layers_has_a_size(rig: Rig) -> None:
    rig.add(1, "busybox", size=0)
    assert (rig.status("busybox")).image.size > 0


def test_a_repository_lists_all_its_images(rig: Rig) -> None:
    rig.add(1, "busybox:1")
    rig.add(2, digests=(f"busybox@{DIGEST}",))
    rig.add(3, "busybox2:1")
    assert rig.ids("docker.io/library/busybox") == [1, 2]
    assert rig.ids("busybox:9") == []
    assert rig.ids() == [1, 2, 3]


@pytest.mark.parametrize(("count", "pages"), [(0, []), (1, [1]), (100, [100]), (101, [100, 1])])
def test_a_stream_has_pages_and_none_is_empty(
    rig: Rig, count: int, pages: list[int]
) -> None:
    for number in range(count):
        rig.add(number + 1)
    async def read() -> list[Any]:
        stream = rig.service.StreamImages(messages.StreamImagesRequest(), None)
        return [page.images async for page in stream]

    found = asyncio.run(read())
    assert [len(images) for images in found] == pages
    assert len({image.id for images in found for image in images}) == count


def test_the_image_of_pods_is_pinned(rig: Rig) -> None:
    rig.add(1, "pause:3.9")
    rig.add(2, "busybox")
    rig.engine.config = EngineConfig(
        cri=CriConfig(pod_sandbox_image="docker.io/library/pause:3.9")
    )
    assert (rig.status("pause:3.9")).image.pinned
    assert not (rig.status("busybox")).image.pinned
    answer = asyncio.run(rig.service.ListImages(messages.ListImagesRequest(), None))
    assert [image.pinned for image in answer.images] == [True, False]


def test_removal_by_any_name_takes_all_names(rig: Rig) -> None:
    digest = f"b@{DIGEST}"
    for ref in ("a:1", "sha256:" + f"{1:064x}", f"docker.io/library/{digest}"):
        rig.add(1, "a:1", "b:1", digests=(digest,))
        rig.remove(ref)
        assert rig.ids() == []


def test_removal_of_what_is_not_there_is_fine(rig: Rig) -> None:
    rig.remove("0" * 64)
    rig.remove("busybox")


def test_removals_at_once_do_not_fail(rig: Rig) -> None:
    rig.add(1, "a:1", "b:1")
    rig.remove("a:1", "b:1", f"{1:064x}", "a:1")
    assert rig.ids() == []


def test_an_image_in_use_stays_without_names(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = rig.add(1, "a:1", digests=(f"a@{DIGEST}",))
    use(rig, image, monkeypatch)
    rig.remove("a:1")
    assert not (rig.status("a:1")).HasField("image")
    left = (rig.status(image.id)).image
    assert not left.repo_tags
    assert not left.repo_digests
    rig.remove(image.id)
    assert rig.ids() == [1]


def test_a_pull_answers_with_the_id_that_the_status_shows(rig: Rig) -> None:
    assert rig.pull("localhost:5000/a:1") == "sha256:" + "ab" * 32
    assert rig.pulls == [("localhost:5000/a:1", {})]


def test_a_name_without_a_host_is_docker_hubs(rig: Rig) -> None:
    rig.pull("busybox")
    rig.pull(f"a/b@{DIGEST}")
    assert [ref for ref, _ in rig.pulls] == [
        "docker.io/library/busybox:latest",
        f"docker.io/a/b@{DIGEST}",
    ]


def test_mirrors_get_names_without_a_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = made(tmp_path, monkeypatch, registry_mirrors=("https://mirror.example",))
    rig.pull("busybox")
    assert rig.pulls[0][0] == "busybox"


PAIR = base64.b64encode(b"me:se:cret\0\0").decode()


@pytest.mark.parametrize(
    ("auth", "wanted"),
    [
        ({}, {}),
        ({"server_address": "x.example"}, {}),
        ({"username": "me", "password": "x"}, {"username": "me", "password": "x"}),
        ({"auth": PAIR}, {"username": "me", "password": "se:cret"}),
        ({"auth": PAIR, "username": "you", "password": "x"}, {"username": "you", "password": "x"}),
        ({"identity_token": "t"}, {"identity_token": "t"}),
        (
            {"registry_token": "t", "server_address": "x.example"},
            {"registry_token": "t", "server_address": "x.example"},
        ),
    ],
)
def test_credentials(rig: Rig, auth: dict[str, str], wanted: dict[str, str]) -> None:
    rig.pull("x.example/a", **auth)
    assert rig.pulls[0][1] == wanted


@pytest.mark.parametrize("auth", ["***", base64.b64encode(b"no colon").decode(), "/w=="])
def test_bad_credentials_are_refused(rig: Rig, auth: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        rig.pull("x.example/a", auth=auth)
    assert rig.pulls == []


def test_the_image_of_a_container_must_be_there(rig: Rig) -> None:
    image = rig.add(1, "busybox")
    assert cri_images.resolve_image(rig.engine, "busybox") is image
    assert cri_images.image_ref(image) == cri_images.image_id(image) == f"sha256:{1:064x}"
    rig.add(1, digests=(f"busybox@{DIGEST}",))
    assert cri_images.image_ref(image) == f"docker.io/library/busybox@{DIGEST}"
    with pytest.raises(errors.NotFound):
        cri_images.resolve_image(rig.engine, "other")


class Space:
    """What ImageFsInfo says of layers in directories of a test's own."""

    def __init__(self, rig: Rig, home: Path) -> None:
        self.rig, self.home = rig, home

    def layer(self, name: str) -> Path:
        folder = self.home / name
        folder.mkdir()
        (folder / "file").write_bytes(b"x" * 100_000)
        return folder

    def measured(self) -> tuple[int, int, int]:
        """Bytes and inodes of images, inodes of containers."""
        request = messages.ImageFsInfoRequest()
        answer = asyncio.run(self.rig.service.ImageFsInfo(request, None))
        (images,), (containers,) = answer.image_filesystems, answer.container_filesystems
        assert min(images.timestamp, containers.timestamp) > 0
        assert images.fs_id.mountpoint == containers.fs_id.mountpoint
        assert os.path.ismount(images.fs_id.mountpoint)
        assert str(self.home).startswith(images.fs_id.mountpoint)
        return images.used_bytes.value, images.inodes_used.value, containers.inodes_used.value


@pytest.fixture
def space(rig: Rig, tmp_path: Path) -> Space:
    return Space(rig, tmp_path / "storage/vfs")


def test_space_of_images_and_containers(space: Space) -> None:
    assert space.measured() == (0, 0, 1)
    space.layer("a")
    space.layer("ingest-1")
    size, inodes, _ = space.measured()
    assert size >= 100_000
    assert inodes == 2
    # what containers write is not counted every time
    (space.home / "rw/c").mkdir()
    assert space.measured() == (size, 2, 1)
    space.rig.service._usage = cri_images.ImageUsage(space.rig.engine, every_s=0)
    assert space.measured() == (size, 2, 2)


@pytest.mark.parametrize(("style", "counted"), [("overlay", 4), ("merge", 5)])
def test_a_layer_is_counted_again_only_where_layers_share_files(
    space: Space, monkeypatch: pytest.MonkeyPatch, style: str, counted: int
) -> None:
    monkeypatch.setattr(space.rig.engine.layers.driver, "style", style)
    first = space.layer("a")
    assert space.measured()[1] == 2
    (first / "more").touch()
    assert space.measured()[1] == 2
    space.layer("b")
    assert space.measured()[1] == counted


def test_layers_that_share_a_file_count_it_once_and_may_go(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space.rig.engine.layers.driver, "style", "merge")
    first = space.layer("a")
    (space.home / "b").mkdir()
    os.link(first / "file", space.home / "b/file")
    size, inodes, _ = space.measured()
    assert 100_000 <= size < 200_000
    assert inodes == 3
    shutil.rmtree(first)
    assert space.measured()[1] == 2
    shutil.rmtree(space.home / "b")
    assert space.measured()[:2] == (0, 0)
