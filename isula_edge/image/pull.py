"""Pull: from a name to an image in the store, from the first registry that has it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.image import manifest as manifests
from isula_edge.image.digest import chain_ids, of_bytes, parse_digest, verify_bytes
from isula_edge.image.fetch import fetch_layers
from isula_edge.image.layers import image_event
from isula_edge.image.reference import Reference, parse
from isula_edge.image.registry import Endpoint, Registry
from isula_edge.image.transport import Settings, Transport
from isula_edge.profile import platform as platforms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isula_edge.image.auth import Credentials
    from isula_edge.image.job import Job
    from isula_edge.snapshot.layers import LayerStore
    from isula_edge.types import ChainId, Digest, Platform

__all__ = ["MAX_CONCURRENT", "PullRequest", "endpoints", "pull"]

_MAX_NESTING = 3
_log = logging.getLogger(__name__)
MAX_CONCURRENT = 3


@dataclass(frozen=True, slots=True)
class PullRequest:
    """What to pull and how.

    ``platform`` is what was asked for explicitly, '' for the host's.  ``mirrors`` serve
    names without a host; ``host_mirrors`` maps a host to mirrors that are asked first.
    """

    ref: str
    tmpdir: str
    platform: str = ""
    mirrors: Sequence[str] = ()
    host_mirrors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    credentials: Credentials | None = None
    max_concurrent: int = MAX_CONCURRENT


@dataclass(frozen=True, slots=True)
class _Resolved:
    """A manifest and what led to it; ``top`` is the digest of what the name stands for."""

    manifest: manifests.Manifest
    data: bytes
    digest: Digest
    top: Digest


def endpoints(ref: Reference, request: PullRequest) -> list[tuple[Endpoint, bool]]:
    """Where to ask for ``ref``, in order, and whether credentials may be sent there.

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
        return [(_mirror(text, request.settings), True) for text in request.mirrors]
    found = [
        (_mirror(text, request.settings), False) for text in request.host_mirrors.get(ref.host, ())
    ]
    found.append((_endpoint("", ref.contact, "", request.settings), True))
    return found


def _mirror(text: str, settings: Settings) -> Endpoint:
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    host, slash, path = rest.partition("/")
    if scheme not in ("", "http", "https") or not host or "@" in host:
        raise errors.InvalidArgument(
            f"registry mirror {text!r} is no [http://|https://]HOST[:PORT][/PATH]", ref=text
        )
    return _endpoint(scheme, host, (slash + path).rstrip("/"), settings)


def _endpoint(scheme: str, host: str, prefix: str, settings: Settings) -> Endpoint:
    if scheme == "http":
        return Endpoint(("http",), host, prefix)
    if settings.is_insecure(host):
        return Endpoint(("https", "http"), host, prefix)
    return Endpoint(("https",), host, prefix)


def pull(request: PullRequest, store: LayerStore, job: Job) -> dict[str, Any]:
    """Brings the image and tells the daemon; returns ``{"ref": stored name, "id": id}``.

    Places are asked in order, the first success wins; the error of the last is reported.
    """
    ref = parse(request.ref)
    places = endpoints(ref, request)
    for endpoint, trusted in places:
        try:
            with job.scope() as part:
                transport = Transport(request.settings, part)
                registry = Registry(
                    endpoint,
                    ref.path,
                    ref.familiar,
                    transport,
                    part,
                    request.credentials if trusted else None,
                )
                try:
                    return _Pull(request, ref, registry, store, part).run()
                finally:
                    transport.close()
        except (errors.NoSpace, errors.Aborted):
            raise
        except errors.EngineError as error:
            if endpoint is places[-1][0]:
                raise
            _log.warning("%s: %s", endpoint.host, error)
    raise errors.Internal("no place to pull from", kind="image", ref=request.ref)


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
        self._registry.connect()
        found = self._resolve()
        config_data = self._config(found.manifest.config)
        layers = found.manifest.layers
        config = manifests.parse_config(config_data, len(layers), self._name)
        self._check_platform(config.platform)
        chain = chain_ids(config.diff_ids)
        size = self._layers(layers, config.diff_ids, chain)
        name = [] if self._ref.digest else [self._ref.familiar]
        event = image_event(
            config_data,
            found.data,
            found.digest,
            found.manifest.media_type,
            chain,
            name,
            [self._ref.with_digest(found.top)],
            size,
            found.top if found.top != found.digest else "",
        )
        self._job.emit(event)
        return {"ref": self._ref.familiar, "id": event["image"]["id"]}

    def _resolve(self) -> _Resolved:
        wanted = self._ref.wanted
        top: Digest | None = None
        for _ in range(_MAX_NESTING):
            data, media_type, stated = self._registry.manifest(
                wanted, manifests.ACCEPT, manifests.MAX_MANIFEST
            )
            digest = self._verify_manifest(data, wanted, stated)
            top = top or digest
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
        # the stated digest of a schema 1 manifest leaves its signatures out
        if stated.startswith("sha256:") and b'"fsLayers"' not in data:
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
        diff_ids: Sequence[Digest],
        chain: Sequence[ChainId],
    ) -> int:
        """Brings what is missing; returns the size of all layers in bytes."""
        held = self._job.held(chain)
        present = max((n + 1 for n, chain_id in enumerate(chain) if chain_id in held), default=0)
        size = 0
        for chain_id, layer in zip(chain[:present], layers, strict=False):
            self._job.layer(layer.digest, layer.size).done("Exists")
            record = self._store.get(chain_id)
            size += int(record["size"]) if record is not None else 0
        if present < len(layers):
            applied = fetch_layers(
                self._registry,
                self._store,
                self._job,
                layers[present:],
                diff_ids[present:],
                chain[present - 1] if present else None,
                tmpdir=self._request.tmpdir,
                max_concurrent=self._request.max_concurrent,
            )
            size += sum(layer.size for layer in applied)
        return size
