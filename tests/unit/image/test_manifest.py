"""Manifests and configurations: what is understood, and what is refused with its name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from isula_edge import errors
from isula_edge.image import manifest as manifests
from isula_edge.types import Platform
from tests.fakes.images import OCI_GZIP, FakeLayer, index, make_image

LAYER = FakeLayer.of({"a": b"1"})
BASES = [
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.oci.image.layer.v1.tar",
]


def changed(**keys: Any) -> bytes:
    return make_image([LAYER], manifest=keys).manifest


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("suffix", ["", ".gzip", "+gzip", ".zstd", "+zstd"])
def test_a19_layer_types_of_both_worlds(base: str, suffix: str) -> None:
    layer = FakeLayer(LAYER.tar, LAYER.blob, base + suffix)
    found = manifests.parse(make_image([layer]).manifest, "", "x")
    assert isinstance(found, manifests.Manifest)
    assert found.layers[0].media_type == base + suffix


@pytest.mark.parametrize(
    "media_type",
    ["unknown", "", "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "text/html"],
)
def test_a19_an_unknown_layer_type_is_named(media_type: str) -> None:
    layer = FakeLayer(LAYER.tar, LAYER.blob, media_type)
    with pytest.raises(errors.Unimplemented, match=f"media type of layer of x: {media_type}"[:40]):
        manifests.parse(make_image([LAYER, layer]).manifest, "", "x")


def test_an_artifact_is_no_image() -> None:
    helm = {"mediaType": "application/vnd.cncf.helm.config.v1+json"}
    image = make_image([LAYER])
    config = json.loads(image.manifest)["config"] | helm
    with pytest.raises(errors.Unimplemented, match="helm"):
        manifests.parse(changed(config=config), "", "x")


@pytest.mark.parametrize(
    ("stated", "header"),
    [
        (manifests.DOCKER_MANIFEST, "text/plain"),
        (None, manifests.DOCKER_MANIFEST),
        (None, "application/json"),
        (None, ""),
    ],
)
def test_the_type_comes_from_the_document_the_header_or_the_keys(
    stated: str | None, header: str
) -> None:
    document = json.loads(make_image([LAYER], docker=True).manifest)
    document.pop("mediaType")
    if stated:
        document["mediaType"] = stated
    found = manifests.parse(json.dumps(document).encode(), header, "x")
    assert isinstance(found, manifests.Manifest)
    assert len(found.layers) == 1


def test_an_index_keeps_platforms_and_leaves_attestations_out() -> None:
    arm = make_image([LAYER], platform={"os": "linux", "architecture": "arm", "variant": "v7"})
    digest = f"sha256:{'0' * 64}"
    attestations = [
        {
            "digest": digest,
            "size": 1,
            "platform": {"os": "unknown", "architecture": "unknown"},
        },
        {
            "digest": digest,
            "size": 1,
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        },
    ]
    found = manifests.parse(index([arm], attestations), "", "x")
    assert isinstance(found, manifests.Index)
    assert [entry.platform for entry in found.entries] == [Platform("linux", "arm", "v7")]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", errors.InvalidArgument),
        (b"{", errors.InvalidArgument),
        (b"[]", errors.InvalidArgument),
        (b"[" * 100_000, errors.InvalidArgument),
        (b"\xff\xfe", errors.InvalidArgument),
        (b"1" * 10_000, errors.InvalidArgument),
        (b"{}", errors.Unimplemented),
        (b'{"schemaVersion": 1, "fsLayers": []}', errors.Unimplemented),
        (changed(layers=[]), errors.InvalidArgument),
        (changed(layers=None), errors.InvalidArgument),
        (changed(layers=[1]), errors.InvalidArgument),
        (changed(layers=[{"digest": "x", "size": 1}]), errors.InvalidArgument),
        (changed(layers=[{"digest": LAYER.digest, "size": -1}]), errors.InvalidArgument),
        (changed(layers=[{"digest": LAYER.digest, "size": True}]), errors.InvalidArgument),
        (changed(layers=[{"digest": LAYER.digest, "size": 1 << 60}]), errors.InvalidArgument),
        (changed(layers=[{"digest": LAYER.digest.upper(), "size": 1}]), errors.InvalidArgument),
        (changed(config=None), errors.InvalidArgument),
        (changed(layers=[{"digest": LAYER.digest, "size": 1, "mediaType": OCI_GZIP}] * 501),
         errors.InvalidArgument),
        (b'{"manifests": 1}', errors.InvalidArgument),
        (b'{"manifests": [{}]}', errors.InvalidArgument),
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_refused(data: bytes, kind: type[errors.EngineError]) -> None:
    with pytest.raises(kind):
        manifests.parse(data, "", "x")


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"created": "0001-01-01T00:00:00Z"},
        {"created": "2999-01-01T00:00:00Z", "history": [{}, {"created": 5}]},
        {"created": None, "history": None},
    ],
)
def test_dates_of_a_config_do_not_matter(extra: dict[str, Any]) -> None:
    image = make_image([LAYER], config=extra)
    found = manifests.parse_config(image.config, 1, "x")
    assert found.diff_ids == (LAYER.diff_id,)
    assert found.platform == Platform("linux", "amd64")


@pytest.mark.parametrize(
    "config",
    [
        {"rootfs": None},
        {"rootfs": {"diff_ids": "x"}},
        {"rootfs": {"diff_ids": []}},
        {"rootfs": {"diff_ids": ["sha256:zz"]}},
        {"rootfs": {"diff_ids": [LAYER.diff_id, LAYER.diff_id]}},
    ],
)
def test_a_config_must_fit_its_layers(config: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidArgument):
        manifests.parse_config(make_image([LAYER], config=config).config, 1, "x")
