"""Case A19: gzip, zstd and plain layers under the media types of OCI and of Docker."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
import zstandard

from isula_edge import errors
from tests.fakes.images import FakeLayer, make_image, tar_of
from tests.fakes.registry import FakeRegistry
from tests.fakes.workers import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TAR = tar_of({"etc/name": b"content"})
DOCKER = "application/vnd.docker.image.rootfs.diff.tar"
OCI = "application/vnd.oci.image.layer.v1.tar"


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def plain(data: bytes) -> bytes:
    return data


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    for name in ("layers", "quarantine", "storage/vfs", "tmp"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


# the type may lie: BuildKit writes Docker's with .zstd, others leave a plain name on gzip
@pytest.mark.parametrize("compress", [gzip.compress, zstd, plain])
@pytest.mark.parametrize(
    "media_type",
    [DOCKER, f"{DOCKER}.gzip", f"{DOCKER}.zstd", OCI, f"{OCI}+gzip", f"{OCI}+zstd"],
)
def test_layers_unpack_by_their_bytes(
    graph: Path, compress: Callable[[bytes], bytes], media_type: str
) -> None:
    layer = FakeLayer(TAR, compress(TAR), media_type)
    with FakeRegistry() as registry:
        image = registry.add("a/b", "latest", make_image([layer], docker=DOCKER in media_type))
        request = {"op": "pull", "ref": "a/b", "mirrors": [registry.url]}
        with WorkerProcess(request, graph) as worker:
            assert worker.result()["id"] == image.id
    (chain,) = image.chain_ids
    name = graph / "storage/vfs" / chain[7:31] / "etc/name"
    assert name.read_bytes() == b"content"


@pytest.mark.parametrize("media_type", ["unknown", f"{OCI}+lz4", f"{OCI}+gzip+encrypted"])
def test_an_unknown_type_fails_before_any_download(graph: Path, media_type: str) -> None:
    good = FakeLayer(TAR, TAR, OCI)
    odd = FakeLayer(TAR, gzip.compress(TAR), media_type)
    with FakeRegistry() as registry:
        registry.add("a/b", "latest", make_image([good, odd]))
        request = {"op": "pull", "ref": "a/b", "mirrors": [registry.url]}
        with WorkerProcess(request, graph) as worker, pytest.raises(errors.Unimplemented) as found:
            worker.result()
        assert media_type in str(found.value)
        assert registry.seen("/blobs/") == []
