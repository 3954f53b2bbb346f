"""Case A07: a pull needs the same memory whatever the size of its layers.

Of the disk it needs no more than the image and the largest of its blobs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tarfile
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.images import OCI_MANIFEST, sha256
from tests.fakes.registry import FakeRegistry
from tests.fakes.workers import WorkerProcess, peak_rss_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LAYER_BYTES = 200_000_000
ALLOWED_BYTES = 32 << 20
_BLOCK = os.urandom(1 << 20)


def make_layer(path: Path, number: int) -> dict[str, Any]:
    """A layer of 200 MB that does not compress, written piece by piece; its descriptor."""
    hasher = hashlib.sha256()
    info = tarfile.TarInfo(f"data{number}")
    info.size = LAYER_BYTES
    with open(path, "wb") as file:

        def write(data: bytes) -> None:
            hasher.update(data)
            file.write(data)

        write(info.tobuf())
        for at in range(0, LAYER_BYTES, len(_BLOCK)):
            write(_BLOCK[: LAYER_BYTES - at])
        write(bytes(-LAYER_BYTES % 512 + 1024))
    digest = f"sha256:{hasher.hexdigest()}"
    media_type = "application/vnd.oci.image.layer.v1.tar"
    return {"mediaType": media_type, "digest": digest, "size": path.stat().st_size}


def gzipped(path: Path, target: Path) -> dict[str, Any]:
    """The same layer in gzip (stored, to be quick); its descriptor."""
    hasher = hashlib.sha256()
    packer = zlib.compressobj(0, zlib.DEFLATED, 31)
    with open(path, "rb") as source, open(target, "wb") as file:
        while True:
            data = source.read(1 << 20)
            packed = packer.compress(data) if data else packer.flush()
            hasher.update(packed)
            file.write(packed)
            if not data:
                break
    media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
    digest = f"sha256:{hasher.hexdigest()}"
    return {"mediaType": media_type, "digest": digest, "size": target.stat().st_size}


def size_on_disk(folder: Path) -> int:
    """Bytes that files below ``folder`` take; they may come and go meanwhile."""
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += os.lstat(f"{place}/{name}").st_blocks * 512
    return size


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    for name in ("layers", "quarantine", "storage/vfs", "tmp"):
        (tmp_path / "graph" / name).mkdir(parents=True)
    return tmp_path / "graph"


def test_three_layers_of_200_mb_need_less_than_32_mb(
    tmp_path: Path, graph: Path, record_property: Callable[[str, object], None]
) -> None:
    plain = tmp_path / "plain"
    layers, diff_ids = [], []
    with FakeRegistry() as registry:
        for number in range(3):
            diff_ids.append(make_layer(plain, number)["digest"])
            blob = tmp_path / f"blob{number}"
            layers.append(gzipped(plain, blob))
            registry.put_blob_file(layers[-1]["digest"], str(blob))
        plain.unlink()
        config = json.dumps(
            {
                "os": "linux",
                "architecture": "amd64",
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
            }
        ).encode()
        registry.put_blob(config)
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": sha256(config),
                "size": len(config),
            },
            "layers": layers,
        }
        registry.put_manifest("big/image", "latest", json.dumps(manifest).encode(), OCI_MANIFEST)
        request = {"op": "pull", "ref": "big/image", "mirrors": [registry.url]}
        with WorkerProcess(request, graph) as worker:
            worker.until("need")
            before = peak_rss_bytes(worker.process.pid)
            worker.send({"have": []})
            disk = 0
            for frame in worker.frames():
                disk = max(disk, size_on_disk(graph))
                if "x" in frame:
                    pytest.fail(str(frame))
                if "image" in frame:
                    # the last but one: the worker is still there to be looked at
                    peak = peak_rss_bytes(worker.process.pid)
                    break
            worker.result()
    record_property("worker_before_layers_bytes", before)
    record_property("worker_peak_bytes", peak)
    record_property("disk_peak_bytes", disk)
    assert disk < size_on_disk(graph) + 1.01 * LAYER_BYTES
    assert list((graph / "tmp/blobs").iterdir()) == []
    assert peak - before < ALLOWED_BYTES
    # the worker is there for the pull only: even all of it stays near the same limit
    assert peak < 2 * ALLOWED_BYTES
