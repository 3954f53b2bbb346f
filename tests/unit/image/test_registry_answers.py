"""Answers that lead elsewhere or nowhere: redirects, refusals, proxies on the way."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image import proxies
from isula_edge.image.pull import PullRequest, pull
from isula_edge.image.transport import Settings
from tests.fakes.certificates import Authority
from tests.fakes.images import DOCKER_GZIP, OCI_INDEX, FakeLayer, make_image
from tests.fakes.jobs import FakeDaemon
from tests.fakes.proxy import FakeProxy
from tests.fakes.registry import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isula_edge.snapshot import LayerStore

LAYER = FakeLayer.of({"a": b"1" * 10_000}, DOCKER_GZIP)
IMAGE = make_image([LAYER])


def do_pull(registry: FakeRegistry, store: LayerStore, graph: Path, **more: Any) -> FakeDaemon:
    daemon = FakeDaemon()
    wanted = PullRequest(ref=f"{registry.host}/a/b", tmpdir=str(graph / "tmp"), **more)
    pull(wanted, store, daemon.job)
    return daemon


def test_a_signed_url_is_asked_for_as_it_is(
    registry: FakeRegistry, store: LayerStore, graph: Path
) -> None:
    registry.add("a/b", "latest", IMAGE)
    registry.faults.auth = "bearer"
    with FakeRegistry() as storage:
        storage.put_document("/bucket/x%2Fy", LAYER.blob)
        query = "X-Amz-Signature=a%2Fb%3D%2B&X-Amz-Date=2020&e=~"
        target = {"Location": f"{storage.url}/bucket/x%2Fy?{query}"}
        registry.faults.statuses = {LAYER.digest: [(307, target)]}
        do_pull(registry, store, graph)
        (seen,) = storage.requests
    assert seen.path == f"/bucket/x%2Fy?{query}"
    assert "authorization" not in seen.headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_every_kind_of_redirect(
    registry: FakeRegistry, store: LayerStore, graph: Path, status: int
) -> None:
    registry.add("a/b", "latest", IMAGE)
    registry.faults.statuses = {
        "/manifests/": [(status, {"Location": f"/v2/a/b/manifests/{IMAGE.digest}"})],
        LAYER.digest: [(status, {"Location": f"{registry.url}/v2/c/blobs/{LAYER.digest}"})],
    }
    assert do_pull(registry, store, graph).image["id"] == IMAGE.id


@pytest.mark.parametrize("location", ["http://[", "http://h:99999/", "ftp://h/x"])
def test_a_redirect_to_nowhere(
    registry: FakeRegistry, store: LayerStore, graph: Path, location: str
) -> None:
    registry.faults.statuses = {"/manifests/": [(307, {"Location": location})]}
    with pytest.raises((errors.Unavailable, errors.InvalidArgument), match="URL"):
        do_pull(registry, store, graph)


def test_a_limit_of_requests_is_told_in_the_registrys_words(
    registry: FakeRegistry, store: LayerStore, graph: Path
) -> None:
    registry.faults.always = {"/manifests/": 429}
    with pytest.raises(errors.Unavailable, match=r"no more requests .*fake fault"):
        do_pull(registry, store, graph)


@pytest.mark.parametrize("key", ["layers", "fsLayers"])
def test_what_is_an_image_to_one_and_an_index_to_another(
    registry: FakeRegistry, store: LayerStore, graph: Path, key: str
) -> None:
    """CVE-2021-41190."""
    odd = make_image([LAYER], manifest={"manifests": [], "mediaType": ""} if key == "layers"
                     else {"fsLayers": []})  # fmt: skip
    for media_type in (OCI_INDEX, odd.media_type):
        registry.put_manifest("a/b", "latest", odd.manifest, media_type)
        with pytest.raises(errors.InvalidArgument, match="of an image and of an index"):
            do_pull(registry, store, graph)
    assert registry.seen("/blobs/") == []


# through a proxy


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def secure(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeRegistry]:
    """A registry that is verified, and whose address is like any other."""
    monkeypatch.setattr(proxies, "LOOPBACK", ())
    with FakeRegistry(tls=authority.sign("registry")) as found:
        folder = tmp_path / "certs.d" / found.host
        folder.mkdir(parents=True)
        shutil.copy(authority.certificate, folder / "ca.crt")
        found.add("a/b", "latest", IMAGE)
        yield found


@pytest.fixture
def trusting(tmp_path: Path) -> dict[str, Any]:
    return {"settings": Settings(certs_dir=str(tmp_path / "certs.d"))}


def test_https_through_a_proxy_with_a_password(
    secure: FakeRegistry,
    trusting: dict[str, Any],
    store: LayerStore,
    graph: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with FakeProxy("me:p@ss#1") as proxy:
        monkeypatch.setenv("https_proxy", f"http://me:p%40ss%231@{proxy.host}")
        do_pull(secure, store, graph, **trusting)
        assert set(proxy.tunnels) == {secure.host}
        assert proxy.refused == 0
    assert all("proxy-authorization" not in item.headers for item in secure.requests)


def test_a_proxy_that_wants_a_password(
    secure: FakeRegistry,
    trusting: dict[str, Any],
    store: LayerStore,
    graph: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with FakeProxy("me:secret") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:wrong@{proxy.host}")
        with pytest.raises(errors.Unavailable, match=r"through the proxy: .*407") as found:
            do_pull(secure, store, graph, **trusting)
    assert "user name and password" in found.value.hint
    assert "wrong" not in str(found.value)
    assert secure.requests == []


@pytest.mark.parametrize("exempt", ["127.0.0.0/8", "*", "10.0.0.1, 127.0.0.1"])
def test_no_proxy(
    secure: FakeRegistry,
    trusting: dict[str, Any],
    store: LayerStore,
    graph: Path,
    monkeypatch: pytest.MonkeyPatch,
    exempt: str,
) -> None:
    with FakeProxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.host}")
        monkeypatch.setenv("NO_PROXY", exempt)
        do_pull(secure, store, graph, **trusting)
        assert proxy.tunnels == []
