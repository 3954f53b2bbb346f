"""Archives: docker save of all ages, OCI layouts, compressed, from a pipe, incomplete."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import threading
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image import archive_images
from isula_edge.image import source as sources
from isula_edge.image.archive import Archive
from isula_edge.image.archive_images import images_of
from isula_edge.image.load import load
from tests.fakes.images import (
    FakeLayer,
    add_file,
    docker_archive,
    make_image,
    oci_archive,
    sha256,
)
from tests.fakes.jobs import FakeDaemon

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from isula_edge.snapshot import LayerStore

BASE = FakeLayer.of({"etc/name": b"base"})
TOP = FakeLayer.of({"big": os.urandom(100_000)})
IMAGE = make_image([BASE, TOP])
OTHER = make_image([BASE, FakeLayer.of({"other": b"1"})])


class Loader:
    """Loads into one store and keeps what the daemon was told last."""

    def __init__(self, store: LayerStore, graph: Path) -> None:
        self._store = store
        self.graph = graph
        self.daemon = FakeDaemon()

    def __call__(self, data: bytes, held: set[str] | None = None, **options: Any) -> Any:
        path = self.graph / "archive"
        path.write_bytes(data)
        self.daemon = FakeDaemon(held)
        with sources.open_source(str(path), -1) as source:
            return load(
                source, self._store, self.daemon.job, tmpdir=str(self.graph / "tmp"), **options
            )

    def piped(self, data: bytes) -> Any:
        """The same from a pipe."""
        read_end, write_end = os.pipe()

        def write() -> None:
            with open(write_end, "wb") as file:
                file.write(data)

        writer = threading.Thread(target=write)
        writer.start()
        self.daemon = FakeDaemon()
        with sources.open_source("", read_end) as source:
            result = load(source, self._store, self.daemon.job, tmpdir=str(self.graph / "tmp"))
        writer.join()
        return result

    def leftovers(self) -> list[str]:
        """Temporary files and unfinished layers."""
        ingests = [name for name in os.listdir(self.graph / "storage/vfs") if "ingest" in name]
        return ingests + os.listdir(self.graph / "tmp")


@pytest.fixture
def loader(store: LayerStore, graph: Path) -> Loader:
    return Loader(store, graph)


def test_docker_archive(loader: Loader) -> None:
    data = docker_archive({"busybox:1,docker.io/library/other": IMAGE})
    assert loader(data) == {"images": ["busybox:1", "other:latest"]}
    brought = loader.daemon.image
    assert brought["id"] == IMAGE.id
    assert brought["config"] == IMAGE.config
    assert brought["names"] == ["busybox:1", "other:latest"]
    assert brought["chain_ids"] == IMAGE.chain_ids
    assert brought["size"] > 100_000
    assert brought["manifest_digest"] == sha256(brought["manifest"])
    digests = [f"{name}@{brought['manifest_digest']}" for name in ("busybox", "other")]
    assert brought["digest_refs"] == digests
    manifest = json.loads(brought["manifest"])
    assert [item["digest"] for item in manifest["layers"]] == [BASE.diff_id, TOP.diff_id]
    assert [item["size"] for item in manifest["layers"]] == [len(BASE.tar), len(TOP.tar)]
    assert loader.daemon.of("need") == [IMAGE.chain_ids]
    assert loader.daemon.of("layer") == IMAGE.chain_ids
    assert loader.leftovers() == []


def test_several_images(loader: Loader) -> None:
    result = loader(docker_archive({"a:1": IMAGE, "": OTHER}))
    assert result == {"images": ["a:1", OTHER.id]}
    assert [image["id"] for image in loader.daemon.of("image")] == [IMAGE.id, OTHER.id]
    # the layer they share is unpacked once
    assert loader.daemon.of("layer") == [*IMAGE.chain_ids, OTHER.chain_ids[1]]


def test_tag(loader: Loader) -> None:
    assert loader(docker_archive({"a:1": IMAGE}), tag="new")["images"] == ["new:latest"]
    with pytest.raises(errors.InvalidArgument, match="Can not use --tag option because more than"):
        loader(docker_archive({"a:1": IMAGE, "b:1": OTHER}), tag="new")
    with pytest.raises(errors.InvalidArgument, match="Invalid image name:K~"):
        loader(docker_archive({"a:1": IMAGE}), tag="K~")
    # names of the archive that are replaced need not be good
    assert loader(docker_archive({"K~": IMAGE}), tag="new")["images"] == ["new:latest"]


def test_a_bad_name_in_the_archive(loader: Loader) -> None:
    data = docker_archive({"a:1": IMAGE, "K~": OTHER})
    with pytest.raises(errors.InvalidArgument, match="Contain invalid image name in tar archive"):
        loader(data)
    assert loader.daemon.events == []


COMPRESSIONS: list[Callable[[bytes], bytes]] = [gzip.compress, bz2.compress, lzma.compress]


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_compressed(loader: Loader, compress: Callable[[bytes], bytes]) -> None:
    assert loader(compress(docker_archive({"a:1": IMAGE})))["images"] == ["a:1"]
    assert loader.leftovers() == []


def test_zstd(loader: Loader) -> None:
    zstandard = pytest.importorskip("zstandard")
    data = zstandard.ZstdCompressor().compress(docker_archive({"a:1": IMAGE}))
    assert loader(data)["images"] == ["a:1"]


def test_from_a_pipe(loader: Loader) -> None:
    assert loader.piped(docker_archive({"a:1": IMAGE})) == {"images": ["a:1"]}
    assert loader.piped(gzip.compress(oci_archive([({}, IMAGE)]))) == {"images": [IMAGE.id]}
    assert loader.leftovers() == []


def test_missing_layers_are_taken_from_the_store(loader: Loader) -> None:
    loader(docker_archive({"a:1": IMAGE}))
    data = docker_archive({"a:1": IMAGE}, leave_out=[BASE.diff_id])
    assert loader(data, held={IMAGE.chain_ids[0]})["images"] == ["a:1"]
    size = json.loads(loader.daemon.image["manifest"])["layers"][0]["size"]
    assert size == len(BASE.tar)
    with pytest.raises(errors.NotFound, match=r"layer\.tar no such file") as caught:
        loader(data)
    assert caught.value.ref == BASE.diff_id
    assert f"lacks layer {BASE.diff_id} of a:1" in str(caught.value)
    # nothing was unpacked for it
    assert loader.daemon.of("image") == loader.daemon.of("layer") == []


def test_layers_that_are_links(loader: Loader) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        add_file(archive, "one/layer.tar", BASE.tar)
        link = tarfile.TarInfo("two/layer.tar")
        link.type = tarfile.SYMTYPE
        link.linkname = "../one/layer.tar"
        archive.addfile(link)
        image = make_image([BASE, BASE])
        add_file(archive, "c.json", image.config)
        layers = ["one/layer.tar", "./two/layer.tar"]
        listed = [{"Config": "c.json", "RepoTags": None, "Layers": layers}]
        add_file(archive, "manifest.json", json.dumps(listed).encode())
    assert loader(out.getvalue())["images"] == [image.id]


def test_docker_archive_that_is_an_oci_layout_too(loader: Loader) -> None:
    """Docker 25 and later: manifest.json names blobs, which may be compressed."""
    out = io.BytesIO(oci_archive([({}, IMAGE)]))
    with tarfile.open(fileobj=out, mode="a") as archive:
        blobs = [f"blobs/sha256/{layer.digest[7:]}" for layer in IMAGE.layers]
        config = f"blobs/sha256/{sha256(IMAGE.config)[7:]}"
        listed = [{"Config": config, "RepoTags": ["a:1"], "Layers": blobs}]
        add_file(archive, "manifest.json", json.dumps(listed).encode())
    assert loader(out.getvalue())["images"] == ["a:1"]


FULL, SHORT = "io.containerd.image.name", "org.opencontainers.image.ref.name"


@pytest.mark.parametrize(
    ("annotations", "names"),
    [
        ({FULL: "docker.io/library/a:1", SHORT: "1"}, ["a:1"]),
        ({SHORT: "h.io/a:1"}, ["h.io/a:1"]),
        ({SHORT: "latest"}, []),
        ({}, []),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_oci_layout(
    loader: Loader, annotations: dict[str, str], names: list[str], nested: bool
) -> None:
    data = oci_archive([(annotations, IMAGE)], nested=nested)
    result = loader(data, platform="linux/amd64")
    assert result == {"images": names or [IMAGE.id]}
    brought = loader.daemon.image
    assert brought["manifest"] == IMAGE.manifest
    assert brought["manifest_digest"] == IMAGE.digest
    assert brought["names"] == names
    assert len(brought["digest_refs"]) == len(names)


def test_oci_layout_with_the_same_name_for_two_platforms(loader: Loader) -> None:
    arm = make_image([TOP], platform={"os": "linux", "architecture": "arm64"})
    data = oci_archive([({FULL: "a:1"}, IMAGE), ({FULL: "a:1"}, arm)])
    assert loader(data, platform="linux/arm64")["images"] == ["a:1"]
    assert loader.daemon.image["id"] == arm.id
    with pytest.raises(errors.NotFound, match=r"a:1 has no image for linux/s390x"):
        loader(data, platform="linux/s390x")


def test_an_oci_layout_without_the_layers_of_the_base(loader: Loader) -> None:
    loader(oci_archive([({}, IMAGE)]))
    data = oci_archive([({FULL: "a:1"}, IMAGE)], leave_out=[BASE.digest])
    assert loader(data, held={IMAGE.chain_ids[0]})["images"] == ["a:1"]
    with pytest.raises(errors.NotFound, match=f"lacks layer {BASE.diff_id} of a:1"):
        loader(data)
    assert loader.daemon.of("layer") == []


def test_several_images_without_names_are_several_images(loader: Loader) -> None:
    assert loader(oci_archive([({}, IMAGE), ({}, OTHER)]))["images"] == [IMAGE.id, OTHER.id]
    # and one for each of several platforms is one
    arm = make_image([TOP], platform={"os": "linux", "architecture": "arm64"})
    data = oci_archive([({}, IMAGE), ({}, arm)])
    assert loader(data, platform="linux/arm64")["images"] == [arm.id]


def test_several_names_of_one_image(loader: Loader) -> None:
    data = oci_archive([({FULL: "a:1"}, IMAGE), ({FULL: "a:2"}, IMAGE)])
    assert loader(data)["images"] == ["a:1", "a:2"]
    assert {event["id"] for event in loader.daemon.of("image")} == {IMAGE.id}


def test_attestations_are_passed_over(loader: Loader) -> None:
    statement = make_image([OTHER.layers[1]], platform={"os": "unknown", "architecture": "unknown"})
    for nested in (False, True):
        data = oci_archive([({FULL: "a:1"}, IMAGE), ({}, statement)], nested=nested)
        assert loader(data, platform="linux/amd64")["images"] == ["a:1"]


@pytest.mark.parametrize("lie", ["", "+gzip", "+zstd"])
def test_a_layer_is_what_its_bytes_say(loader: Loader, lie: str) -> None:
    kind = f"application/vnd.oci.image.layer.v1.tar{lie}"
    for data in (BASE.tar, gzip.compress(BASE.tar), bz2.compress(BASE.tar)):
        image = make_image([FakeLayer(BASE.tar, data, kind)])
        assert loader(oci_archive([({}, image)]))["images"] == [image.id]


@pytest.mark.parametrize("make", ["docker", "layout"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_cut_off_archive_leaves_nothing(loader: Loader, make: str, packed: bool) -> None:
    whole = docker_archive({"a:1": IMAGE}) if make == "docker" else oci_archive([({}, IMAGE)])
    data = gzip.compress(whole, 1) if packed else whole
    # the rest is the end of the tar alone
    needed = len(data) - 4 if packed else len(whole.rstrip(b"\0")) - 1
    for end in [*range(1, needed, 7919), needed]:
        with pytest.raises(errors.EngineError):
            loader(data[:end])
        assert loader.daemon.of("image") == []
        assert loader.leftovers() == []


def test_an_image_that_fails_keeps_those_before_it(loader: Loader) -> None:
    rootfs = {"type": "layers", "diff_ids": [sha256(b"another")]}
    wrong = make_image([BASE], config={"rootfs": rootfs})
    data = docker_archive({"a:1": IMAGE, "b:1": wrong})
    with pytest.raises(errors.DigestMismatch):
        loader(data)
    assert [event["names"] for event in loader.daemon.of("image")] == [["a:1"]]
    assert loader.leftovers() == []


def test_oci_layout_with_wrong_blobs(loader: Loader) -> None:
    data = oci_archive([({}, IMAGE)])
    for digest in (IMAGE.digest, sha256(IMAGE.config), TOP.digest):
        missing = oci_archive([({}, IMAGE)], leave_out=[digest])
        with pytest.raises(errors.EngineError, match=f"{digest[7:]} no such file"):
            loader(missing)
    damaged = data.replace(TOP.blob[-200:], TOP.blob[-200:-1] + b"!")
    with pytest.raises(errors.EngineError):
        loader(damaged)
    assert loader.daemon.of("image") == []
    damaged = data.replace(IMAGE.config, IMAGE.config[:-1] + b" ")
    with pytest.raises(errors.DigestMismatch):
        loader(damaged)
    assert loader.leftovers() == []


def test_a_wrong_diff_id(loader: Loader) -> None:
    wrong = make_image([TOP, BASE])
    image = make_image([BASE, TOP], config=json.loads(wrong.config))
    with pytest.raises(errors.DigestMismatch, match="invalid diff id"):
        loader(docker_archive({"a:1": image}))
    assert loader.leftovers() == []


def tar_with(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        add_file(archive, name, data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (tar_with("x", b""), "Failed to load manifest.json file"),
        (tar_with("manifest.json", b"{"), "Failed to load manifest.json file"),
        (tar_with("manifest.json", b"[1]"), "Failed to load manifest.json file"),
        (tar_with("manifest.json", b"[]"), "names no image"),
        (tar_with("manifest.json", b'[{"Config": "c", "Layers": []}]'), "c no such file"),
        (tar_with("index.json", b'{"manifests": []}'), "names no image"),
        (tar_with("index.json", b"[]"), "no JSON object"),
        (b"", "not an archive"),
        (b"hello" * 500, "not an archive"),
    ],
)
def test_what_is_no_archive_of_images(loader: Loader, data: bytes, text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=text):
        loader(data)
    assert loader.leftovers() == []


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound, match="no such file"):
        sources.open_source(str(tmp_path / "absent"), -1)
    with pytest.raises(errors.InvalidArgument, match="not a regular file"):
        sources.open_source(str(tmp_path), -1)
    with pytest.raises(errors.InvalidArgument, match="not a regular file"):
        sources.open_source("/dev/zero", -1)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(errors.InvalidArgument, match="cannot read"):
        sources.open_source(str(tmp_path / "loop"), -1)


def listing_of(*configs: str, **files: bytes) -> bytes:
    """A docker-archive whose manifest.json names ``configs``, one image each."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            add_file(archive, name, data)
        listed = [{"Config": config, "Layers": ["layer"]} for config in configs]
        add_file(archive, "manifest.json", json.dumps(listed).encode())
    return out.getvalue()


def test_a_configuration_that_many_images_name_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(listing_of("c", "./c", "/c", c=b"{}"))
    with path.open("rb") as file:
        first, *others = images_of(Archive(file.fileno()), "")
    assert len(others) == 2
    assert all(image.config is first.config for image in others)
    path.write_bytes(oci_archive([({FULL: "a:1"}, IMAGE), ({FULL: "a:2"}, IMAGE)]))
    with path.open("rb") as file:
        one, two = images_of(Archive(file.fileno()), "")
    assert one.config is two.config
    assert one.manifest is two.manifest


def test_too_many_images(loader: Loader) -> None:
    with pytest.raises(errors.ResourceExhausted, match="has 257 images, at most 256"):
        loader(listing_of(*["c"] * 257, c=b"{}"))
    entries = [({FULL: f"a:{number}"}, IMAGE) for number in range(257)]
    with pytest.raises(errors.ResourceExhausted, match="has 257 images, at most 256"):
        loader(oci_archive(entries))


def test_configurations_together(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_images, "_MAX_KEPT", 1 << 20)
    half = b" " * (600 << 10)
    with pytest.raises(errors.ResourceExhausted, match="d: configurations and manifests"):
        loader(listing_of("c", "c", "d", c=half, d=half))


def test_a_layer_that_a_later_image_lacks_changes_nothing(loader: Loader) -> None:
    data = docker_archive({"a:1": IMAGE, "b:1": OTHER}, leave_out=[OTHER.layers[1].diff_id])
    with pytest.raises(errors.NotFound, match="of b:1"):
        loader(data)
    assert loader.daemon.of("image") == loader.daemon.of("layer") == []
    wrong = make_image([BASE], config={"rootfs": {"type": "layers", "diff_ids": []}})
    with pytest.raises(errors.InvalidArgument, match="0 diff_ids for 1 layers"):
        loader(docker_archive({"a:1": IMAGE, "b:1": wrong}))
    assert loader.daemon.of("image") == loader.daemon.of("layer") == []
