"""Pull: from a name to an image in the store, from the first registry that has it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.image import manifest as manifests
from isula_edge.image import schema1
from isula_edge.image.clock import ClockWait, earliest
from isula_edge.image.digest import chain_ids, of_bytes, parse_digest, verify_bytes
from isula_edge.image.fetch import fetch_layers
from isula_edge.image.hosts import canonical
from isula_edge.image.layers import image_event
from isula_edge.image.places import mirror, try_each
from isula_edge.image.places import registry as registry_at
from isula_edge.image.reference import Reference, parse
from isula_edge.image.registry import Endpoint, Registry
from isula_edge.image.schema1 import Schema1
from isula_edge.image.tags import list_tags
from isula_edge.image.transport import Settings, Transport
from isula_edge.profile import platform as platforms

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from isula_edge.image.auth import Credentials
    from isula_edge.image.job import Job
    from isula_edge.snapshot.layers import LayerStore
    from isula_edge.types import ChainId, Digest, Platform

__all__ = ["MAX_CONCURRENT", "PullRequest", "endpoints", "pull"]

_MAX_NESTING = 3
MAX_CONCURRENT = 3


@dataclass(frozen=True, slots=True)
class PullRequest:
    """What to pull and how.

    ``platform`` is what was asked for explicitly, '' for the host's.  ``mirrors`` serve
    names without a host; ``host_mirrors`` maps a host to mirrors that are asked first.
    ``auths`` are the credentials of each host (see :func:`isula_edge.image.hosts.canonical`):
    no other host gets them.  ``unreachable`` hosts are asked last.  ``clock_timeout_s`` is how
    long a certificate that is not yet valid is waited for.
    """

    ref: str
    tmpdir: str
    platform: str = ""
    mirrors: Sequence[str] = ()
    host_mirrors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    auths: Mapping[str, Credentials] = field(default_factory=dict)
    max_concurrent: int = MAX_CONCURRENT
    max_rate: int = 0
    rate_file: str = ""
    all_tags: bool = False
    unreachable: Collection[str] = ()
    clock_timeout_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Resolved:
    """A manifest and what led to it; ``top`` is the digest of what the name stands for."""

    manifest: manifests.Manifest | Schema1
    data: bytes
    digest: Digest
    top: Digest


def endpoints(ref: Reference, request: PullRequest) -> list[Endpoint]:
    """Where to ask for ``ref``, in order.

    Raises InvalidArgument when the name has no host and there are no mirrors.
    """
    if not ref.host:
        if not request.mirrors:
            raise errors.InvalidArgument(
                "Invalid image name, no host found",
                kind="image",
                ref=request.ref,
                hint='set "registry-mirrors" in daemon.json, or give a host: HOST/NAME',
            )
        return [mirror(text, request.settings) for text in request.mirrors]
    found = [mirror(text, request.settings) for text in request.host_mirrors.get(ref.host, ())]
    return [*found, registry_at(ref.contact, request.settings)]


def pull(request: PullRequest, store: LayerStore, job: Job) -> dict[str, Any]:
    """Brings the image and tells the daemon; returns ``{"ref": stored name, "id": id}``.

    With ``all_tags`` the result is that of :func:`_all`.  Places are asked in order, the
    first success wins; the error of the last is reported, and what the others said.
    """
    ref = parse(request.ref)
    if request.all_tags:
        _check_untagged(request.ref)

    def attempt(endpoint: Endpoint, *, patient: bool) -> dict[str, Any]:
        with (
            job.scope() as part,
            contextlib.closing(Transport(request.settings, part, patient=patient)) as sender,
        ):
            registry = Registry(
                endpoint,
                ref.path,
                ref.familiar_repository if request.all_tags else ref.familiar,
                sender,
                part,
                request.auths.get(canonical(endpoint.host)),
                patient=patient,
            )
            registry.connect()
            if request.all_tags:
                return _all(request, ref, registry, store, part)
            return _Pull(request, ref, registry, store, part).run()

    before = earliest(store.records.folder)
    with contextlib.closing(ClockWait(job, request.clock_timeout_s, before)) as clock:
        return try_each(endpoints(ref, request), attempt, job, clock, request.unreachable)


def _check_untagged(text: str) -> None:
    if "@" in text or ":" in text.rpartition("/")[2]:
        raise errors.InvalidArgument(
            "tag can't be used with --all-tags/-a", kind="flag", ref=text, hint="give NAME alone"
        )


def _all(
    request: PullRequest, ref: Reference, registry: Registry, store: LayerStore, job: Job
) -> dict[str, Any]:
    """Brings every tag: ``{"ref": repository, "id": "", "images": [{"ref", "id"}, …],
    "skipped": [{"ref", "reason"}, …]}``.

    What has a tag and is no image for this machine (signatures, charts, other platforms) is
    skipped; when that is all there is, the first reason is raised.
    """
    images: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    first: errors.EngineError | None = None
    for tag in list_tags(registry, ref.familiar_repository):
        one = replace(ref, tag=tag, digest="")
        try:
            images.append(_Pull(request, one, registry, store, job).run())
        except (errors.NotFound, errors.Unimplemented, errors.InvalidArgument) as error:
            if error.kind == "blob":
                # an image that is there in part: another place may have all of it
                raise
            first = first or error
            skipped.append({"ref": one.familiar, "reason": error.message})
    if first is not None and not images:
        raise first
    return {"ref": ref.familiar_repository, "id": "", "images": images, "skipped": skipped}


class _Pull:
    def __init__(
        self,
        request: PullRequest,
        ref: Reference,
        registry: Registry,
        store: LayerStore,
        job: Job,
    ) -> None:
        self._request = request
        self._ref = ref
        self._name = ref.familiar
        self._registry = registry
        self._store = store
        self._job = job
        self._platform: Platform = (
            platforms.parse(request.platform) if request.platform else platforms.host_platform()
        )

    def run(self) -> dict[str, Any]:
        """Resolves the name, brings what is missing and tells the daemon."""
        found = self._resolve()
        if isinstance(found.manifest, Schema1):
            config_data, chain, size = self._old(found.manifest)
            media_type = schema1.MEDIA_TYPE
        else:
            config_data, chain, size = self._image(found.manifest)
            media_type = found.manifest.media_type
        event = image_event(
            config_data,
            found.data,
            found.digest,
            media_type,
            chain,
            [] if self._ref.digest else [self._ref.familiar],
            [self._ref.with_digest(found.top)],
            size,
            found.top if found.top != found.digest else "",
        )
        self._job.emit(event)
        return {"ref": self._ref.familiar, "id": event["image"]["id"]}

    def _image(self, manifest: manifests.Manifest) -> tuple[bytes, list[ChainId], int]:
        """Brings the layers: configuration, chain ids, size of all layers in bytes."""
        config_data = self._config(manifest.config)
        layers = manifest.layers
        config = manifests.parse_config(config_data, len(layers), self._name)
        self._check_platform(config.platform)
        for layer in layers:
            if layer.urls:
                self._registry.also_at(layer.digest, layer.urls)
        chain = chain_ids(config.diff_ids)
        _, size = self._layers(layers, config.diff_ids, chain)
        return config_data, chain, size

    def _old(self, image: Schema1) -> tuple[bytes, list[ChainId], int]:
        """The same for a manifest of schema 1, whose diff_ids are known afterwards."""
        platform = manifests.parse_platform(image.top)
        self._check_platform(platform)
        known = self._known(image.layers)
        layers = [self._describe(digest, known.get(digest)) for digest in image.layers]
        diff_ids = [known[digest][0] if digest in known else None for digest in image.layers]
        sure = list(takewhile(lambda diff_id: diff_id is not None, diff_ids))
        chain = chain_ids(diff_id for diff_id in sure if diff_id is not None)
        found, size = self._layers(layers, diff_ids, chain)
        return image.config(found), chain_ids(found), size

    def _known(self, wanted: Sequence[Digest]) -> dict[Digest, tuple[Digest, int]]:
        """diff_id and blob size of those blobs that layers of the store were made of."""
        digests = set(wanted)
        records = self._store.records
        return {
            record["digest"]: (record["diff_id"], int(record["compressed_size"]))
            for record in map(records.read, records.keys())
            if record is not None and record["digest"] in digests
        }

    def _describe(self, digest: Digest, known: tuple[Digest, int] | None) -> manifests.Descriptor:
        size = known[1] if known is not None else self._registry.blob_size(digest)
        return manifests.Descriptor(manifests.DOCKER_LAYER, digest, size)

    def _resolve(self) -> _Resolved:
        wanted = self._ref.wanted
        top: Digest | None = None
        for _ in range(_MAX_NESTING):
            data, media_type, stated = self._registry.manifest(
                wanted, manifests.ACCEPT, manifests.MAX_MANIFEST
            )
            # of a signed manifest only what is signed counts, by its digest and as a text
            old = schema1.payload(data, self._name)
            # registries disagree on what they state of these
            digest = (
                self._verify_manifest(data, wanted, stated)
                if old is None
                else self._verify_manifest(old, wanted, "")
            )
            top = top or digest
            if old is not None:
                return _Resolved(schema1.parse(old, self._name), data, digest, top)
            document = manifests.parse(data, media_type, self._name)
            if isinstance(document, manifests.Manifest):
                return _Resolved(document, data, digest, top)
            wanted = self._choose(document).digest
        raise errors.InvalidArgument(
            f"index of {self._name} is nested too deeply", kind="image", ref=self._name
        )

    def _verify_manifest(self, data: bytes, wanted: str, stated: str) -> Digest:
        """Digest of a manifest, checked against the one asked for, or else the one stated."""
        what = f"manifest of {self._name} from {self._registry.endpoint.host}"
        if ":" in wanted:
            digest = parse_digest(wanted, what)
            verify_bytes(data, digest, what)
            return digest
        if stated.startswith("sha256:"):
            verify_bytes(data, parse_digest(stated, what), what)
        return of_bytes(data)

    def _choose(self, index: manifests.Index) -> manifests.Descriptor:
        entries = index.entries
        chosen = platforms.choose([entry.platform for entry in entries], self._platform)
        if chosen is None:
            raise manifests.no_platform(entries, self._platform, self._name)
        return entries[chosen]

    def _config(self, descriptor: manifests.Descriptor) -> bytes:
        what = f"config of {self._name}"
        data = self._registry.blob_bytes(descriptor.digest, manifests.MAX_CONFIG, what)
        verify_bytes(data, descriptor.digest, what)
        return data

    def _check_platform(self, found: Platform) -> None:
        """Refuses an image for another platform than asked for explicitly."""
        if not self._request.platform or not found.architecture:
            return
        if (found.os, found.architecture) != (self._platform.os, self._platform.architecture):
            raise errors.NotFound(
                f"{self._name} is for {found}, not for {self._platform}",
                kind="image",
                ref=self._name,
            )

    def _layers(
        self,
        layers: Sequence[manifests.Descriptor],
        diff_ids: Sequence[Digest | None],
        chain: Sequence[ChainId],
    ) -> tuple[list[Digest], int]:
        """Brings what is missing: every diff_id, and the size of all layers in bytes.

        ``chain`` ends where a diff_id is not known.
        """
        held = self._job.held(chain) if chain else set()
        present = max((n + 1 for n, chain_id in enumerate(chain) if chain_id in held), default=0)
        size = 0
        for chain_id, layer in zip(chain[:present], layers, strict=False):
            self._job.layer(layer.digest, layer.size).done("Exists")
            record = self._store.get(chain_id)
            size += int(record["size"]) if record is not None else 0
        found = [diff_id for diff_id in diff_ids[:present] if diff_id is not None]
        if present < len(layers):
            with self._job.scope() as part:
                applied = fetch_layers(
                    self._registry,
                    self._store,
                    part,
                    layers[present:],
                    diff_ids[present:],
                    chain[present - 1] if present else None,
                    tmpdir=self._request.tmpdir,
                    max_concurrent=self._request.max_concurrent,
                    max_rate=self._request.max_rate,
                    rate_file=self._request.rate_file,
                )
            found += [layer.diff_id for layer in applied]
            size += sum(layer.size for layer in applied)
        return found, size
