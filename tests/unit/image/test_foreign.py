"""Foreign layers: from the registry if it has them, else from where the manifest says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image.credentials import Credentials
from isula_edge.image.manifest import Manifest, parse
from isula_edge.image.pull import PullRequest, pull
from tests.fakes.images import FakeImage, FakeLayer, make_image
from tests.fakes.jobs import FakeDaemon
from tests.fakes.registry import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isula_edge.snapshot import LayerStore

FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
BASE = FakeLayer.of({"base": b"x" * 5000}, FOREIGN)
TOP = FakeLayer.of({"top": b"1"})


@pytest.fixture
def elsewhere() -> Iterator[FakeRegistry]:
    """A server of blobs that is no registry of the image."""
    with FakeRegistry() as server:
        server.put_blob(BASE.blob)
        yield server


def image_with(urls: Any, media_type: str = FOREIGN) -> FakeImage:
    image = make_image([FakeLayer(BASE.tar, BASE.blob, media_type), TOP])
    document = json.loads(image.manifest)
    document["layers"][0]["urls"] = urls
    return make_image(image.layers, manifest={"layers": document["layers"]})


def serve(registry: FakeRegistry, image: FakeImage, *, whole: bool = False) -> FakeImage:
    registry.put_blob(image.config)
    registry.put_blob(TOP.blob)
    if whole:
        registry.put_blob(BASE.blob)
    registry.put_manifest("a/b", "latest", image.manifest, image.media_type)
    return image


def url_of(server: FakeRegistry) -> str:
    return f"{server.url}/v2/some/where/blobs/{BASE.digest}"


def do_pull(registry: FakeRegistry, store: LayerStore, graph: Path, **more: Any) -> FakeDaemon:
    daemon = FakeDaemon()
    pull(
        PullRequest(ref=f"{registry.host}/a/b", tmpdir=str(graph / "tmp"), **more),
        store,
        daemon.job,
    )
    return daemon


@pytest.mark.parametrize("media_type", [FOREIGN, NONDISTRIBUTABLE])
def test_the_registry_first(
    registry: FakeRegistry,
    elsewhere: FakeRegistry,
    store: LayerStore,
    graph: Path,
    media_type: str,
) -> None:
    image = serve(registry, image_with([url_of(elsewhere)], media_type), whole=True)
    assert do_pull(registry, store, graph).image["chain_ids"] == image.chain_ids
    assert elsewhere.requests == []


def test_then_the_urls_in_order_without_credentials(
    registry: FakeRegistry, elsewhere: FakeRegistry, store: LayerStore, graph: Path
) -> None:
    registry.faults.auth = "basic"
    registry.faults.users = {"u": "p"}
    urls = ["ftp://h/x", "http://127.0.0.1:1/x", f"{elsewhere.url}/none", url_of(elsewhere)]
    serve(registry, image_with(urls))
    elsewhere.faults.cut_at = [0.5]
    elsewhere.faults.cut_from_bytes = 0
    do_pull(registry, store, graph, auths={registry.host: Credentials("u", "p")})
    # cut, and resumed there
    assert [item.status for item in elsewhere.seen("/some/where/")] == [200, 206]
    assert all("authorization" not in item.headers for item in elsewhere.requests)
    assert all("authorization" in item.headers for item in registry.seen("/blobs/"))


def test_what_comes_from_there_is_verified(
    registry: FakeRegistry, elsewhere: FakeRegistry, store: LayerStore, graph: Path
) -> None:
    serve(registry, image_with([url_of(elsewhere)]))
    elsewhere.faults.corrupt = {BASE.digest}
    with pytest.raises(errors.DigestMismatch, match=BASE.digest):
        do_pull(registry, store, graph)


def test_nobody_has_it(
    registry: FakeRegistry, elsewhere: FakeRegistry, store: LayerStore, graph: Path
) -> None:
    serve(registry, image_with([f"{elsewhere.url}/gone", "ftp://h/x"]))
    with pytest.raises(errors.NotFound, match=r"does not have blob .*/gone: status 404.*ftp:"):
        do_pull(registry, store, graph)


def test_a_server_that_is_busy_is_asked_again(
    registry: FakeRegistry, elsewhere: FakeRegistry, store: LayerStore, graph: Path
) -> None:
    serve(registry, image_with([url_of(elsewhere)]))
    elsewhere.faults.statuses = {"/some/where/": [(503, {}), (429, {})]}
    do_pull(registry, store, graph)
    assert [item.status for item in elsewhere.seen("/some/where/")] == [503, 429, 200]


@pytest.mark.parametrize("urls", [None, "http://h/x", [1, {}, ""], {"a": 1}])
def test_odd_urls_are_none(urls: Any) -> None:
    image = image_with(urls)
    found = parse(image.manifest, image.media_type, "x")
    assert isinstance(found, Manifest)
    assert found.layers[0].urls == ()


def test_only_foreign_layers_are_fetched_from_elsewhere() -> None:
    image = image_with(["http://h/x"], TOP.media_type)
    found = parse(image.manifest, image.media_type, "x")
    assert isinstance(found, Manifest)
    assert [layer.urls for layer in found.layers] == [(), ()]
