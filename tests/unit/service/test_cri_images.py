"""Names and space of images as the CRI has them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from isula_edge import errors
from isula_edge.service import cri_images
from isula_edge.service.cri_images import ImageUsage
from isula_edge.sys.usage import TreeUsage

if TYPE_CHECKING:
    from pathlib import Path

    from isula_edge.service.engine import Engine

DIGEST = "sha256:" + "d" * 64


def image(*names: str, digests: tuple[str, ...] = (), user: object = "") -> Any:
    return SimpleNamespace(
        id="1" * 64, names=list(names), digests=list(digests), run_config={"User": user}
    )


class Store:
    """Knows what it is asked for."""

    def __init__(self, *known: str) -> None:
        self.known = known
        self.asked: list[str] = []

    def find(self, ref: str) -> Any:
        self.asked.append(ref)
        return image() if ref in self.known else None


def test_ids() -> None:
    assert cri_images.image_id("") == ""
    assert cri_images.image_id("ab") == "sha256:ab"
    assert cri_images.image_id(image()) == "sha256:" + "1" * 64


@pytest.mark.parametrize("ref", ["1" * 64, "sha256:" + "1" * 64])
def test_an_id_is_never_a_repository(ref: str) -> None:
    store = Store("1" * 64)
    assert cri_images.find(cast("Any", store), ref) is not None
    assert store.asked == ["1" * 64]


@pytest.mark.parametrize(
    "ref", ["busybox", "busybox:latest", "docker.io/library/busybox", "index.docker.io/busybox"]
)
def test_names_are_found_however_they_are_written(ref: str) -> None:
    assert cri_images.find(cast("Any", Store("busybox:latest")), ref) is not None


@pytest.mark.parametrize("ref", ["", " ", "A B", "busybox:", "sha256:", "\0", "a" * 5000, "../x"])
def test_what_is_no_name_is_no_image(ref: str) -> None:
    assert cri_images.find(cast("Any", Store("busybox:latest")), ref) is None
    engine = SimpleNamespace(images=SimpleNamespace(store=Store()))
    with pytest.raises(errors.NotFound, match="is not present") as caught:
        cri_images.resolve_image(cast("Engine", engine), ref)
    assert caught.value.ref == ref


def test_tags_and_digests() -> None:
    found = image(
        "busybox:1", "r.io/a:2", f"r.io/a@{DIGEST}", digests=(f"busybox@{DIGEST}",)
    )
    assert cri_images.repo_tags(found) == ["docker.io/library/busybox:1", "r.io/a:2"]
    assert cri_images.repo_digests(found) == [
        f"docker.io/library/busybox@{DIGEST}",
        f"r.io/a@{DIGEST}",
    ]
    assert cri_images.image_ref(found) == f"docker.io/library/busybox@{DIGEST}"
    assert cri_images.image_ref(image("busybox:1")) == "sha256:" + "1" * 64


def test_a_name_is_told_once() -> None:
    found = image(f"busybox@{DIGEST}", digests=(f"docker.io/library/busybox@{DIGEST}",))
    assert len(cri_images.repo_digests(found)) == 1


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("busybox", "docker.io/library/busybox"),
        ("busybox:1", "docker.io/library/busybox"),
        ("r.io:5000/a/b:1", "r.io:5000/a/b"),
        (f"r.io/a@{DIGEST}", "r.io/a"),
        ("A B", ""),
        ("", ""),
    ],
)
def test_repositories(name: str, repository: str) -> None:
    assert cri_images.repository(name) == repository


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", (None, "")),
        (None, (None, "")),
        ("0", (0, "")),
        ("1000:1000", (1000, "")),
        ("www", (None, "www")),
        ("www:5", (None, "www")),
        (1000, (1000, "")),
        ("-1", (None, "-1")),
        ("99999999999", (None, "99999999999")),
        ("²", (None, "²")),
        ("a\ud800", (None, "a?")),
    ],
)
def test_users(user: object, expected: tuple[int | None, str]) -> None:
    assert cri_images.user_of(image(user=user)) == expected


# space


def engine(home: Path, style: str = "stack") -> Engine:
    driver = SimpleNamespace(home=str(home), style=style)
    return cast("Engine", SimpleNamespace(layers=SimpleNamespace(driver=driver), table=[]))


def layer(home: Path, name: str, size: int) -> None:
    (home / name).mkdir()
    (home / name / "file").write_bytes(b"x" * size)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "rw").mkdir()
    layer(tmp_path, "a", 10)
    layer(tmp_path, "ingest-b", 10)
    return tmp_path


def test_what_is_a_layer(home: Path) -> None:
    assert cri_images._listed(str(home)) == [f"{home}/a"]


def test_layers_are_counted_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[tuple[str, ...]] = []

    def usage(*paths: str) -> TreeUsage:
        counted.append(paths)
        return TreeUsage(100, 2)

    monkeypatch.setattr(cri_images, "tree_usage", usage)

    async def work() -> None:
        found = ImageUsage(engine(home), every_s=3600)
        images, containers = await found.measure()
        assert (images.taken, containers.taken) == (TreeUsage(100, 2), TreeUsage(100, 2))
        assert images.timestamp_ns > 0
        assert counted == [(f"{home}/a",), (f"{home}/rw",)]
        # nothing is new
        assert await found.measure() == (images, containers)
        layer(home, "c", 5)
        more, _ = await found.measure()
        assert more.taken == TreeUsage(200, 4)
        assert counted[2:] == [(f"{home}/c",)]

    asyncio.run(work())


def test_layers_that_share_files_are_counted_together(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer(home, "b", 5)
    counted: list[tuple[str, ...]] = []

    def usage(*paths: str) -> TreeUsage:
        counted.append(paths)
        return TreeUsage(100, 2)

    monkeypatch.setattr(cri_images, "tree_usage", usage)

    async def work() -> None:
        images, _ = await ImageUsage(engine(home, "merge")).measure()
        assert images.taken == TreeUsage(100, 2)
        assert counted[0] == (f"{home}/a", f"{home}/b")

    asyncio.run(work())


def test_without_layers_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "rw").mkdir()
    images, containers = asyncio.run(ImageUsage(engine(tmp_path)).measure())
    assert images.taken == TreeUsage(0, 0)
    assert images.mountpoint
    assert containers.taken.inodes > 0
