"""Small images made in memory: layers, configs, manifests, archives."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "DOCKER_GZIP",
    "DOCKER_MANIFEST",
    "OCI_GZIP",
    "OCI_INDEX",
    "OCI_MANIFEST",
    "FakeImage",
    "FakeLayer",
    "add_file",
    "docker_archive",
    "index",
    "make_image",
    "oci_archive",
    "sha256",
    "tar_of",
]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def sha256(data: bytes) -> str:
    """Digest of ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def add_file(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Adds a regular file."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A plain tar with these regular files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            add_file(archive, name, data)
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class FakeLayer:
    """A layer: its tar, the blob that holds it, the blob's media type."""

    tar: bytes
    blob: bytes
    media_type: str = OCI_GZIP

    @classmethod
    def of(cls, files: Mapping[str, bytes], media_type: str = OCI_GZIP) -> FakeLayer:
        """A gzip-compressed layer with these files."""
        tar = tar_of(files)
        return cls(tar, gzip.compress(tar, 6, mtime=0), media_type)

    @property
    def diff_id(self) -> str:
        """Digest of the tar."""
        return sha256(self.tar)

    @property
    def digest(self) -> str:
        """Digest of the blob."""
        return sha256(self.blob)


@dataclass(frozen=True, slots=True)
class FakeImage:
    """An image and everything that a registry holds of it."""

    config: bytes
    manifest: bytes
    media_type: str
    layers: tuple[FakeLayer, ...]
    platform: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest of the manifest."""
        return sha256(self.manifest)

    @property
    def id(self) -> str:
        """64 digits."""
        return hashlib.sha256(self.config).hexdigest()

    @property
    def chain_ids(self) -> list[str]:
        """Chain ids, bottom-up, by the text of the specification."""
        found: list[str] = []
        for layer in self.layers:
            text = f"{found[-1]} {layer.diff_id}".encode() if found else b""
            found.append(sha256(text) if found else layer.diff_id)
        return found

    @property
    def descriptor(self) -> dict[str, Any]:
        """Entry for an index."""
        size = len(self.manifest)
        entry: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": size}
        return entry | ({"platform": self.platform} if self.platform else {})


def make_image(
    layers: Sequence[FakeLayer],
    *,
    docker: bool = False,
    platform: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> FakeImage:
    """An image of ``layers``; ``config`` and ``manifest`` replace keys of the documents."""
    where = dict(platform or {"os": "linux", "architecture": "amd64"})
    document = {
        **where,
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        **(config or {}),
    }
    config_data = json.dumps(document).encode()
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    described = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {
            "mediaType": DOCKER_CONFIG if docker else OCI_CONFIG,
            "digest": sha256(config_data),
            "size": len(config_data),
        },
        "layers": [
            {"mediaType": layer.media_type, "digest": layer.digest, "size": len(layer.blob)}
            for layer in layers
        ],
        **(manifest or {}),
    }
    return FakeImage(config_data, json.dumps(described).encode(), media_type, tuple(layers), where)


def index(images: Sequence[FakeImage], extra: Sequence[Mapping[str, Any]] = ()) -> bytes:
    """An OCI index of ``images`` and of further descriptors."""
    entries = [*(image.descriptor for image in images), *extra]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()


def docker_archive(images: Mapping[str, FakeImage], *, leave_out: Sequence[str] = ()) -> bytes:
    """What ``docker save`` of up to version 24 writes; names are joined by commas.

    ``leave_out`` are diff_ids of layers whose files are not written.
    """
    out = io.BytesIO()
    listed = []
    with tarfile.open(fileobj=out, mode="w") as archive:
        for names, image in images.items():
            paths = []
            for chain, layer in zip(image.chain_ids, image.layers, strict=True):
                path = f"{chain[7:]}/layer.tar"
                paths.append(path)
                if layer.diff_id not in leave_out and path not in archive.getnames():
                    add_file(archive, f"{chain[7:]}/VERSION", b"1.0")
                    add_file(archive, path, layer.tar)
            add_file(archive, f"{image.id}.json", image.config)
            tags = [name for name in names.split(",") if name]
            listed.append({"Config": f"{image.id}.json", "RepoTags": tags, "Layers": paths})
        add_file(archive, "manifest.json", json.dumps(listed).encode())
        add_file(archive, "repositories", b"{}")
    return out.getvalue()


def oci_archive(
    images: Sequence[tuple[Mapping[str, str], FakeImage]],
    *,
    nested: bool = False,
    leave_out: Sequence[str] = (),
) -> bytes:
    """An OCI layout as a tar; every image comes with the annotations of its entry.

    ``nested`` puts all images into one index that ``index.json`` refers to.
    """
    blobs: dict[str, bytes] = {}
    entries = []
    for notes, image in images:
        entries.append({**image.descriptor, "annotations": dict(notes)})
        blobs[image.digest] = image.manifest
        blobs[sha256(image.config)] = image.config
        blobs.update({layer.digest: layer.blob for layer in image.layers})
    top = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    if nested:
        blobs[sha256(top)] = top
        outer = {"mediaType": OCI_INDEX, "digest": sha256(top), "size": len(top)}
        outer["annotations"] = dict(images[0][0])
        top = json.dumps({"schemaVersion": 2, "manifests": [outer]}).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for digest, data in blobs.items():
            if digest not in leave_out:
                add_file(archive, f"blobs/sha256/{digest[7:]}", data)
        add_file(archive, "index.json", top)
        add_file(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    return out.getvalue()
