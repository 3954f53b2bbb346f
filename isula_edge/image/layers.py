"""From a stream of bytes to a committed layer, and from layers to an image."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from isula_edge import errors
from isula_edge.image import decompress, unpack
from isula_edge.image.digest import chain_ids
from isula_edge.image.recorder import Recorder
from isula_edge.sys import atomic
from isula_edge.types import Digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.image.digest import Hasher
    from isula_edge.image.job import Job
    from isula_edge.snapshot.layers import Ingest, LayerStore
    from isula_edge.types import ChainId

__all__ = [
    "Applied",
    "Readable",
    "Unpacked",
    "apply_layer",
    "image_event",
    "image_id",
    "unpack_layer",
]

_log = logging.getLogger(__name__)
_CHUNK = 128 * 1024
_MAX_SIZE = (1 << 63) - 1


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """The next ``size`` bytes; fewer only at the end."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A layer: its ids, and the size of its files in bytes."""

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


class Unpacked:
    """A layer that is unpacked and is what it should be, and is not in the store yet.

    Either :meth:`commit` or :meth:`abort` must follow.
    """

    def __init__(
        self, job: Job, ingest: Ingest, held: contextlib.ExitStack, applied: Applied, **known: Any
    ) -> None:
        self.applied = applied
        self._job = job
        self._ingest = ingest
        self._held = held
        self._known = known

    def check(self) -> None:
        """Raises Aborted once the job is cancelled."""
        self._job.check()

    def commit(self, *, synced: bool = False) -> Applied:
        """Puts the layer into the store, or removes it when that fails.

        ``synced``: the caller has forced the file system to the disk since it was unpacked.
        """
        applied = self.applied
        try:
            self._job.check()
            with atomic.space_errors(self._ingest.path):
                self._ingest.commit(
                    applied.chain_id,
                    applied.diff_id,
                    size=applied.size,
                    synced=synced,
                    **self._known,
                )
        except BaseException:
            self.abort()
            raise
        self._held.close()
        self._job.committed(applied.chain_id)
        return applied

    def abort(self) -> None:
        """Removes what was unpacked."""
        _abort(self._ingest)
        self._held.close()


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
    """Unpacks ``stream`` as :func:`unpack_layer` does, and commits the layer."""
    return unpack_layer(
        store,
        job,
        stream,
        parent=parent,
        diff_id=diff_id,
        digest=digest,
        compressed_size=compressed_size,
    ).commit()


def unpack_layer(
    store: LayerStore,
    job: Job,
    stream: Readable,
    *,
    parent: ChainId | None,
    diff_id: Digest | None,
    digest: str = "",
    compressed_size: int = 0,
) -> Unpacked:
    """Unpacks ``stream`` (tar: plain, or in a known compression) on ``parent``.

    Nothing is left when the uncompressed bytes do not have ``diff_id`` (DigestMismatch),
    or when reading or unpacking fails.  ``diff_id`` None takes the layer as it comes; an
    empty stream is refused then.  ``digest`` and ``compressed_size`` are only recorded.
    """
    ingest = store.begin(parent)
    with contextlib.ExitStack() as stack:
        stack.enter_context(job.unfinished(ingest.path))
        try:
            applied, plain_size, recipe = _unpack(ingest, job, stream, diff_id)
        except BaseException:
            _abort(ingest)
            raise
        return Unpacked(
            job,
            ingest,
            stack.pop_all(),
            applied,
            digest=digest or applied.diff_id,
            compressed_size=compressed_size or plain_size,
            recipe=recipe,
        )


def _unpack(
    ingest: Ingest, job: Job, stream: Readable, diff_id: Digest | None
) -> tuple[Applied, int, int]:
    """The layer, the size of its tar and that of its recipe."""
    algorithm = diff_id.partition(":")[0] if diff_id is not None else "sha256"
    calculated = hashlib.new(algorithm, usedforsecurity=False)
    with atomic.space_errors(ingest.path):
        plain = _Hashing(decompress.open_stream(stream), calculated, job)
        with ingest.new_recipe() as fd:
            recorder = Recorder(fd)
            stats = unpack.unpack_layer(plain, ingest.path, ingest.style, recorder, job.check)
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
    applied = Applied(_chain(ingest.parent, found), found, stats.size_bytes)
    return applied, plain.length, recorder.size_bytes


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
        # layers may say more than the records and the wire can hold
        "size": min(size, _MAX_SIZE),
    }
    if index_digest:
        image["index_digest"] = index_digest
    return {"image": image}
