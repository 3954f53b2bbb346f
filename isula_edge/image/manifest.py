"""Manifests, indexes and image configurations (OCI image-spec 1.1, Docker schema 2)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.image.digest import of_bytes, parse_digest
from isula_edge.types import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isula_edge.types import Digest

__all__ = [
    "ACCEPT",
    "DOCKER_CONFIG",
    "DOCKER_LAYER",
    "DOCKER_MANIFEST",
    "MAX_CONFIG",
    "MAX_LAYERS",
    "MAX_MANIFEST",
    "OCI_INDEX",
    "Config",
    "Descriptor",
    "Index",
    "Manifest",
    "docker_manifest",
    "no_platform",
    "parse",
    "parse_config",
    "parse_platform",
]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
"""See :mod:`isula_edge.image.schema1`."""

ACCEPT = ", ".join(
    (
        *(OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST, "application/json"),
        # last, for registries that have nothing else
        *(f"{_SCHEMA1[:-5]}+prettyjws", _SCHEMA1),
    )
)

MAX_MANIFEST = 4 << 20
MAX_CONFIG = 8 << 20
MAX_LAYERS = 500
"""The kernel's limit for one overlay mount (OVL_MAX_STACK)."""
_MAX_ENTRIES = 1000
_MAX_SIZE = 1 << 50

_CONFIG_TYPES = {
    DOCKER_CONFIG,
    "application/vnd.oci.image.config.v1+json",
    # written by registries and tools from before the type had a name
    "application/octet-stream",
    "",
}
_FOREIGN_BASES = (
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
)
_LAYER_BASES = (DOCKER_LAYER, "application/vnd.oci.image.layer.v1.tar", *_FOREIGN_BASES)
# Docker's types end in .gzip, OCI's in +gzip; builders mix them (BuildKit: .tar.zstd)
_LAYER_TYPES = {
    base + suffix for base in _LAYER_BASES for suffix in ("", ".gzip", "+gzip", ".zstd", "+zstd")
}
_MAX_URLS = 16


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Names content by digest; ``platform`` and ``annotations`` where an index gives them.

    ``urls`` are where a layer is that a registry need not have (foreign, non-distributable).
    """

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest of one image: its config and its layers, bottom-up."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """Manifests (or further indexes) for several platforms, without attestations."""

    media_type: str
    entries: tuple[Descriptor, ...]


def parse(data: bytes, media_type: str, what: str) -> Manifest | Index:
    """What ``data`` is, by the type it states itself, else by ``media_type``, else by its keys.

    Raises Unimplemented for a type that is not supported (its name in the message; this
    includes layers and configs), InvalidArgument for what is no manifest at all.
    """
    document = _object(data, f"manifest of {what}")
    stated = document.get("mediaType")
    kind = stated if isinstance(stated, str) and stated else media_type
    if document.get("schemaVersion") == 1 or kind.startswith(_SCHEMA1[:-5]):
        raise _unsupported("manifest", kind or _SCHEMA1, what)
    if kind not in (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX):
        if "manifests" in document:
            kind = OCI_INDEX
        elif "config" in document and "layers" in document:
            kind = OCI_MANIFEST
        else:
            raise _unsupported("manifest", kind or "unknown", what)
    index = kind in (OCI_INDEX, DOCKER_INDEX)
    # CVE-2021-41190: what two readers could take for two things is neither
    if "fsLayers" in document or ("layers" if index else "manifests") in document:
        raise errors.InvalidArgument(
            f"manifest of {what} has the parts of an image and of an index", kind="image", ref=what
        )
    return _index(document, kind, what) if index else _manifest(document, kind, what)


def _manifest(document: dict[str, Any], kind: str, what: str) -> Manifest:
    config = _descriptor(document.get("config"), f"config of {what}")
    if config.media_type not in _CONFIG_TYPES:
        raise _unsupported("config", config.media_type, what)
    layers = document.get("layers")
    if not isinstance(layers, list) or not 1 <= len(layers) <= MAX_LAYERS:
        count = len(layers) if isinstance(layers, list) else 0
        raise errors.InvalidArgument(
            f"manifest of {what} has {count} layers, 1 to {MAX_LAYERS} are possible",
            kind="image",
            ref=what,
        )
    found = tuple(_descriptor(item, f"layer of {what}") for item in layers)
    for layer in found:
        if layer.media_type not in _LAYER_TYPES:
            raise _unsupported("layer", layer.media_type, what)
    return Manifest(kind, config, found)


def _index(document: dict[str, Any], kind: str, what: str) -> Index:
    entries = document.get("manifests")
    if not isinstance(entries, list) or len(entries) > _MAX_ENTRIES:
        raise errors.InvalidArgument(
            f"index of {what} has no list of at most {_MAX_ENTRIES} manifests",
            kind="image",
            ref=what,
        )
    found = [_descriptor(item, f"index of {what}") for item in entries]
    return Index(kind, tuple(item for item in found if not _is_attestation(item)))


def _is_attestation(entry: Descriptor) -> bool:
    unknown = entry.platform is not None and entry.platform.architecture == "unknown"
    return unknown or "vnd.docker.reference.type" in entry.annotations


def _descriptor(value: object, what: str) -> Descriptor:
    if not isinstance(value, dict):
        raise errors.InvalidArgument(f"{what}: descriptor is no JSON object", kind="image")
    size = value.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_SIZE:
        raise errors.InvalidArgument(f"{what}: bad size {str(size)[:40]!r}", kind="image")
    notes = value.get("annotations")
    return Descriptor(
        _text(value, "mediaType"),
        parse_digest(value.get("digest"), what),
        size,
        _platform(value.get("platform")),
        {k: v for k, v in notes.items() if isinstance(v, str)} if isinstance(notes, dict) else {},
        _urls(value),
    )


def _urls(value: dict[str, Any]) -> tuple[str, ...]:
    """Where a foreign layer may be; other content comes from the registry and nowhere else."""
    listed = value.get("urls")
    if not _text(value, "mediaType").startswith(_FOREIGN_BASES) or not isinstance(listed, list):
        return ()
    return tuple(url for url in listed[:_MAX_URLS] if isinstance(url, str) and "://" in url)


def _platform(value: object) -> Platform | None:
    if not isinstance(value, dict):
        return None
    return parse_platform(value)


@dataclass(frozen=True, slots=True)
class Config:
    """What the engine needs of an image's configuration to bring its layers."""

    platform: Platform
    diff_ids: tuple[Digest, ...]


def parse_config(data: bytes, layers: int, what: str) -> Config:
    """Platform and diff_ids of a configuration for ``layers`` layers.

    Dates are not looked at: reproducible builds have none, or 0001-01-01.
    """
    document = _object(data, f"config of {what}")
    rootfs = document.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or len(diff_ids) != layers:
        count = len(diff_ids) if isinstance(diff_ids, list) else 0
        raise errors.InvalidArgument(
            f"config of {what} has {count} diff_ids for {layers} layers", kind="image", ref=what
        )
    found = tuple(parse_digest(item, f"diff_id of {what}") for item in diff_ids)
    return Config(parse_platform(document), found)


def parse_platform(document: Mapping[str, Any]) -> Platform:
    """The platform that a configuration says it is for; parts it does not say are empty."""
    return Platform(*(_text(document, key) for key in ("os", "architecture", "variant")))


def no_platform(entries: Sequence[Descriptor], want: Platform, what: str) -> errors.NotFound:
    """The error for an index without an image for ``want``; it lists what there is."""
    there = ", ".join(sorted({str(entry.platform) for entry in entries if entry.platform}))
    return errors.NotFound(
        f"{what} has no image for {want}; it has: {there or 'none'}",
        kind="image",
        ref=what,
        hint="choose one of them with --platform",
    )


def docker_manifest(config: bytes, layers: Sequence[tuple[str, int]]) -> bytes:
    """Schema 2 manifest for an image that came without one: uncompressed layers."""
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {
            "mediaType": DOCKER_CONFIG,
            "size": len(config),
            "digest": of_bytes(config),
        },
        "layers": [
            {"mediaType": DOCKER_LAYER, "size": size, "digest": digest} for digest, size in layers
        ],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise errors.InvalidArgument(f"{what} is no JSON: {error}", kind="image") from error
    if not isinstance(document, dict):
        raise errors.InvalidArgument(f"{what} is no JSON object", kind="image")
    return document


def _text(value: Mapping[str, Any], key: str) -> str:
    found = value.get(key)
    return found[:255] if isinstance(found, str) else ""


def _unsupported(part: str, media_type: str, what: str) -> errors.Unimplemented:
    return errors.Unimplemented(
        f"unsupported media type of {part} of {what}: {media_type}", kind="image", ref=what
    )
