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

    from isula_edge.image.archive import Archive, Member
    from isula_edge.types import Digest, Platform

__all__ = ["Loadable", "images_of"]

_MAX_LIST = 4 << 20
_MAX_NESTING = 3
_MAX_IMAGES = 256
_MAX_KEPT = 64 << 20
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
    Raises ResourceExhausted for more than 256 images, and when their configurations and
    manifests together have more than 64 MiB.
    """
    listed = archive.read("manifest.json", _MAX_LIST)
    if listed is not None:
        return _docker_images(_Documents(archive), listed)
    if archive.find("index.json") is not None:
        data = archive.read("index.json", _MAX_LIST) or b""
        return _layout_images(_Documents(archive), data, platform)
    raise errors.InvalidArgument(
        "Failed to load manifest.json file: the archive has neither manifest.json nor index.json",
        kind="file",
        hint="load takes archives of docker save and OCI layouts; import takes root file systems",
    )


class _Documents:
    """Configurations and manifests: each is read and verified once, whatever names it."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._kept: dict[Member, bytes] = {}
        self._verified: set[tuple[Member, Digest]] = set()
        self._size = 0

    def read(self, path: str, limit: int, digest: Digest | None = None, what: str = "") -> bytes:
        """The file ``path``; InvalidArgument when it is missing, or has not ``digest``."""
        member = self._archive.find(path)
        if member is None:
            raise errors.InvalidArgument(f"{path} no such file", kind="file", ref=path)
        data = self._kept.get(member)
        if data is None:
            data = self._first(member, path, limit)
        if digest is not None and (member, digest) not in self._verified:
            verify_bytes(data, digest, f"{path} of {what}")
            self._verified.add((member, digest))
        return data

    def _first(self, member: Member, path: str, limit: int) -> bytes:
        self._size += min(member.size, limit)
        if self._size > _MAX_KEPT:
            raise errors.ResourceExhausted(
                f"{path}: configurations and manifests of the archive have more than "
                f"{_MAX_KEPT >> 20} MiB",
                kind="file",
                ref=path,
            )
        data = self._kept[member] = self._archive.read(path, limit) or b""
        return data


def _check_count(count: int) -> None:
    if count > _MAX_IMAGES:
        raise errors.ResourceExhausted(
            f"the archive has {count} images, at most {_MAX_IMAGES} are possible",
            kind="file",
            hint="save the images in several archives",
        )


def _docker_images(documents: _Documents, listed: bytes) -> list[Loadable]:
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
    _check_count(len(found))
    return [
        Loadable(
            documents.read(path, manifests.MAX_CONFIG),
            [str(item) for item in layers],
            [str(item) for item in tags],
        )
        for path, layers, tags in found
    ]


def _layout_images(documents: _Documents, data: bytes, platform: str) -> list[Loadable]:
    want = platforms.parse(platform) if platform else platforms.host_platform()
    index = manifests.parse(data, manifests.OCI_INDEX, "the archive")
    if not isinstance(index, manifests.Index) or not index.entries:
        raise errors.InvalidArgument("index.json of the archive names no image", kind="file")
    groups: dict[str, list[manifests.Descriptor]] = {}
    for entry in index.entries:
        groups.setdefault(_name(entry), []).append(entry)
    chosen: list[tuple[str, manifests.Descriptor]] = []
    for name, entries in groups.items():
        if _variants(entries, name):
            entries = [_choose(entries, want, name)]
        chosen.extend((name, entry) for entry in entries)
    _check_count(len(chosen))
    return [_layout_image(documents, entry, name, want) for name, entry in chosen]


def _variants(entries: Sequence[manifests.Descriptor], name: str) -> bool:
    """Whether these are one image for several platforms, not several images without a name."""
    found = [entry.platform for entry in entries]
    return len(found) > 1 and all(found) and (bool(name) or len(set(found)) == len(found))


def _layout_image(
    documents: _Documents, entry: manifests.Descriptor, name: str, want: Platform
) -> Loadable:
    what = name or "the archive"
    for _ in range(_MAX_NESTING):
        data = documents.read(_path(entry), manifests.MAX_MANIFEST, entry.digest, what)
        found = manifests.parse(data, entry.media_type, what)
        if isinstance(found, manifests.Manifest):
            about = found.config
            config = documents.read(_path(about), manifests.MAX_CONFIG, about.digest, what)
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


def _path(entry: manifests.Descriptor) -> str:
    return f"blobs/{entry.digest.replace(':', '/')}"


def _name(entry: manifests.Descriptor) -> str:
    """The image name that an entry of index.json states; '' when it is only a tag."""
    name = entry.annotations.get(_FULL_NAME) or entry.annotations.get(_REF_NAME, "")
    return name if "/" in name or ":" in name else ""
