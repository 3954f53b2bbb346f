"""Old manifests: what is read of them, what image comes out, and what is refused."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.image import schema1
from isula_edge.image.digest import of_bytes
from isula_edge.image.pull import PullRequest, pull
from tests.fakes.images import FakeLayer, make_image
from tests.fakes.jobs import FakeDaemon
from tests.fakes.schema1 import EMPTY, MEDIA_TYPE, FakeOld, encode, make_old, sign

if TYPE_CHECKING:
    from pathlib import Path

    from isula_edge.snapshot import LayerStore
    from tests.fakes.registry import FakeRegistry

BASE = FakeLayer.of({"etc/name": b"base", "a": b"1"})
TOP = FakeLayer.of({"a": b"2"})
LAYERS = [BASE, EMPTY, TOP]


def read(old: FakeOld) -> schema1.Schema1:
    payload = schema1.payload(old.data, "x")
    assert payload == old.payload
    return schema1.parse(payload, "x")


# the document


def test_layers_without_empty_ones_bottom_up() -> None:
    assert read(make_old(LAYERS)).layers == (BASE.digest, TOP.digest)
    assert read(make_old(LAYERS, signed=False)).layers == (BASE.digest, TOP.digest)


def test_the_configuration_is_dockers() -> None:
    """By the rules of its MakeConfigFromV1Config: sorted keys, the escapes and dates of Go."""
    extra: dict[int, dict[str, Any]] = {
        0: {"author": "A <a@b>", "comment": "c"},
        2: {"config": {"Env": ["x=1&2"]}},
    }
    found = read(make_old(LAYERS, extra)).config([of_bytes(b"1"), of_bytes(b"2")])
    one, two = (hashlib.sha256(data).hexdigest() for data in (b"1", b"2"))
    assert found.decode() == (
        '{"architecture":"amd64","config":{"Env":["x=1\\u00262"]},'
        '"container_config":{"Cmd":["/bin/sh","-c","step 2"]},'
        '"created":"2015-01-03T00:00:00.1234500Z","docker_version":"1.9.1",'
        '"history":[{"created":"2015-01-01T00:00:00.12345Z","author":"A \\u003ca@b\\u003e",'
        '"created_by":"/bin/sh -c step 0","comment":"c"},'
        '{"created":"2015-01-02T00:00:00.12345Z","created_by":"/bin/sh -c step 1",'
        '"empty_layer":true},'
        '{"created":"2015-01-03T00:00:00.12345Z","created_by":"/bin/sh -c step 2"}],'
        '"os":"linux",'
        f'"rootfs":{{"type":"layers","diff_ids":["sha256:{one}","sha256:{two}"]}}}}'
    )


def test_an_entry_without_date_has_gos_first() -> None:
    old = make_old([BASE], {0: {"created": None, "container_config": None}})
    assert read(old).history == ({"created": "0001-01-01T00:00:00Z"},)


def test_an_entry_that_is_there_twice_counts_once() -> None:
    same = {"id": f"{1:064x}", "parent": ""}
    old = make_old([BASE, BASE, TOP], {1: same, 2: {"parent": f"{1:064x}"}})
    assert read(old).layers == (BASE.digest, TOP.digest)


def test_a_lone_half_of_a_character_can_be_written() -> None:
    text = read(make_old([BASE], {0: {"author": "\ud800"}})).config([of_bytes(b"")])
    assert json.loads(text)["history"][0]["author"] == "\ufffd"


def test_what_is_no_schema_1() -> None:
    image = make_image([BASE])
    assert schema1.payload(image.manifest, "x") is None
    assert schema1.payload(b'{"schemaVersion": 2, "note": "\\"fsLayers\\""}', "x") is None
    assert schema1.payload(b'{"schemaVersion": 2, "fsLayers": []}', "x") is None


@pytest.mark.parametrize(
    ("layers", "extra", "document", "text"),
    [
        ([BASE, TOP], {1: {"parent": f"{9:064x}"}}, {}, "no chain of parents"),
        ([BASE], {0: {"parent": f"{9:064x}"}}, {}, "no chain of parents"),
        ([BASE, TOP, BASE], {2: {"id": f"{1:064x}"}}, {}, "the same entry twice"),
        ([BASE], {0: {"id": "../../etc"}}, {}, "without id"),
        ([EMPTY], {}, {}, "has 0 layers"),
        ([BASE], {}, {"history": []}, "length of its history"),
        ([BASE], {}, {"fsLayers": []}, "1 to 1000 layers"),
        ([BASE], {}, {"fsLayers": [{}]}, "is no digest"),
        ([BASE], {}, {"fsLayers": [{"blobSum": "sha256:../.."}]}, "is no digest"),
        ([BASE], {}, {"history": [{"v1Compatibility": "[]"}]}, "no JSON object"),
        ([BASE], {}, {"history": [{"v1Compatibility": 1}]}, "without v1Compatibility"),
        ([BASE], {}, {"history": [{"v1Compatibility": '{"id": NaN}'}]}, "no JSON"),
        ([BASE], {}, {"layers": []}, "different schemas"),
        ([BASE], {}, {"manifests": []}, "different schemas"),
    ],
)
def test_what_is_refused(
    layers: list[FakeLayer], extra: dict[int, Any], document: dict[str, Any], text: str
) -> None:
    with pytest.raises(errors.InvalidArgument, match=text):
        read(make_old(layers, extra, document=document))


PAYLOAD = make_old([BASE], signed=False).payload


@pytest.mark.parametrize(
    "data",
    [
        sign(PAYLOAD, formatLength=10**9),
        sign(PAYLOAD, formatLength=0),
        sign(PAYLOAD, formatLength=True),
        sign(PAYLOAD, formatLength="3"),
        sign(PAYLOAD, formatTail=None),
        sign(PAYLOAD, formatTail="\u20ac"),
        sign(PAYLOAD, count=100),
        sign(PAYLOAD, count=0),
        PAYLOAD[:-2] + b', "signatures": {}}',
        PAYLOAD[:-2] + b', "signatures": [{"protected": "' + encode(b"[]").encode() + b'"}]}',
        PAYLOAD[:-2],
    ],
)
def test_signatures_that_do_not_say_what_they_sign(data: bytes) -> None:
    with pytest.raises(errors.InvalidArgument):
        schema1.payload(data, "x")


def test_signatures_of_different_texts() -> None:
    signed = (sign(PAYLOAD), sign(PAYLOAD, formatTail=encode(b"}")))
    first, second = (json.loads(data)["signatures"][0] for data in signed)
    data = PAYLOAD[:-2] + b', "signatures": ' + json.dumps([first, second]).encode() + b"\n}"
    with pytest.raises(errors.InvalidArgument, match="different texts"):
        schema1.payload(data, "x")


# the pull


def do_pull(
    registry: FakeRegistry, store: LayerStore, graph: Path, ref: str = "a/b", **more: Any
) -> FakeDaemon:
    daemon = FakeDaemon(more.pop("held", None))
    wanted = PullRequest(ref=ref, tmpdir=str(graph / "tmp"), mirrors=[registry.url], **more)
    pull(wanted, store, daemon.job)
    return daemon


def serve(registry: FakeRegistry, old: FakeOld, media_type: str = MEDIA_TYPE) -> FakeOld:
    for layer in LAYERS:
        registry.put_blob(layer.blob)
    registry.put_manifest("a/b", "latest", old.data, media_type, old.digest)
    return old


@pytest.mark.parametrize("media_type", [MEDIA_TYPE, "application/json", "text/plain"])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("ranges", ["yes", "no"])
def test_an_old_image(
    registry: FakeRegistry,
    store: LayerStore,
    graph: Path,
    media_type: str,
    signed: bool,
    ranges: str,
) -> None:
    registry.faults.ranges = ranges
    old = serve(registry, make_old(LAYERS, signed=signed), media_type)
    brought = do_pull(registry, store, graph).image
    same = make_image([BASE, TOP])
    assert brought["chain_ids"] == same.chain_ids
    config = json.loads(brought["config"])
    assert config["rootfs"]["diff_ids"] == [BASE.diff_id, TOP.diff_id]
    assert brought["id"] == hashlib.sha256(brought["config"]).hexdigest()
    assert brought["manifest"] == old.data
    assert brought["manifest_digest"] == old.digest
    assert brought["digest_refs"] == [f"a/b@{old.digest}"]
    assert registry.seen(EMPTY.digest) == []
    # the second time its layers are known by their blobs, and nothing is fetched
    before = len(registry.seen("/blobs/"))
    again = do_pull(registry, store, graph, held=set(same.chain_ids)).image
    assert (again["id"], again["size"]) == (brought["id"], brought["size"])
    assert len(registry.seen("/blobs/")) == before
    by_digest = do_pull(registry, store, graph, f"a/b@{old.digest}", held=set(same.chain_ids))
    assert by_digest.image["id"] == brought["id"]


def test_schema_1_is_the_last_thing_that_is_asked_for(
    registry: FakeRegistry, store: LayerStore, graph: Path
) -> None:
    registry.add("a/b", "latest", make_image([BASE]))
    do_pull(registry, store, graph)
    (seen,) = registry.seen("/manifests/")
    types = seen.headers["accept"].split(", ")
    assert types[-2:] == [MEDIA_TYPE, MEDIA_TYPE.replace("prettyjws", "json")]


def test_nothing_outside_of_what_is_signed_counts(
    registry: FakeRegistry, store: LayerStore, graph: Path
) -> None:
    """The payload has the digest asked for; a key that follows it would be another image."""
    old = make_old([BASE])
    added = b', "fsLayers": [{"blobSum": "' + TOP.digest.encode() + b'"}]\n}'
    forged = FakeOld(old.data[:-2] + added, old.payload)
    assert json.loads(forged.data)["fsLayers"] == [{"blobSum": TOP.digest}]
    serve(registry, forged)
    brought = do_pull(registry, store, graph, f"a/b@{old.digest}").image
    assert brought["chain_ids"] == make_image([BASE]).chain_ids
    assert registry.seen(TOP.digest) == []


def test_another_digest_is_refused(registry: FakeRegistry, store: LayerStore, graph: Path) -> None:
    digest = make_old([BASE, TOP]).digest
    registry.put_manifest("a/b", "", make_old([BASE]).data, MEDIA_TYPE, digest)
    with pytest.raises(errors.DigestMismatch):
        do_pull(registry, store, graph, f"a/b@{digest}")


def test_a_wrong_blob(registry: FakeRegistry, store: LayerStore, graph: Path) -> None:
    serve(registry, make_old(LAYERS))
    registry.faults.corrupt = {TOP.digest}
    with pytest.raises(errors.DigestMismatch, match=TOP.digest):
        do_pull(registry, store, graph)


def test_another_platform_than_asked_for(
    registry: FakeRegistry, store: LayerStore, graph: Path
) -> None:
    serve(registry, make_old(LAYERS))
    with pytest.raises(errors.NotFound, match="is for linux/amd64, not for linux/arm64"):
        do_pull(registry, store, graph, platform="linux/arm64")
    assert registry.seen("/blobs/") == []


def test_a_blob_without_size(registry: FakeRegistry, store: LayerStore, graph: Path) -> None:
    serve(registry, make_old(LAYERS))
    registry.faults.statuses = {"/blobs/": [(206, {"Content-Range": "bytes 0-0/*"})]}
    with pytest.raises(errors.Unavailable, match="does not tell the size"):
        do_pull(registry, store, graph)


def test_records_that_others_write_meanwhile_are_left_alone(
    registry: FakeRegistry, store: LayerStore, graph: Path
) -> None:
    """A half-written record is somebody's at work in another process."""
    serve(registry, make_old(LAYERS))
    half = [graph / "layers" / name for name in (".tmp-1", "x.cbor.tmp", ".x.cbor.1.tmp")]
    for path in half:
        path.write_bytes(b"half")
    do_pull(registry, store, graph)
    assert all(path.exists() for path in half)
