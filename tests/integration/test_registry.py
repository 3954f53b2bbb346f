"""Pull from a real registry: Debian's docker-registry, filled by skopeo."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import socket
import subprocess
import tarfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from tests.fakes.images import (
    FakeImage,
    FakeLayer,
    add_file,
    docker_archive,
    make_image,
    oci_archive,
)
from tests.fakes.workers import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# user "me", password "secret"
HTPASSWD = "me:$2b$04$1HDTs8bNRLSveDmaDRGDDOqfTaFPEoxv/TCoV0qxDIALK5dArsbGS\n"
BUSYBOX = "/bin/busybox"
# Python 3.12 wants to be told, and early ones of 3.11 do not know the word
_TRUSTED: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
for needed in ("docker-registry", "skopeo", BUSYBOX):
    if shutil.which(needed) is None:
        pytest.skip(f"{needed} is not installed", allow_module_level=True)

_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/storage}}, delete: {{enabled: true}}}}
http: {{addr: "{host}", secret: tests}}
{auth}
"""


@dataclass
class RealRegistry:
    """A running docker-registry on ``host``."""

    host: str
    folder: Path

    def push(self, source: str, name: str, *options: str) -> None:
        """Copies ``source`` (a skopeo transport) to ``name``."""
        subprocess.run(
            [
                *("skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"),
                *(*options, source, f"docker://{self.host}/{name}"),
            ],
            check=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )


def serve(folder: Path, auth: str = "") -> Iterator[RealRegistry]:
    """Runs a registry with its storage in ``folder``."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "config.yml"
    config.write_text(_CONFIG.format(folder=folder, host=host, auth=auth))
    process = subprocess.Popen(["docker-registry", "serve", str(config)])
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                address, _, port = host.partition(":")
                socket.create_connection((address, int(port)), 1).close()
                break
            except OSError:
                assert process.poll() is None, "docker-registry has ended"
                assert time.monotonic() < deadline, "docker-registry does not answer"
                time.sleep(0.05)
        yield RealRegistry(host, folder)
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    yield from serve(tmp_path_factory.mktemp("registry"))


def busybox_layer() -> FakeLayer:
    """A layer with busybox and some links to it."""
    out = io.BytesIO()
    with open(BUSYBOX, "rb") as file:
        data = file.read()
    with tarfile.open(fileobj=out, mode="w") as archive:
        add_file(archive, "bin/busybox", data)
        for name in ("sh", "ls", "cat"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type = tarfile.SYMTYPE
            link.linkname = "busybox"
            archive.addfile(link)
    return FakeLayer(out.getvalue(), b"")


@pytest.fixture(scope="module")
def image(real: RealRegistry) -> FakeImage:
    """An image of two layers, in the registry as ``library/busybox`` in several forms."""
    found = make_image([busybox_layer(), FakeLayer.of({"etc/motd": b"hello\n"})])
    archive = real.folder / "busybox.tar"
    archive.write_bytes(docker_archive({"busybox:latest": found}))
    source = f"docker-archive:{archive}"
    real.push(source, "library/busybox:latest", "--format", "v2s2")
    real.push(source, "library/busybox:oci", "--format", "oci")
    zstd = ("--format", "oci", "--dest-compress-format", "zstd", "--dest-compress")
    real.push(source, "library/busybox:zstd", *zstd)
    return found


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    for name in ("layers", "quarantine", "storage/vfs", "tmp"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def tree(graph: Path, worker: WorkerProcess) -> Path:
    """The topmost layer that the worker brought."""
    chain = str(worker.of("image")[0]["chain_ids"][-1])
    return graph / "storage/vfs" / chain[7:31]


@pytest.mark.parametrize("tag", ["latest", "oci", "zstd"])
def test_pull(real: RealRegistry, image: FakeImage, graph: Path, tag: str) -> None:
    request = {"op": "pull", "ref": f"busybox:{tag}", "mirrors": [f"http://{real.host}"]}
    with WorkerProcess(request, graph) as worker:
        result = worker.result()
        (brought,) = worker.of("image")
        assert result == {"ref": f"busybox:{tag}", "id": brought["id"]}
        assert hashlib.sha256(brought["config"]).hexdigest() == brought["id"]
        diff_ids = json.loads(brought["config"])["rootfs"]["diff_ids"]
        assert diff_ids == [layer.diff_id for layer in image.layers]
        assert brought["chain_ids"] == image.chain_ids
        root = tree(graph, worker)
        assert (root / "etc/motd").read_text() == "hello\n"
        with open(BUSYBOX, "rb") as file:
            assert (root / "bin/busybox").read_bytes() == file.read()
        assert (root / "bin/sh").readlink().name == "busybox"


def test_pull_by_digest_and_with_a_host(real: RealRegistry, image: FakeImage, graph: Path) -> None:
    assert image.layers
    name = f"{real.host}/library/busybox"
    with WorkerProcess({"op": "pull", "ref": name}, graph) as worker:
        assert worker.result()["ref"] == f"{name}:latest"
        (brought,) = worker.of("image")
    held = set(brought["chain_ids"])
    ref = f"{name}@{brought['manifest_digest']}"
    with WorkerProcess({"op": "pull", "ref": ref}, graph, held=held) as worker:
        assert worker.result() == {"ref": ref, "id": brought["id"]}
        assert worker.of("layer") == []


def test_an_index(real: RealRegistry, graph: Path) -> None:
    """An index of two platforms that skopeo copied from an OCI layout."""
    layers = {name: FakeLayer.of({"arch": name.encode()}) for name in ("amd64", "arm64")}
    images = [
        make_image([layer], platform={"os": "linux", "architecture": name})
        for name, layer in layers.items()
    ]
    notes = {"org.opencontainers.image.ref.name": "multi"}
    data = oci_archive([(notes, found) for found in images], nested=True)
    layout = real.folder / "layout"
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(layout, **_TRUSTED)
    real.push(f"oci:{layout}:multi", "some/multi:1", "--all")
    for name, expected in zip(layers, images, strict=True):
        request = {
            "op": "pull",
            "ref": "some/multi:1",
            "mirrors": [f"http://{real.host}"],
            "platform": f"linux/{name}",
        }
        with WorkerProcess(request, graph) as worker:
            assert worker.result()["id"] == expected.id
            assert (tree(graph, worker) / "arch").read_text() == name
            (brought,) = worker.of("image")
            assert brought["index_digest"] != brought["manifest_digest"]


def test_what_is_not_there(real: RealRegistry, graph: Path) -> None:
    for ref in ("busybox:absent", "no/such/repository"):
        request = {"op": "pull", "ref": ref, "mirrors": [f"http://{real.host}"]}
        with (
            WorkerProcess(request, graph) as worker,
            pytest.raises(errors.NotFound, match="Image not found in registry"),
        ):
            worker.result()


def test_a_password(tmp_path: Path, graph: Path, image: FakeImage, real: RealRegistry) -> None:
    folder = tmp_path / "private"
    folder.mkdir()
    (folder / "htpasswd").write_text(HTPASSWD)
    auth = f"auth: {{htpasswd: {{realm: tests, path: {folder}/htpasswd}}}}"
    for private in serve(folder, auth):
        source = f"docker-archive:{real.folder}/busybox.tar"
        private.push(source, "a/b:1", "--dest-creds", "me:secret")
        request = {"op": "pull", "ref": f"{private.host}/a/b:1"}
        good = {"auths": {private.host: {"username": "me", "password": "secret"}}}
        with WorkerProcess(request | good, graph) as worker:
            worker.result()
            assert worker.of("image")[0]["chain_ids"] == image.chain_ids
        bad = {"auths": {private.host: {"username": "me", "password": "wrong"}}}
        for wrong in ({}, bad):
            with (
                WorkerProcess(request | wrong, graph) as worker,
                pytest.raises(errors.PermissionDenied, match="authentication failed"),
            ):
                worker.result()
