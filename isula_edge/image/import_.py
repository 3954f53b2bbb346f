"""Import: a tar of a root file system becomes an image with one layer."""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING, Any

from isula_edge.image import manifest as manifests
from isula_edge.image.digest import of_bytes
from isula_edge.image.layers import apply_layer, image_event
from isula_edge.image.reference import parse_tag
from isula_edge.profile import platform as platforms

if TYPE_CHECKING:
    from isula_edge.image.job import Job
    from isula_edge.image.layers import Readable
    from isula_edge.snapshot.layers import LayerStore

__all__ = ["import_image"]

_COMMENT = "Imported from tarball"


def import_image(source: Readable, ref: str, store: LayerStore, job: Job) -> dict[str, Any]:
    """Unpacks ``source`` (tar: plain, gzip, bzip2, xz, zstd); returns ``{"id": …, "ref": …}``.

    The diff_id is that of the uncompressed tar, so the image is valid everywhere.  Raises
    InvalidArgument for a bad name, before anything is read, and for what is no tar.
    """
    name = parse_tag(ref).familiar
    layer = apply_layer(store, job, source, parent=None, diff_id=None)
    record = store.get(layer.chain_id)
    tar_size = int(record["compressed_size"]) if record is not None else layer.size
    config = _config(str(layer.diff_id))
    manifest = manifests.docker_manifest(config, [(str(layer.diff_id), tar_size)])
    event = image_event(
        config,
        manifest,
        of_bytes(manifest),
        manifests.DOCKER_MANIFEST,
        [layer.chain_id],
        [name],
        [],
        layer.size,
    )
    job.emit(event)
    return {"id": event["image"]["id"], "ref": name}


def _config(diff_id: str) -> bytes:
    host = platforms.host_platform()
    created = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
    document: dict[str, Any] = {
        "created": created,
        "architecture": host.architecture,
        "os": host.os,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "comment": _COMMENT}],
    }
    if host.variant:
        document["variant"] = host.variant
    return json.dumps(document, separators=(",", ":")).encode()
