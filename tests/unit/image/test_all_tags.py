"""Every tag of a name: the list, page by page, and what is done with what is no image."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image.pull import PullRequest, pull
from isula_edge.image.registry import next_page
from tests.fakes.images import OCI_MANIFEST, FakeLayer, index, make_image
from tests.fakes.jobs import FakeDaemon

if TYPE_CHECKING:
    from pathlib import Path

    from isula_edge.snapshot import LayerStore
    from tests.fakes.registry import FakeRegistry

BASE = FakeLayer.of({"base": b"x" * 5000})
IMAGES = {f"v{n}": make_image([BASE, FakeLayer.of({"n": b"%d" % n})]) for n in range(5)}


def do_pull(
    registry: FakeRegistry, store: LayerStore, graph: Path, ref: str = "a/b", **more: Any
) -> tuple[dict[str, Any], FakeDaemon]:
    daemon = FakeDaemon()
    wanted = PullRequest(
        ref=ref, tmpdir=str(graph / "tmp"), mirrors=[registry.url], all_tags=True, **more
    )
    return pull(wanted, store, daemon.job), daemon


@pytest.fixture
def full(registry: FakeRegistry) -> FakeRegistry:
    for tag, image in IMAGES.items():
        registry.add("a/b", tag, image)
    return registry


@pytest.mark.parametrize("page", [0, 1, 2, 5])
def test_all_tags(full: FakeRegistry, store: LayerStore, graph: Path, page: int) -> None:
    full.faults.page = page
    full.faults.auth = "bearer"
    result, daemon = do_pull(full, store, graph)
    assert result["ref"] == "a/b"
    assert result["skipped"] == []
    assert result["images"] == [
        {"ref": f"a/b:{tag}", "id": image.id} for tag, image in IMAGES.items()
    ]
    assert [image["names"] for image in daemon.of("image")] == [[f"a/b:{tag}"] for tag in IMAGES]
    assert len(full.seen("/tags/list")) == (1 if page == 0 else -(-5 // page))
    # one connection's worth of work: layers once, one token
    assert len(full.seen(BASE.digest)) == 1
    assert full.tokens_issued == 1


def test_what_is_no_image_is_skipped_and_told(
    full: FakeRegistry, store: LayerStore, graph: Path
) -> None:
    helm = "application/vnd.helm"
    odd = {"mediaType": OCI_MANIFEST, "config": {"mediaType": helm}}
    config = json.loads(IMAGES["v1"].manifest)["config"]
    chart = make_image([BASE], manifest={"config": {**config, "mediaType": helm}})
    full.put_manifest("a/b", "chart", chart.manifest, OCI_MANIFEST)
    full.put_manifest("a/b", "odd", json.dumps(odd).encode(), OCI_MANIFEST)
    other = make_image([BASE], platform={"os": "plan9", "architecture": "mips"})
    full.add_index("a/b", "windows", index([other]), other)
    result, _ = do_pull(full, store, graph)
    assert len(result["images"]) == 5
    reasons = {item["ref"]: item["reason"] for item in result["skipped"]}
    assert list(reasons) == ["a/b:chart", "a/b:odd", "a/b:windows"]
    assert "application/vnd.helm" in reasons["a/b:chart"]
    assert "plan9/mips" in reasons["a/b:windows"]


def test_nothing_but_such_is_an_error(
    registry: FakeRegistry, store: LayerStore, graph: Path
) -> None:
    other = make_image([BASE], platform={"os": "plan9", "architecture": "mips"})
    registry.add_index("a/b", "x", index([other]), other)
    with pytest.raises(errors.NotFound, match="plan9/mips"):
        do_pull(registry, store, graph)


def test_any_other_failure_ends_the_pull(
    full: FakeRegistry, store: LayerStore, graph: Path
) -> None:
    full.faults.corrupt = {BASE.digest}
    with pytest.raises(errors.DigestMismatch):
        do_pull(full, store, graph)
    assert len(full.seen("/manifests/")) == 1


def test_an_image_without_one_of_its_blobs_is_a_failure(
    full: FakeRegistry, store: LayerStore, graph: Path
) -> None:
    full.faults.always = {IMAGES["v2"].layers[1].digest: 404}
    with pytest.raises(errors.NotFound, match="does not have blob"):
        do_pull(full, store, graph)


def test_a_name_without_tags(registry: FakeRegistry, store: LayerStore, graph: Path) -> None:
    for body in (b'{"name": "a/b", "tags": null}', b'{"name": "a/b", "tags": []}'):
        registry.put_document("/v2/a/b/tags/list", body)
        with pytest.raises(errors.NotFound, match="a/b has no tags"):
            do_pull(registry, store, graph)


@pytest.mark.parametrize("ref", ["a/b:1", "a/b:latest", f"a/b@sha256:{'a' * 64}"])
def test_a_tag_and_all_tags_exclude_each_other(
    registry: FakeRegistry, store: LayerStore, graph: Path, ref: str
) -> None:
    with pytest.raises(errors.InvalidArgument, match="--all-tags"):
        do_pull(registry, store, graph, ref)
    assert registry.requests == []


def test_a_port_is_no_tag(full: FakeRegistry, store: LayerStore, graph: Path) -> None:
    result, _ = do_pull(full, store, graph, f"{full.host}/a/b")
    assert result["ref"] == f"{full.host}/a/b"


@pytest.mark.parametrize(
    "body", [b"", b"[", b"5", b'{"tags": 5}', b'{"tags": {"a": 1}}', b"[" * 100_000]
)
def test_no_list(registry: FakeRegistry, store: LayerStore, graph: Path, body: bytes) -> None:
    registry.put_document("/v2/a/b/tags/list", body)
    with pytest.raises(errors.Unavailable, match="list of tags of a/b"):
        do_pull(registry, store, graph)


def test_what_can_be_no_tag_is_left_out(full: FakeRegistry, store: LayerStore, graph: Path) -> None:
    tags = ["v1", "../../v2/", "v1", 5, None, "a b", ""]
    full.put_document("/v2/a/b/tags/list", json.dumps({"tags": tags}).encode())
    result, _ = do_pull(full, store, graph)
    assert [item["ref"] for item in result["images"]] == ["a/b:v1"]


def test_pages_that_lead_in_a_circle(
    registry: FakeRegistry, store: LayerStore, graph: Path
) -> None:
    link = '</v2/a/b/tags/list?n=1>; rel="next"'
    registry.put_document("/v2/a/b/tags/list", b'{"tags": ["v1"]}', Link=link)
    with pytest.raises(errors.Unavailable, match="in a circle"):
        do_pull(registry, store, graph)


@pytest.mark.parametrize("link", ["<http://127.0.0.1:1/x>; rel=next", "<file:///etc/x>; rel=next"])
def test_the_next_page_is_at_the_same_registry(
    registry: FakeRegistry, store: LayerStore, graph: Path, link: str
) -> None:
    registry.put_document("/v2/a/b/tags/list", b'{"tags": ["v1"]}', Link=link)
    with pytest.raises((errors.Unavailable, errors.InvalidArgument)):
        do_pull(registry, store, graph)
    assert len(registry.seen("/tags/list")) == 1


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('</v2/a/tags/list?n=1&last=x>; rel="next"', "/v2/a/tags/list?n=1&last=x"),
        ("<tags/list?next_page=a%3D>; rel=next", "tags/list?next_page=a%3D"),
        ('<x>; title="y"; rel="prev next"', "x"),
        ('<first>; rel="first", <second>; REL = "next"', "second"),
        ('<x>; rel="nextish"', ""),
        ('<x>; rel="prev"', ""),
        ("x; rel=next", ""),
        ("", ""),
    ],
)
def test_the_header_link(header: str, target: str) -> None:
    assert next_page(header) == target
