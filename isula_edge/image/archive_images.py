"""What images an archive holds: its lists read and checked, no layer touched yet."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.image import manifest as manifests
from isula_edge.image.digest import verify_bytes
from isula_edge.profile import platform as platforms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.image.archive import Archive
    from isula_edge.types import Platform

__all__ = ["Loadable", "images_of"]

_MAX_LIST = 4 << 20
_MAX_NESTING = 3
# annotations that name an image: containerd's holds the whole name, OCI's may be a tag only
_FULL_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True)
class Loadable:
    """One image of an archive.

    ``layers`` are paths in the archive, bottom-up.  ``manifest`` is empty for an image that
    came without one; ``blobs`` then is too, else it holds the layers' descriptors.
    """

    config: bytes
    layers: Sequence[str]
    names: Sequence[str]
    manifest: bytes = b""
    media_type: str = ""
    blobs: Sequence[manifests.Descriptor] = ()


def images_of(archive: Archive, platform: str) -> list[Loadable]:
    """The images of a docker-archive or, without ``manifest.json``, of an OCI layout.

    Of an image for several platforms the one for ``platform`` ('' is the host's) is taken.
    """
    listed = archive.read("manifest.json", _MAX_LIST)
    if listed is not None:
        return _docker_images(archive, listed)
    if archive.find("index.json") is not None:
        return _layout_images(archive, platform)
    raise errors.InvalidArgument(
        "Failed to load manifest.json file: the archive has neither manifest.json nor index.json",
        kind="file",
        hint="load takes archives of docker save and OCI layouts; import takes root file systems",
    )


def _docker_images(archive: Archive, listed: bytes) -> list[Loadable]:
    try:
        entries = json.loads(listed)
        found = [
            (str(entry["Config"]), list(entry["Layers"]), list(entry.get("RepoTags") or ()))
            for entry in entries
        ]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise errors.InvalidArgument(
            f"Failed to load manifest.json file: {error}", kind="file"
        ) from error
    if not found:
        raise errors.InvalidArgument("manifest.json of the archive names no image", kind="file")
    images = []
    for path, layers, tags in found:
        config = archive.read(path, manifests.MAX_CONFIG)
        if config is None:
            raise errors.InvalidArgument(f"{path} no such file", kind="file", ref=path)
        images.append(
            Loadable(config, [str(item) for item in layers], [str(item) for item in tags])
        )
    return images


def _layout_images(archive: Archive, platform: str) -> list[Loadable]:
    want = platforms.parse(platform) if platform else platforms.host_platform()
    data = archive.read("index.json", _MAX_LIST) or b""
    index = manifests.parse(data, manifests.OCI_INDEX, "the archive")
    if not isinstance(index, manifests.Index) or not index.entries:
        raise errors.InvalidArgument("index.json of the archive names no image", kind="file")
    groups: dict[str, list[manifests.Descriptor]] = {}
    for entry in index.entries:
        groups.setdefault(_name(entry), []).append(entry)
    images: list[Loadable] = []
    for name, entries in groups.items():
        if _variants(entries, name):
            entries = [_choose(entries, want, name)]
        images.extend(_layout_image(archive, entry, name, want) for entry in entries)
    return images


def _variants(entries: Sequence[manifests.Descriptor], name: str) -> bool:
    """Whether these are one image for several platforms, not several images without a name."""
    found = [entry.platform for entry in entries]
    return len(found) > 1 and all(found) and (bool(name) or len(set(found)) == len(found))


def _layout_image(
    archive: Archive, entry: manifests.Descriptor, name: str, want: Platform
) -> Loadable:
    what = name or "the archive"
    for _ in range(_MAX_NESTING):
        data = _blob(archive, entry, manifests.MAX_MANIFEST, what)
        found = manifests.parse(data, entry.media_type, what)
        if isinstance(found, manifests.Manifest):
            config = _blob(archive, found.config, manifests.MAX_CONFIG, what)
            paths = [_path(layer) for layer in found.layers]
            names = [name] if name else []
            return Loadable(config, paths, names, data, found.media_type, found.layers)
        entry = _choose(found.entries, want, what)
    raise errors.InvalidArgument(f"index of {what} is nested too deeply", kind="image")


def _choose(
    entries: Sequence[manifests.Descriptor], want: Platform, what: str
) -> manifests.Descriptor:
    chosen = platforms.choose([entry.platform for entry in entries], want)
    if chosen is None:
        raise manifests.no_platform(entries, want, what)
    return entries[chosen]


def _blob(archive: Archive, entry: manifests.Descriptor, limit: int, what: str) -> bytes:
    path = _path(entry)
    data = archive.read(path, limit)
    if data is None:
        raise errors.InvalidArgument(f"{path} no such file", kind="file", ref=path)
    verify_bytes(data, entry.digest, f"{path} of {what}")
    return data


def _path(entry: manifests.Descriptor) -> str:
    return f"blobs/{entry.digest.replace(':', '/')}"


def _name(entry: manifests.Descriptor) -> str:
    """The image name that an entry of index.json states; '' when it is only a tag."""
    name = entry.annotations.get(_FULL_NAME) or entry.annotations.get(_REF_NAME, "")
    return name if "/" in name or ":" in name else ""
