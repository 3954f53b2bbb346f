"""Saved images: one archive for every engine, the same bytes every time."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image import source as sources
from isula_edge.image.load import load
from isula_edge.image.save import Saved, TarWriter, save
from isula_edge.snapshot import LayerStore
from isula_edge.types import ChainId, Digest
from tests.fakes.images import FakeImage, FakeLayer, docker_archive, make_image
from tests.fakes.jobs import FakeDaemon

if TYPE_CHECKING:
    from pathlib import Path

BASE = FakeLayer.of({"etc/name": b"base" * 50_000})
TOP = FakeLayer.of({"big": os.urandom(100_000)})
IMAGE = make_image([BASE, TOP])
OTHER = make_image([BASE, FakeLayer.of({"other": b"1"})])
# the layer of IMAGE's top at another place
MOVED = make_image([TOP])


@pytest.fixture
def full(store: LayerStore, graph: Path) -> LayerStore:
    """A store with the layers of all images."""
    path = graph / "archive"
    path.write_bytes(docker_archive({"a:1": IMAGE, "b:1": OTHER, "c:1": MOVED}))
    with sources.open_source(str(path), -1) as source:
        load(source, store, FakeDaemon().job, tmpdir=str(graph / "tmp"))
    return store


def saved(
    store: LayerStore,
    *images: tuple[FakeImage, list[str]],
    excluded: list[str] | None = None,
    kind: str = "",
) -> bytes:
    """The archive of ``images``."""
    path = f"{store.driver.home}/../out.tar"
    wanted = [Saved(image.config, image.chain_ids, names) for image, names in images]
    with open(path, "wb") as file:
        result = save(file.fileno(), wanted, excluded or [], kind, store, FakeDaemon().job)
    with open(path, "rb") as file:
        data = file.read()
    assert result == {"size": len(data)}
    return data


def files_of(data: bytes) -> dict[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                assert member.name not in found
                found[member.name] = content.read()
    return found


def document(files: dict[str, bytes], name: str) -> Any:
    return json.loads(files[name])


def blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def test_every_blob_is_what_its_name_says(full: LayerStore) -> None:
    files = files_of(saved(full, (IMAGE, ["a:1"]), (OTHER, []), (MOVED, ["x.io/c:1", "c:2"])))
    blobs = {name: data for name, data in files.items() if name.startswith("blobs/")}
    for name, data in blobs.items():
        assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    layers = {BASE.diff_id, TOP.diff_id, OTHER.layers[1].diff_id}
    # three layers, three configurations, three manifests
    assert len(blobs) == 9
    assert {blob(layer) for layer in layers} < set(blobs)
    assert set(files) - set(blobs) == {"index.json", "manifest.json", "oci-layout"}


def test_both_lists_lead_to_the_same_images(full: LayerStore) -> None:
    files = files_of(saved(full, (IMAGE, ["a:1", "x.io/b:2"]), (OTHER, [])))
    assert document(files, "oci-layout") == {"imageLayoutVersion": "1.0.0"}
    assert document(files, "manifest.json") == [
        {
            "Config": f"blobs/sha256/{IMAGE.id}",
            "RepoTags": ["a:1", "x.io/b:2"],
            "Layers": [blob(layer.diff_id) for layer in IMAGE.layers],
        },
        {
            "Config": f"blobs/sha256/{OTHER.id}",
            "RepoTags": None,
            "Layers": [blob(layer.diff_id) for layer in OTHER.layers],
        },
    ]
    entries = document(files, "index.json")["manifests"]
    names = [
        entry.get("annotations", {}).get("org.opencontainers.image.ref.name") for entry in entries
    ]
    assert names == ["docker.io/library/a:1", "x.io/b:2", None]
    for entry, image in zip(entries, (IMAGE, IMAGE, OTHER), strict=True):
        data = files[blob(entry["digest"])]
        assert entry["size"] == len(data)
        manifest = json.loads(data)
        assert manifest["config"]["digest"] == f"sha256:{image.id}"
        assert files[blob(manifest["config"]["digest"])] == image.config
        found = [(layer["digest"], layer["size"]) for layer in manifest["layers"]]
        assert found == [(layer.diff_id, len(layer.tar)) for layer in image.layers]
        assert {layer["mediaType"] for layer in manifest["layers"]} == {
            "application/vnd.oci.image.layer.v1.tar"
        }


def test_the_same_images_are_the_same_bytes(
    full: LayerStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = saved(full, (IMAGE, ["a:1"]), (OTHER, ["b:1"]))
    # another engine, at another time
    (tmp_path / "two" / "storage" / "vfs" / "rw").mkdir(parents=True)
    (tmp_path / "two" / "tmp").mkdir()
    other = LayerStore(str(tmp_path / "two"), "vfs")
    monkeypatch.setattr("time.time", lambda: 5.0)
    (tmp_path / "archive").write_bytes(first)
    with sources.open_source(str(tmp_path / "archive"), -1) as source:
        load(source, other, FakeDaemon().job, tmpdir=str(tmp_path / "two" / "tmp"))
    assert saved(other, (IMAGE, ["a:1"]), (OTHER, ["b:1"])) == first
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == sorted(member.name for member in members)
    assert {(member.mtime, member.uid, member.uname) for member in members} == {(0, 0, "")}


@pytest.mark.parametrize("kind", ["", "docker", "oci"])
def test_it_is_loaded_as_it_was(full: LayerStore, tmp_path: Path, kind: str) -> None:
    data = saved(full, (IMAGE, ["a:1", "a:2"]), (OTHER, []), kind=kind)
    assert ("manifest.json" in files_of(data)) == (kind != "oci")
    (tmp_path / "archive").write_bytes(data)
    for name in ("storage/vfs/rw", "tmp"):
        (tmp_path / "new" / name).mkdir(parents=True)
    daemon = FakeDaemon()
    with sources.open_source(str(tmp_path / "archive"), -1) as source:
        store = LayerStore(str(tmp_path / "new"), "vfs")
        result = load(source, store, daemon.job, tmpdir=str(tmp_path / "new" / "tmp"))
    assert result["images"] == ["a:1", "a:2", OTHER.id]
    assert {event["id"] for event in daemon.of("image")} == {IMAGE.id, OTHER.id}
    assert {tuple(event["chain_ids"]) for event in daemon.of("image")} == {
        tuple(image.chain_ids) for image in (IMAGE, OTHER)
    }


def test_excluded_layers_are_named_and_not_there(full: LayerStore) -> None:
    files = files_of(saved(full, (IMAGE, ["a:1"]), excluded=IMAGE.chain_ids[:1]))
    assert blob(BASE.diff_id) not in files
    assert blob(TOP.diff_id) in files
    layers = [blob(layer.diff_id) for layer in IMAGE.layers]
    assert document(files, "manifest.json")[0]["Layers"] == layers
    # the same content at another place is another layer
    files = files_of(saved(full, (IMAGE, []), (MOVED, []), excluded=IMAGE.chain_ids))
    assert blob(TOP.diff_id) in files
    assert blob(BASE.diff_id) not in files


def test_what_is_missing_is_said_before_the_first_byte(full: LayerStore) -> None:
    path = f"{full.driver.home}/out"
    with open(path, "wb") as file:
        unknown = Saved(IMAGE.config, ["sha256:" + "0" * 64], [])
        with pytest.raises(errors.NotFound, match="No such layer"):
            save(file.fileno(), [unknown], [], "", full, FakeDaemon().job)
        os.truncate(full.recipe(ChainId(IMAGE.chain_ids[1])), 20)
        wanted = Saved(IMAGE.config, IMAGE.chain_ids, [])
        with pytest.raises(errors.DataLoss, match=r"recipe .* is damaged"):
            save(file.fileno(), [wanted], [], "", full, FakeDaemon().job)
        old = full.begin(None)
        chain = ChainId("sha256:" + "9" * 64)
        old.commit(chain, Digest(chain))
        with pytest.raises(errors.NotFound, match="kept no recipes"):
            save(file.fileno(), [Saved(b"{}", [chain], [])], [], "", full, FakeDaemon().job)
    assert os.stat(path).st_size == 0


def test_a_cancelled_save_ends(full: LayerStore) -> None:
    daemon = FakeDaemon()
    daemon.job.cancel()
    with open(f"{full.driver.home}/out", "wb") as file, pytest.raises(errors.Aborted):
        save(file.fileno(), [Saved(IMAGE.config, IMAGE.chain_ids, [])], [], "", full, daemon.job)


def test_a_header_for_a_very_large_layer(tmp_path: Path) -> None:
    path = tmp_path / "tar"
    with path.open("wb") as file:
        info = tarfile.TarInfo("layer")
        info.size = 20 << 30
        TarWriter(file.fileno()).entry(info)
        file.truncate(512 + (20 << 30) + 1024)
    with tarfile.open(path) as archive:
        assert [member.size for member in archive] == [20 << 30]
