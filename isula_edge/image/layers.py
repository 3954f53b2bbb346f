"""From a stream of bytes to a committed layer, and from layers to an image."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from isula_edge import errors
from isula_edge.image import decompress, unpack
from isula_edge.image.digest import chain_ids
from isula_edge.sys import atomic
from isula_edge.types import Digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.image.digest import Hasher
    from isula_edge.image.job import Job
    from isula_edge.snapshot.layers import Ingest, LayerStore
    from isula_edge.types import ChainId

__all__ = ["Applied", "Readable", "apply_layer", "image_event", "image_id"]

_log = logging.getLogger(__name__)
_CHUNK = 128 * 1024


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """The next ``size`` bytes; fewer only at the end."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A committed layer: its ids, and the size of its files in bytes."""

    chain_id: ChainId
    diff_id: Digest
    size: int


class _Hashing:
    """Passes a stream on and hashes it; ends when the job is cancelled."""

    def __init__(self, stream: Readable, hasher: Hasher, job: Job) -> None:
        self._stream = stream
        self._hasher = hasher
        self._job = job
        self.length = 0

    def read(self, size: int, /) -> bytes:
        """The next ``size`` bytes; fewer only at the end."""
        self._job.check()
        data = self._stream.read(size)
        self._hasher.update(data)
        self.length += len(data)
        return data


def apply_layer(
    store: LayerStore,
    job: Job,
    stream: Readable,
    *,
    parent: ChainId | None,
    diff_id: Digest | None,
    digest: str = "",
    compressed_size: int = 0,
) -> Applied:
    """Unpacks ``stream`` (tar: plain, or in a known compression) on ``parent`` and commits it.

    Nothing is committed when the uncompressed bytes do not have ``diff_id`` (DigestMismatch),
    or when reading or unpacking fails.  ``diff_id`` None takes the layer as it comes; an
    empty stream is refused then.  ``digest`` and ``compressed_size`` are only recorded.
    """
    ingest = store.begin(parent)
    with job.unfinished(ingest.path):
        try:
            applied = _apply(ingest, job, stream, diff_id, digest, compressed_size)
        except BaseException:
            _abort(ingest)
            raise
    job.committed(applied.chain_id)
    return applied


def _apply(
    ingest: Ingest,
    job: Job,
    stream: Readable,
    diff_id: Digest | None,
    digest: str,
    compressed_size: int,
) -> Applied:
    algorithm = diff_id.partition(":")[0] if diff_id is not None else "sha256"
    calculated = hashlib.new(algorithm, usedforsecurity=False)
    with atomic.space_errors(ingest.path):
        plain = _Hashing(decompress.open_stream(stream), calculated, job)
        stats = unpack.unpack_layer(plain, ingest.path, ingest.style)
        # what follows the end of the tar, and of the compressed data, belongs to the digests
        _drain(plain)
        _drain(stream)
    found = Digest(f"{algorithm}:{calculated.hexdigest()}")
    if diff_id is None and plain.length == 0:
        raise errors.InvalidArgument("the archive is empty", kind="layer")
    if diff_id not in (None, found):
        raise errors.DigestMismatch(
            f"layer has diff_id {found} instead of {diff_id}: invalid diff id",
            kind="layer",
            ref=diff_id or "",
        )
    chain_id = _chain(ingest.parent, found)
    job.check()
    with atomic.space_errors(ingest.path):
        ingest.commit(
            chain_id,
            found,
            digest=digest or found,
            compressed_size=compressed_size or plain.length,
            size=stats.size_bytes,
        )
    return Applied(chain_id, found, stats.size_bytes)


def _chain(parent: ChainId | None, diff_id: Digest) -> ChainId:
    return chain_ids([diff_id] if parent is None else [Digest(parent), diff_id])[-1]


def _drain(stream: Readable) -> None:
    while stream.read(_CHUNK):
        pass


def _abort(ingest: Ingest) -> None:
    """Removes an unfinished layer; a failure must not hide why it is unfinished."""
    try:
        ingest.abort()
    except OSError as error:
        _log.warning("cannot remove unfinished layer %s: %s", ingest.path, error)


def image_id(config: bytes) -> str:
    """Id of the image with this configuration: 64 hexadecimal digits."""
    return hashlib.sha256(config).hexdigest()


def image_event(
    config: bytes,
    manifest: bytes,
    manifest_digest: str,
    media_type: str,
    layers: Sequence[ChainId],
    names: Sequence[str],
    digest_refs: Sequence[str],
    size: int,
    index_digest: str = "",
) -> dict[str, Any]:
    """The event that gives a complete image to the daemon."""
    image: dict[str, Any] = {
        "id": image_id(config),
        "config": config,
        "manifest": manifest,
        "manifest_digest": manifest_digest,
        "manifest_media_type": media_type,
        "chain_ids": list(layers),
        "names": list(names),
        "digest_refs": list(digest_refs),
        "size": size,
    }
    if index_digest:
        image["index_digest"] = index_digest
    return {"image": image}
