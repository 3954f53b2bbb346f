"""Load: images out of an archive, made by ``docker save`` or with an OCI layout.

A plain tar in a regular file is read where it is.  A compressed one, and one from a
pipe, is first copied to the directory for temporary files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.image import digest as digests
from isula_edge.image import manifest as manifests
from isula_edge.image.archive import Archive
from isula_edge.image.archive_images import images_of
from isula_edge.image.layers import apply_layer, image_event
from isula_edge.image.reference import parse, parse_tag
from isula_edge.image.source import seekable_plain

if TYPE_CHECKING:
    import io
    from collections.abc import Sequence

    from isula_edge.image.archive import Member, MemberReader
    from isula_edge.image.archive_images import Loadable
    from isula_edge.image.job import Job, LayerProgress
    from isula_edge.snapshot.layers import LayerStore
    from isula_edge.types import ChainId, Digest

__all__ = ["load"]


def load(
    source: io.BufferedReader,
    store: LayerStore,
    job: Job,
    *,
    tmpdir: str,
    tag: str = "",
    platform: str = "",
) -> dict[str, Any]:
    """Loads every image of ``source``; returns ``{"images": [names, or an id]}``.

    ``tag`` replaces the names of a single image.  All names and configurations are checked,
    and all layers found, before anything is unpacked.  Layers that are in the store need not
    be in the archive.
    """
    with seekable_plain(source, tmpdir) as file:
        archive = Archive(file.fileno(), job.check)
        images = images_of(archive, platform)
        names = _names(images, tag)
        loading = _Load(archive, store, job)
        loaded: list[str] = []
        planned = [loading.plan(*item) for item in zip(images, names, strict=True)]
        for plan in planned:
            event = loading.run(plan)
            job.emit(event)
            loaded.extend(plan.names or [event["image"]["id"]])
        return {"images": loaded}


def _names(images: Sequence[Loadable], tag: str) -> list[list[str]]:
    """The stored names that each image gets."""
    if tag:
        if len(images) > 1:
            raise errors.InvalidArgument(
                "Can not use --tag option because more than one image found in tar archive",
                kind="image",
            )
        return [[parse_tag(tag).familiar]]
    try:
        return [[parse_tag(name).familiar for name in image.names] for image in images]
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(
            f"Contain invalid image name in tar archive: {error.ref}",
            kind="image",
            ref=error.ref,
        ) from error


class _Blob:
    """A layer's file in the archive; has the digest that ``descriptor`` states, if there is one."""

    def __init__(
        self,
        file: MemberReader,
        descriptor: manifests.Descriptor | None,
        progress: LayerProgress,
    ) -> None:
        self._file = file
        self._descriptor = descriptor
        self._progress = progress
        self._calculated = digests.hasher(descriptor.digest if descriptor else "sha256:")
        self._at = 0

    def read(self, size: int, /) -> bytes:
        """The next ``size`` bytes; DigestMismatch at a wrong end."""
        data = self._file.read(size)
        self._at += len(data)
        self._progress.at(self._at)
        if self._descriptor is not None:
            self._calculated.update(data)
            if len(data) < size:
                digests.check(self._calculated, self._descriptor.digest, "blob of the archive")
        return data


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be done for an image: ``members`` are its layers that are not there yet."""

    image: Loadable
    names: Sequence[str]
    diff_ids: Sequence[Digest]
    chain: Sequence[ChainId]
    members: Sequence[Member]


class _Load:
    def __init__(self, archive: Archive, store: LayerStore, job: Job) -> None:
        self._archive = archive
        self._store = store
        self._job = job
        self._planned: set[str] = set()

    def plan(self, image: Loadable, names: Sequence[str]) -> _Plan:
        """Checks an image and finds its layers, those of images that were planned before too."""
        self._job.check()
        what = names[0] if names else "the image"
        count = len(image.layers)
        if not 1 <= count <= manifests.MAX_LAYERS:
            raise errors.InvalidArgument(
                f"{what} has {count} layers, 1 to {manifests.MAX_LAYERS} are possible",
                kind="image",
            )
        config = manifests.parse_config(image.config, count, what)
        chain = digests.chain_ids(config.diff_ids)
        held = self._job.held(chain) | self._planned
        present = max((n + 1 for n, chain_id in enumerate(chain) if chain_id in held), default=0)
        members = [
            self._member(path, diff_id, what)
            for path, diff_id in zip(image.layers[present:], config.diff_ids[present:], strict=True)
        ]
        self._planned.update(chain)
        return _Plan(image, names, config.diff_ids, chain, members)

    def run(self, plan: _Plan) -> dict[str, Any]:
        """Brings the image's layers; the event that describes it."""
        present = len(plan.chain) - len(plan.members)
        for diff_id in plan.diff_ids[:present]:
            self._job.layer(diff_id, 0).done("Exists")
        blobs = plan.image.blobs
        for number, member in enumerate(plan.members, present):
            self._layer(
                member,
                plan.diff_ids[number],
                plan.chain[number - 1] if number else None,
                blobs[number] if blobs else None,
            )
        return self._event(plan)

    def _member(self, path: str, diff_id: Digest, what: str) -> Member:
        member = self._archive.find(path)
        if member is None:
            raise errors.NotFound(
                f"{path} no such file: the archive lacks layer {diff_id} of {what}, and so "
                "does this engine",
                kind="layer",
                ref=diff_id,
                hint="pull or load the image it builds on, then try again",
            )
        return member

    def _layer(
        self,
        member: Member,
        diff_id: Digest,
        parent: ChainId | None,
        blob: manifests.Descriptor | None,
    ) -> None:
        progress = self._job.layer(blob.digest if blob is not None else diff_id, member.size)
        progress.status("Extracting")
        stream = _Blob(self._archive.open(member), blob, progress)
        apply_layer(
            self._store,
            self._job,
            stream,
            parent=parent,
            diff_id=diff_id,
            digest=blob.digest if blob is not None else "",
            compressed_size=blob.size if blob is not None else 0,
        )
        progress.done()

    def _event(self, plan: _Plan) -> dict[str, Any]:
        image, names, chain = plan.image, plan.names, plan.chain
        records = [self._store.get(chain_id) or {} for chain_id in chain]
        manifest, media_type = image.manifest, image.media_type
        if not manifest:
            sizes = [int(record.get("compressed_size", 0)) for record in records]
            manifest = manifests.docker_manifest(
                image.config, list(zip(map(str, plan.diff_ids), sizes, strict=True))
            )
            media_type = manifests.DOCKER_MANIFEST
        digest = digests.of_bytes(manifest)
        return image_event(
            image.config,
            manifest,
            digest,
            media_type,
            chain,
            names,
            sorted({parse(name).with_digest(digest) for name in names}),
            sum(int(record.get("size", 0)) for record in records),
        )
