"""Download of one blob: resumed where it was cut, now or long ago, verified over the whole."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from isula_edge import errors
from isula_edge.image import digest as digests
from isula_edge.image.registry import Retry
from isula_edge.image.transport import Transient

if TYPE_CHECKING:
    from isula_edge.image.digest import Hasher
    from isula_edge.image.job import Job, LayerProgress
    from isula_edge.image.manifest import Descriptor
    from isula_edge.image.registry import Registry
    from isula_edge.image.slots import Slots
    from isula_edge.image.throttle import Throttle
    from isula_edge.image.transport import Response

__all__ = ["Limits", "Sink", "download"]

_CHUNK = 256 * 1024
_PROGRESS_BYTES = 64 * 1024
"""A try that brought this much is no failure: a link that drops every minute gets there."""
_RANGE = re.compile(r"bytes (\d{1,18})-\d+/(?:\d+|\*)")
_RANGE_NOT_SATISFIABLE = 416


class Sink(Protocol):
    """Where the bytes of a blob go."""

    def recover(self, size: int, hasher: Hasher, /) -> int:
        """How many bytes are there already; they are given to ``hasher``."""

    def write(self, data: bytes, /) -> None:
        """Takes the next bytes."""

    def restart(self) -> None:
        """Forgets all bytes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What all downloads of an engine have together."""

    slots: Slots
    throttle: Throttle


class _Download:
    def __init__(
        self,
        registry: Registry,
        blob: Descriptor,
        sink: Sink,
        job: Job,
        limits: Limits,
        progress: LayerProgress,
    ) -> None:
        self._registry = registry
        self._blob = blob
        self._sink = sink
        self._job = job
        self._limits = limits
        self._progress = progress
        self._hasher = digests.hasher(blob.digest)
        self._size = blob.size
        self._ranges = True
        self._joined = False
        self._offset = 0

    def run(self) -> None:
        self._offset = self._sink.recover(self._size, self._hasher)
        try:
            self._whole()
        except errors.DigestMismatch:
            if not self._joined:
                raise
            # one of the parts was wrong, and nobody knows which
            self._sink.restart()
            self._hasher = digests.hasher(self._blob.digest)
            self._offset = 0
            self._joined = False
            self._whole()

    def _whole(self) -> None:
        retry = Retry(self._job)
        mark = self._offset
        if self._offset:
            self._progress.at(self._offset)
        while self._offset < self._size:
            try:
                self._once()
                break
            except Transient as error:
                if error.status == _RANGE_NOT_SATISFIABLE:
                    self._ranges = False
                if self._offset >= mark + _PROGRESS_BYTES:
                    mark = self._offset
                    retry.progress()
                retry.failed(error)
        else:
            self._joined = True
        digests.check(self._hasher, self._blob.digest, f"blob from {self._registry.endpoint.host}")

    def _once(self) -> None:
        self._joined = self._joined or self._offset > 0
        wanted = self._offset if self._ranges else 0
        with self._limits.slots.one(self._job):
            self._progress.status("Downloading")
            response = self._registry.open_blob(self._blob.digest, wanted)
            try:
                with self._job.closing(response.shutdown):
                    self._skip(response, self._start(response))
                    self._copy(response)
            finally:
                response.close()

    def _start(self, response: Response) -> int:
        """Offset of the first byte that the server sends, whatever was asked for."""
        if response.status != 206:
            return 0
        found = _RANGE.match(response.headers.get("Content-Range", ""))
        start = int(found[1]) if found else -1
        if not 0 <= start <= self._offset:
            self._ranges = False
            host = self._registry.endpoint.host
            raise Transient(f"{host} sent another range than asked for", host)
        return start

    def _skip(self, response: Response, start: int) -> None:
        """Reads over what is there already; the digest of the whole tells whether it is equal."""
        left = self._offset - start
        while left > 0:
            left -= len(self._read(response, left))

    def _copy(self, response: Response) -> None:
        while self._offset < self._size:
            data = self._read(response, self._size - self._offset)
            self._hasher.update(data)
            self._sink.write(data)
            self._offset += len(data)
            self._progress.at(self._offset)

    def _read(self, response: Response, most: int) -> bytes:
        """At least one and at most ``most`` bytes, as fast as is allowed."""
        throttle = self._limits.throttle
        data = response.read(min(most, throttle.piece(_CHUNK)))
        if not data:
            host = self._registry.endpoint.host
            raise Transient(
                f"connection to {host} was cut after {self._offset} of {self._size} bytes", host
            )
        throttle.passed(len(data))
        return data


def download(
    registry: Registry,
    blob: Descriptor,
    sink: Sink,
    job: Job,
    limits: Limits,
    progress: LayerProgress,
) -> None:
    """Gives every byte of ``blob`` to ``sink``, in order, and then verifies its digest.

    Goes on from what ``sink`` has.  Should the parts not make the blob, they are thrown away
    and it is downloaded once more from its start.
    Raises DigestMismatch; Unavailable when five tries in a row brought nothing.
    """
    _Download(registry, blob, sink, job, limits, progress).run()
