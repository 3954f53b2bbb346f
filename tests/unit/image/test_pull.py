"""Pull from a registry that works, or does not: what is stored, and what the user is told."""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image.auth import Credentials
from isula_edge.image.pull import PullRequest, pull
from isula_edge.image.transport import Settings
from tests.fakes.images import (
    DOCKER_GZIP,
    OCI_INDEX,
    FakeImage,
    FakeLayer,
    index,
    make_image,
    sha256,
)
from tests.fakes.jobs import FakeDaemon
from tests.fakes.registry import FakeRegistry
from tests.rig import until

if TYPE_CHECKING:
    from pathlib import Path

    from isula_edge.snapshot import LayerStore


BASE = FakeLayer.of({"etc/name": b"base", "a": b"1"})
RANDOM = os.urandom(300_000)
TOP = FakeLayer.of({"big": RANDOM, "a": b"2"})
IMAGE = make_image([BASE, TOP])


class Puller:
    """Pulls into one store and keeps what the daemon was told last."""

    def __init__(self, store: LayerStore, graph: Path) -> None:
        self.store = store
        self.graph = graph
        self.daemon = FakeDaemon()

    def __call__(self, ref: str, held: set[str] | None = None, **request: Any) -> dict[str, Any]:
        self.daemon = FakeDaemon(held)
        wanted = PullRequest(ref=ref, tmpdir=str(self.graph / "tmp"), **request)
        return pull(wanted, self.store, self.daemon.job)

    def leftovers(self) -> list[str]:
        """Unfinished layers and unfinished downloads."""
        return self.unfinished() + os.listdir(self.graph / "tmp/blobs")

    def unfinished(self) -> list[str]:
        """Unfinished layers."""
        return [name for name in os.listdir(self.graph / "storage/vfs") if "ingest" in name]

    def tree(self, image: FakeImage) -> Path:
        """Where the image's topmost layer lies."""
        record = self.store.get(image.chain_ids[-1])  # type: ignore[arg-type]
        assert record is not None
        return self.graph / "storage/vfs" / str(record["dir"])


@pytest.fixture
def puller(store: LayerStore, graph: Path) -> Puller:
    return Puller(store, graph)


def test_by_tag_from_a_mirror(puller: Puller, registry: FakeRegistry) -> None:
    registry.add("library/busybox", "latest", IMAGE)
    assert puller("busybox", mirrors=[registry.url]) == {"ref": "busybox:latest", "id": IMAGE.id}
    brought = puller.daemon.image
    assert brought["id"] == IMAGE.id
    assert brought["config"] == IMAGE.config
    assert brought["manifest"] == IMAGE.manifest
    assert brought["manifest_digest"] == IMAGE.digest
    assert brought["manifest_media_type"] == IMAGE.media_type
    assert brought["chain_ids"] == IMAGE.chain_ids
    assert brought["names"] == ["busybox:latest"]
    assert brought["digest_refs"] == [f"busybox@{IMAGE.digest}"]
    assert brought["size"] > len(RANDOM)
    assert "index_digest" not in brought
    assert puller.daemon.of("need") == [IMAGE.chain_ids]
    assert puller.daemon.of("layer") == IMAGE.chain_ids
    assert (puller.tree(IMAGE) / "big").read_bytes() == RANDOM
    assert (puller.tree(IMAGE) / "a").read_bytes() == b"2"
    assert puller.leftovers() == []


def test_the_host_is_asked_and_mirrors_are_not(puller: Puller, registry: FakeRegistry) -> None:
    registry.add("a/b", "1", IMAGE)
    result = puller(f"{registry.host}/a/b:1", mirrors=["http://127.0.0.1:1"])
    assert result["ref"] == f"{registry.host}/a/b:1"
    assert puller.daemon.image["digest_refs"] == [f"{registry.host}/a/b@{IMAGE.digest}"]


def test_by_digest_there_is_no_name(puller: Puller, registry: FakeRegistry) -> None:
    registry.add("a/b", "", IMAGE)
    result = puller(f"a/b:ignored@{IMAGE.digest}", mirrors=[registry.url])
    assert result["ref"] == f"a/b@{IMAGE.digest}"
    assert puller.daemon.image["names"] == []
    assert puller.daemon.image["digest_refs"] == [f"a/b@{IMAGE.digest}"]


def test_the_right_platform_of_an_index(puller: Puller, registry: FakeRegistry) -> None:
    arm = make_image([TOP], platform={"os": "linux", "architecture": "arm64"})
    top = registry.add_index("a/b", "latest", index([arm, IMAGE]), arm, IMAGE)
    puller("a/b", mirrors=[registry.url], platform="linux/amd64")
    brought = puller.daemon.image
    assert brought["id"] == IMAGE.id
    assert brought["manifest_digest"] == IMAGE.digest
    assert brought["index_digest"] == top
    assert brought["digest_refs"] == [f"a/b@{top}"]
    puller(f"a/b@{top}", mirrors=[registry.url], platform="linux/arm64")
    assert puller.daemon.image["id"] == arm.id


def test_an_index_in_an_index(puller: Puller, registry: FakeRegistry) -> None:
    inner = index([IMAGE])
    entry = {"mediaType": OCI_INDEX, "digest": sha256(inner), "size": len(inner)}
    entry["platform"] = {"os": "linux", "architecture": "amd64"}
    registry.add_index("a/b", "", inner, IMAGE)
    registry.add_index("a/b", "latest", index([], [entry]))
    puller("a/b", mirrors=[registry.url], platform="linux/amd64")
    assert puller.daemon.image["id"] == IMAGE.id


def test_a_platform_that_is_not_there_is_named_with_those_that_are(
    puller: Puller, registry: FakeRegistry
) -> None:
    registry.add_index("a/b", "latest", index([IMAGE]), IMAGE)
    with pytest.raises(errors.NotFound, match=r"a/b:latest .*linux/s390x.*linux/amd64"):
        puller("a/b", mirrors=[registry.url], platform="linux/s390x")
    registry.add("a/c", "latest", IMAGE)
    with pytest.raises(errors.NotFound, match="is for linux/amd64, not for linux/arm64"):
        puller("a/c", mirrors=[registry.url], platform="linux/arm64")


def test_layers_that_are_there_are_not_fetched(puller: Puller, registry: FakeRegistry) -> None:
    registry.add("a/b", "latest", IMAGE)
    puller("a/b", mirrors=[registry.url])
    size = puller.daemon.image["size"]
    puller.store.remove(IMAGE.chain_ids[1])  # type: ignore[arg-type]
    before = len(registry.requests)
    puller("a/b", mirrors=[registry.url], held={IMAGE.chain_ids[0]})
    assert len(registry.seen(BASE.digest)) == 1
    assert len(registry.seen(TOP.digest)) == 2
    assert puller.daemon.image["size"] == size
    puller("a/b", mirrors=[registry.url], held=set(IMAGE.chain_ids))
    assert len(registry.requests) == before + 4 + 3
    assert {item["status"] for item in puller.daemon.of("v")} == {"Exists"}
    assert puller.daemon.image["size"] == size


def test_progress_of_every_layer_and_not_too_often(puller: Puller, registry: FakeRegistry) -> None:
    registry.add("a/b", "latest", IMAGE)
    puller("a/b", mirrors=[registry.url])
    for layer in IMAGE.layers:
        own = [v for v in puller.daemon.of("v") if v["id"] == layer.digest[7:19]]
        # the clock stands still: one event for every word, one for the first bytes
        assert len(own) <= 5
        assert own[0]["status"] == "Waiting"
        size = len(layer.blob)
        end = {"status": "Done", "current": size, "total": size, "id": layer.digest[7:19]}
        assert own[-1] == end


@pytest.mark.parametrize("case", ["lower", "upper", "mixed", "usual"])
@pytest.mark.parametrize("version", [True, False])
def test_a10_header_names_in_any_case(
    puller: Puller, registry: FakeRegistry, case: str, version: bool
) -> None:
    registry.faults.header_case = case
    registry.faults.api_version = version
    registry.faults.auth = "bearer"
    registry.faults.cut_at = [0.5]
    registry.add("a/b", "latest", make_image([BASE, TOP], docker=True))
    puller("a/b", mirrors=[registry.url])
    assert registry.tokens_issued == 1


def test_a_manifest_without_its_content_type(puller: Puller, registry: FakeRegistry) -> None:
    registry.faults.content_type = False
    registry.add("a/b", "latest", IMAGE)
    puller("a/b", mirrors=[registry.url])


# mirrors


def test_mirrors_are_asked_in_order(puller: Puller, registry: FakeRegistry) -> None:
    with FakeRegistry() as second:
        registry.add("a/b", "latest", IMAGE)
        second.add("a/b", "latest", IMAGE)
        puller("a/b", mirrors=["http://127.0.0.1:1", registry.url, second.url])
        assert second.requests == []


def test_a_mirror_that_breaks_is_left_and_its_layers_are_kept(
    puller: Puller, registry: FakeRegistry
) -> None:
    with FakeRegistry() as second:
        registry.add("a/b", "latest", IMAGE)
        registry.faults.corrupt = {TOP.digest}
        second.add("a/b", "latest", IMAGE)
        puller("a/b", mirrors=[registry.url, second.url], max_concurrent=1)
        assert second.seen(BASE.digest) == []
        assert len(second.seen(TOP.digest)) == 1
        assert puller.leftovers() == []


def test_the_error_of_the_last_mirror_is_reported(puller: Puller, registry: FakeRegistry) -> None:
    with pytest.raises(errors.NotFound, match="not found in registry"):
        puller("a/b", mirrors=["http://127.0.0.1:1", registry.url])
    with pytest.raises(errors.Unavailable, match=r"127\.0\.0\.1:1: Connection refused"):
        puller("a/b", mirrors=[registry.url, "http://127.0.0.1:1"])


def test_without_host_and_mirrors(puller: Puller) -> None:
    with pytest.raises(errors.InvalidArgument, match="Invalid image name, no host found") as found:
        puller("busybox")
    assert "registry-mirrors" in found.value.hint


@pytest.mark.parametrize("mirror", ["ftp://h", "https://", "http://u:p@h"])
def test_a_bad_mirror_is_named(puller: Puller, mirror: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="registry mirror"):
        puller("a/b", mirrors=[mirror])


def test_a_path_of_a_mirror_is_kept(puller: Puller, registry: FakeRegistry) -> None:
    with pytest.raises(errors.NotFound):
        puller("a/b", mirrors=[f"{registry.url}/some/path/"])
    assert registry.seen("/some/path/v2/a/b/manifests/latest")


def test_mirrors_of_a_host(puller: Puller, registry: FakeRegistry) -> None:
    registry.add("library/busybox", "latest", IMAGE)
    result = puller("docker.io/busybox", host_mirrors={"docker.io": [registry.url]})
    assert result["ref"] == "busybox:latest"


def test_credentials_go_to_their_own_host_alone(puller: Puller, registry: FakeRegistry) -> None:
    with FakeRegistry() as own:
        for one, password in ((registry, "of the mirror"), (own, "its own")):
            one.faults.auth = "basic"
            one.faults.users = {"u": password}
            one.add("a/b", "latest", IMAGE)
        wanted: dict[str, Any] = {"host_mirrors": {own.host: [registry.url]}}
        auths = {own.host: Credentials("u", "its own")}
        puller(f"{own.host}/a/b", auths=auths, **wanted)
        assert own.seen("/manifests/")
        assert registry.requests
        assert all("authorization" not in item.headers for item in registry.requests)
        own.forget()
        auths[registry.host] = Credentials("u", "of the mirror")
        puller(f"{own.host}/a/b", auths=auths, **wanted)
        assert own.requests == []


# what a registry answers


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (404, errors.NotFound, "Image not found in registry: a/b:latest"),
        (401, errors.PermissionDenied, "denies access to a/b:latest"),
        (403, errors.PermissionDenied, "denies access to a/b:latest"),
        (429, errors.Unavailable, "no more requests"),
        (500, errors.Unavailable, "status code 500"),
        (503, errors.Unavailable, "status code 503"),
        (418, errors.Unavailable, "status code 418"),
    ],
)
def test_a_refusal_names_the_image_or_the_host(
    puller: Puller,
    registry: FakeRegistry,
    status: int,
    kind: type[errors.EngineError],
    text: str,
) -> None:
    registry.faults.always = {"/manifests/": status}
    with pytest.raises(kind, match=text) as found:
        puller("a/b", mirrors=[registry.url])
    assert found.value.retryable is (status in (429, 500, 503))
    tries = 6 if status in (429, 500, 503) else 1
    assert len(registry.seen("/manifests/")) == tries
    assert puller.daemon.of("image") == []


def test_errors_that_pass(puller: Puller, registry: FakeRegistry) -> None:
    registry.add("a/b", "latest", IMAGE)
    registry.faults.statuses = {
        "/v2/a/b/manifests/": [(500, {}), (502, {})],
        TOP.digest: [(503, {}), (429, {"Retry-After": "7"})],
    }
    puller("a/b", mirrors=[registry.url])
    assert 7.0 in puller.daemon.clock.slept


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "5"}, 5.0),
        # bounded: nobody waits a day
        ({"Retry-After": "86400"}, 60.0),
        # a date counts from the server's own: the local clock may be anything
        ({"Retry-After": "Sat, 01 Jan 2000 00:00:09 GMT", "Date": "Sat, 01 Jan 2000 00:00:00 GMT"},
         None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
    ],
)  # fmt: skip
def test_retry_after(
    puller: Puller, registry: FakeRegistry, headers: dict[str, str], seconds: float | None
) -> None:
    registry.add("a/b", "latest", IMAGE)
    registry.faults.statuses = {"/manifests/": [(429, headers)]}
    puller("a/b", mirrors=[registry.url])
    (slept,) = puller.daemon.clock.slept
    assert slept == seconds if seconds is not None else slept < 10


def test_a_wrong_blob(puller: Puller, registry: FakeRegistry) -> None:
    registry.add("a/b", "latest", IMAGE)
    registry.faults.corrupt = {TOP.digest}
    with pytest.raises(errors.DigestMismatch, match=TOP.digest):
        puller("a/b", mirrors=[registry.url], max_concurrent=1)
    assert puller.daemon.of("layer") == IMAGE.chain_ids[:1]
    assert puller.leftovers() == []


def test_a_wrong_diff_id(puller: Puller, registry: FakeRegistry) -> None:
    wrong = {"rootfs": {"type": "layers", "diff_ids": [BASE.diff_id, BASE.diff_id]}}
    registry.add("a/b", "latest", make_image([BASE, TOP], config=wrong))
    with pytest.raises(errors.DigestMismatch, match="invalid diff id"):
        puller("a/b", mirrors=[registry.url])
    assert puller.leftovers() == []


def test_a_wrong_config(puller: Puller, registry: FakeRegistry) -> None:
    registry.add("a/b", "latest", IMAGE)
    registry.faults.corrupt = {sha256(IMAGE.config)}
    with pytest.raises(errors.DigestMismatch, match="config of a/b:latest"):
        puller("a/b", mirrors=[registry.url])


def test_a_wrong_manifest(puller: Puller, registry: FakeRegistry) -> None:
    registry.add("a/b", "latest", IMAGE)
    registry.faults.corrupt = {IMAGE.digest}
    with pytest.raises(errors.DigestMismatch, match="manifest of a/b"):
        puller(f"a/b@{IMAGE.digest}", mirrors=[registry.url])
    with pytest.raises(errors.DigestMismatch, match="manifest of a/b"):
        puller("a/b", mirrors=[registry.url])


def test_a_missing_blob(puller: Puller, registry: FakeRegistry) -> None:
    registry.add("a/b", "latest", IMAGE)
    registry.faults.always = {TOP.digest: 404}
    with pytest.raises(errors.NotFound, match=TOP.digest):
        puller("a/b", mirrors=[registry.url])


def test_a19_an_unknown_layer_fails_before_any_download(
    puller: Puller, registry: FakeRegistry
) -> None:
    odd = FakeLayer(TOP.tar, TOP.blob, "application/x-odd")
    registry.add("a/b", "latest", make_image([BASE, odd]))
    with pytest.raises(errors.Unimplemented, match="application/x-odd"):
        puller("a/b", mirrors=[registry.url])
    assert registry.seen("/blobs/") == []


def test_a_huge_manifest_is_not_read_to_its_end(puller: Puller, registry: FakeRegistry) -> None:
    registry.put_manifest("a/b", "latest", b" " * (5 << 20), OCI_INDEX)
    with pytest.raises(errors.ResourceExhausted, match="larger than 4194304 bytes"):
        puller("a/b", mirrors=[registry.url])


# authorization


def test_basic(puller: Puller, registry: FakeRegistry) -> None:
    registry.faults.auth = "basic"
    registry.faults.users = {"u": "p:w"}
    registry.add("a/b", "latest", IMAGE)
    puller("a/b", mirrors=[registry.url], auths={registry.host: Credentials("u", "p:w")})
    with pytest.raises(errors.PermissionDenied, match="authentication failed"):
        puller("a/b", mirrors=[registry.url], auths={registry.host: Credentials("u", "wrong")})
    with pytest.raises(errors.PermissionDenied, match="authentication failed"):
        puller("a/b", mirrors=[registry.url])


def test_bearer(puller: Puller, registry: FakeRegistry) -> None:
    registry.faults.auth = "bearer"
    registry.faults.users = {"u": "p"}
    registry.faults.token_key = "access_token"
    registry.add("a/b", "latest", IMAGE)
    puller("a/b", mirrors=[registry.url], auths={registry.host: Credentials("u", "p")})
    with pytest.raises(errors.PermissionDenied, match="authentication failed"):
        puller("a/b", mirrors=[registry.url])
    assert registry.tokens_issued == 1


def test_a_token_that_dies_early_is_replaced(puller: Puller, registry: FakeRegistry) -> None:
    registry.faults.auth = "bearer"
    registry.faults.expires_in = 3600
    registry.faults.token_life_s = 0.0
    registry.add("a/b", "latest", IMAGE)
    with pytest.raises(errors.PermissionDenied):
        puller("a/b", mirrors=[registry.url])
    # one for the first request, one for its second and last try
    assert registry.tokens_issued == 2


def test_blobs_elsewhere_are_fetched_without_authorization(
    puller: Puller, registry: FakeRegistry
) -> None:
    with FakeRegistry() as elsewhere:
        registry.faults.auth = "bearer"
        registry.add("a/b", "latest", IMAGE)
        elsewhere.add("a/b", "latest", IMAGE)
        registry.faults.redirect_blobs = elsewhere.url
        elsewhere.faults.cut_at = [0.3]
        puller("a/b", mirrors=[registry.url])
        assert len(elsewhere.seen("/blobs/")) == 4
        assert all("authorization" not in item.headers for item in elsewhere.requests)


def test_who_a_redirect_leads_to_does_not_choose_the_token_server(
    puller: Puller, registry: FakeRegistry
) -> None:
    registry.faults.auth = "bearer"
    registry.faults.users = {"u": "p"}
    registry.add("a/b", "latest", IMAGE)
    with FakeRegistry() as elsewhere, FakeRegistry() as thief:
        elsewhere.faults.auth = "bearer"
        elsewhere.faults.realm = f"{thief.url}/token"
        registry.faults.redirect_blobs = elsewhere.url
        with pytest.raises(errors.PermissionDenied):
            puller("a/b", mirrors=[registry.url], auths={registry.host: Credentials("u", "p")})
        # a request is noted when its answer has been sent
        until(lambda: bool(elsewhere.requests), "the redirected request")
        assert thief.requests == []


def test_a_redirect_that_never_ends(puller: Puller, registry: FakeRegistry) -> None:
    registry.add("a/b", "latest", IMAGE)
    registry.faults.redirect_blobs = registry.url
    with pytest.raises(errors.Unavailable, match="redirects in a loop"):
        puller("a/b", mirrors=[registry.url])


# cut connections (case A08)


@pytest.mark.parametrize("cuts", [[0.25, 0.5, 0.75], [0.9, 0.9, 0.99], [0.0, 0.5]])
def test_a08_a_cut_blob_is_resumed(
    puller: Puller, registry: FakeRegistry, cuts: list[float]
) -> None:
    image = registry.add("a/b", "latest", make_image([TOP]))
    registry.faults.cut_at = cuts
    puller("a/b", mirrors=[registry.url])
    assert registry.sent_bytes(TOP.digest) <= 1.1 * len(TOP.blob)
    assert (puller.tree(image) / "big").read_bytes() == RANDOM


@pytest.mark.parametrize("ranges", ["no", "wrong", "refused"])
def test_a08_a_server_without_ranges_is_read_from_the_start(
    puller: Puller, registry: FakeRegistry, ranges: str
) -> None:
    image = registry.add("a/b", "latest", make_image([TOP]))
    registry.faults.cut_at = [0.5]
    registry.faults.ranges = ranges
    puller("a/b", mirrors=[registry.url])
    assert (puller.tree(image) / "big").read_bytes() == RANDOM


def test_a_link_that_drops_again_and_again_gets_there(
    puller: Puller, registry: FakeRegistry
) -> None:
    noise = FakeLayer.of({"noise": os.urandom(4_000_000)})
    registry.add("a/b", "latest", make_image([noise]))
    registry.faults.cut_at = [i / 30 for i in range(1, 30)]
    puller("a/b", mirrors=[registry.url])
    assert registry.sent_bytes(noise.digest) <= 1.1 * len(noise.blob)


def test_a_link_that_brings_nothing_is_given_up(puller: Puller, registry: FakeRegistry) -> None:
    registry.add("a/b", "latest", make_image([TOP]))
    registry.faults.cut_at = [0.0] * 20
    with pytest.raises(errors.Unavailable, match=r"127\.0\.0\.1.* was cut") as found:
        puller("a/b", mirrors=[registry.url])
    assert found.value.retryable
    assert len(registry.seen(TOP.digest)) == 6
    waits = puller.daemon.clock.slept
    assert waits == sorted(waits)
    assert puller.leftovers() == []


# several layers


def test_many_layers_at_once(puller: Puller, registry: FakeRegistry) -> None:
    layers = [FakeLayer.of({f"f{i}": os.urandom(50_000), "last": b"%d" % i}) for i in range(12)]
    image = registry.add("a/b", "latest", make_image(layers))
    for concurrent in (1, 3, 20):
        puller("a/b", mirrors=[registry.url], max_concurrent=concurrent)
        assert puller.daemon.of("layer") == image.chain_ids
        if concurrent != 20:
            for chain_id in reversed(image.chain_ids):
                puller.store.remove(chain_id)  # type: ignore[arg-type]
    assert sorted(os.listdir(puller.tree(image))) == sorted(["last", *(f"f{i}" for i in range(12))])
    assert (puller.tree(image) / "last").read_bytes() == b"11"
    assert puller.leftovers() == []


def test_one_bad_layer_ends_all_downloads(puller: Puller, registry: FakeRegistry) -> None:
    layers = [FakeLayer.of({f"f{i}": os.urandom(400_000)}) for i in range(6)]
    registry.add("a/b", "latest", make_image(layers))
    registry.faults.bytes_per_s = 2_000_000
    registry.faults.always = {layers[2].digest: 404}
    with pytest.raises(errors.NotFound, match=layers[2].digest):
        puller("a/b", mirrors=[registry.url])
    assert puller.unfinished() == []
    assert registry.seen(layers[5].digest) == []


def test_plain_and_gzip_layers_by_their_bytes(puller: Puller, registry: FakeRegistry) -> None:
    plain = FakeLayer(BASE.tar, BASE.tar, DOCKER_GZIP)
    twice = FakeLayer(TOP.tar, gzip.compress(TOP.tar[:1000]) + gzip.compress(TOP.tar[1000:]))
    image = registry.add("a/b", "latest", make_image([plain, twice]))
    puller("a/b", mirrors=[registry.url])
    assert (puller.tree(image) / "big").read_bytes() == RANDOM


def test_a_cancelled_pull_leaves_nothing_unfinished(
    puller: Puller, registry: FakeRegistry, graph: Path
) -> None:
    registry.add("a/b", "latest", IMAGE)
    daemon = FakeDaemon()
    puller.daemon = daemon
    registry.faults.bytes_per_s = 500_000

    def emit(event: dict[str, Any]) -> None:
        daemon.events.append(event)
        if "layer" in event:
            daemon.job.cancel()

    daemon.job.emit = emit
    wanted = PullRequest(ref="a/b", tmpdir=str(graph / "tmp"), mirrors=[registry.url])
    with pytest.raises(errors.Aborted):
        pull(wanted, puller.store, daemon.job)
    assert daemon.of("layer") == IMAGE.chain_ids[:1]
    assert puller.unfinished() == []


def test_a_full_disk_is_not_blamed_on_the_mirror(
    puller: Puller, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add("a/b", "latest", IMAGE)

    def full(*_arguments: object, **_keywords: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("isula_edge.image.unpack.unpack_layer", full)
    with pytest.raises(errors.NoSpace):
        puller("a/b", mirrors=[registry.url, registry.url])
    assert len(registry.seen("/manifests/")) == 1
    assert puller.leftovers() == []


# names that cannot be reached


def test_a_registry_that_is_down_is_named_at_once(puller: Puller) -> None:
    with pytest.raises(errors.Unavailable, match=r"127\.0\.0\.1:1: Connection refused") as found:
        puller("127.0.0.1:1/a/b")
    assert found.value.retryable
    assert puller.daemon.clock.slept == []


def test_a_name_that_does_not_resolve(puller: Puller) -> None:
    with pytest.raises(errors.Unavailable, match=r"registry\.invalid"):
        puller("registry.invalid/a/b", settings=Settings(certs_dir="/nonexistent"))
