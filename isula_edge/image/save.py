"""Save: images become one archive that every engine loads.

The archive is an OCI layout (``oci-layout``, ``index.json``, ``blobs``) and, unless only
that is wanted, a docker-archive at once: ``manifest.json`` names the same blobs.  Layers
are uncompressed, made again of their trees and recipes, so ids and diff_ids are those of
the images; the digest of a manifest is not, since it names other blobs.  The same images
give the same bytes: nothing in the archive tells when or where it was written.
"""

from __future__ import annotations

import json
import os
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.image import manifest as manifests
from isula_edge.image.digest import of_bytes
from isula_edge.image.recipe import layer_size, recreate_layer
from isula_edge.image.reference import parse
from isula_edge.types import ChainId

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from isula_edge.image.job import Job
    from isula_edge.snapshot.layers import LayerStore

__all__ = ["Saved", "TarWriter", "save"]

_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_FULL_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True)
class Saved:
    """An image to be saved: its configuration, its layers bottom-up, the names it keeps."""

    config: bytes
    chain_ids: Sequence[str]
    names: Sequence[str]


class TarWriter:
    """Writes a tar to a descriptor; Aborted when nobody reads it any more."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._padding = 0
        self.size_bytes = 0

    def entry(self, info: tarfile.TarInfo, *, pax: bool = False) -> None:
        """The header of an entry, whose content follows by :meth:`write`.

        ``pax`` headers take any name and extended attributes.
        """
        self._pad()
        self.write(
            info.tobuf(
                tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT, "utf-8", "surrogateescape"
            )
        )
        self._padding = -info.size % tarfile.BLOCKSIZE if info.isreg() else 0

    def file(self, name: str, data: bytes) -> None:
        """A small file."""
        self.entry(_info(name, len(data)))
        self.write(data)

    def write(self, data: bytes) -> None:
        """Some bytes of an entry's content."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except BrokenPipeError as error:
            raise errors.Aborted("nobody reads the archive") from error
        self.size_bytes += len(data)

    def end(self) -> None:
        """The end of the archive: whole records of 10 KiB, as tar(1) writes them."""
        self._pad()
        self.write(bytes(2 * tarfile.BLOCKSIZE))
        self.write(bytes(-self.size_bytes % tarfile.RECORDSIZE))

    def _pad(self) -> None:
        if self._padding:
            self.write(bytes(self._padding))
            self._padding = 0


def _info(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    return info


def save(
    fd: int,
    images: Sequence[Saved],
    excluded: Iterable[str],
    kind: str,
    store: LayerStore,
    job: Job,
) -> dict[str, Any]:
    """Writes the archive of ``images`` to ``fd``; returns ``{"size": bytes}``.

    Layers whose chain ids are ``excluded`` are left out: who loads the archive must have
    them.  ``kind`` ``oci`` leaves ``manifest.json`` out.  Before the first byte, raises
    NotFound for a layer that has no recipe and DataLoss for one that is damaged so that it
    shows; afterwards DataLoss or DigestMismatch for a layer that does not come out as it
    went in.
    """
    plan = _Plan(store, set(excluded))
    for image in images:
        plan.add(image)
    files = plan.files(kind)
    writer = TarWriter(fd)
    blobs = [path for path in (*files, *plan.layers) if "/" in path]
    folders = {"blobs/", *(f"{path.rpartition('/')[0]}/" for path in blobs)}
    for path in sorted({*files, *plan.layers, *folders}):
        job.check()
        if path in folders:
            writer.entry(_info(path, kind=tarfile.DIRTYPE))
        elif path in files:
            writer.file(path, files[path])
        else:
            chain_id, size = plan.layers[path]
            writer.entry(_info(path, size))
            for data in recreate_layer(store, chain_id):
                job.check()
                writer.write(data)
    writer.end()
    return {"size": writer.size_bytes}


class _Plan:
    """What the archive will have."""

    def __init__(self, store: LayerStore, excluded: set[str]) -> None:
        self._store = store
        self._excluded = excluded
        self._blobs: dict[str, bytes] = {}
        self._index: list[dict[str, Any]] = []
        self._listed: list[dict[str, Any]] = []
        self.layers: dict[str, tuple[ChainId, int]] = {}

    def add(self, image: Saved) -> None:
        """Takes an image in."""
        descriptors = [self._layer(ChainId(chain)) for chain in image.chain_ids]
        config = _descriptor(_OCI_CONFIG, of_bytes(image.config), len(image.config))
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": manifests.OCI_MANIFEST,
                "config": config,
                "layers": descriptors,
            }
        )
        entry = _descriptor(manifests.OCI_MANIFEST, of_bytes(manifest), len(manifest))
        for data, digest in ((image.config, config["digest"]), (manifest, entry["digest"])):
            self._blobs[_path(digest)] = data
        for name in image.names:
            full = parse(name).full
            self._index.append({**entry, "annotations": {_FULL_NAME: full, _REF_NAME: full}})
        if not image.names:
            self._index.append(entry)
        self._listed.append(
            {
                "Config": _path(config["digest"]),
                "RepoTags": list(image.names) or None,
                "Layers": [_path(descriptor["digest"]) for descriptor in descriptors],
            }
        )

    def _layer(self, chain_id: ChainId) -> dict[str, Any]:
        diff_id, size = layer_size(self._store, chain_id)
        if chain_id not in self._excluded:
            self.layers[_path(diff_id)] = (chain_id, size)
        return _descriptor(_OCI_LAYER, diff_id, size)

    def files(self, kind: str) -> dict[str, bytes]:
        """Every small file by its path."""
        index = {"schemaVersion": 2, "mediaType": manifests.OCI_INDEX, "manifests": self._index}
        found = {**self._blobs, "index.json": _json(index), "oci-layout": _LAYOUT}
        if kind != "oci":
            found["manifest.json"] = _json(self._listed)
        return found


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
