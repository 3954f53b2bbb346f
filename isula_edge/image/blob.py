"""Download of one blob: resumed where the connection was cut, verified over the whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from isula_edge.image import digest as digests
from isula_edge.image.registry import Retry
from isula_edge.image.transport import Transient

if TYPE_CHECKING:
    from collections.abc import Callable

    from isula_edge.image.job import Job, LayerProgress
    from isula_edge.image.manifest import Descriptor
    from isula_edge.image.registry import Registry
    from isula_edge.image.transport import Response

__all__ = ["download"]

_CHUNK = 128 * 1024
_PROGRESS_BYTES = 64 * 1024
"""A try that brought this much is no failure: a link that drops every minute gets there."""
_RANGE = re.compile(r"bytes (\d{1,18})-\d+/(?:\d+|\*)")
_RANGE_NOT_SATISFIABLE = 416


class _Download:
    def __init__(
        self, registry: Registry, blob: Descriptor, sink: Callable[[bytes], None], job: Job
    ) -> None:
        self._registry = registry
        self._blob = blob
        self._sink = sink
        self._job = job
        self._hasher = digests.hasher(blob.digest)
        self._ranges = True
        self.offset = 0

    def run(self, progress: LayerProgress) -> None:
        retry = Retry(self._job)
        mark = 0
        while True:
            try:
                self._once(progress)
                break
            except Transient as error:
                if error.status == _RANGE_NOT_SATISFIABLE:
                    self._ranges = False
                if self.offset >= mark + _PROGRESS_BYTES:
                    mark = self.offset
                    retry.progress()
                retry.failed(error)
        digests.check(self._hasher, self._blob.digest, f"blob from {self._registry.endpoint.host}")

    def _once(self, progress: LayerProgress) -> None:
        if self.offset == self._blob.size:
            return
        wanted = self.offset if self._ranges else 0
        response = self._registry.open_blob(self._blob.digest, wanted)
        try:
            with self._job.closing(response.shutdown):
                self._skip(response, self._start(response))
                self._copy(response, progress)
        finally:
            response.close()

    def _start(self, response: Response) -> int:
        """Offset of the first byte that the server sends, whatever was asked for."""
        if response.status != 206:
            return 0
        found = _RANGE.match(response.headers.get("Content-Range", ""))
        start = int(found[1]) if found else -1
        if not 0 <= start <= self.offset:
            self._ranges = False
            raise Transient(
                f"{self._registry.endpoint.host} sent another range than asked for",
                self._registry.endpoint.host,
            )
        return start

    def _skip(self, response: Response, start: int) -> None:
        """Reads over what is there already; the digest of the whole tells whether it is equal."""
        left = self.offset - start
        while left > 0:
            data = response.read(min(left, _CHUNK))
            if not data:
                raise self._cut()
            left -= len(data)

    def _copy(self, response: Response, progress: LayerProgress) -> None:
        while self.offset < self._blob.size:
            data = response.read(min(_CHUNK, self._blob.size - self.offset))
            if not data:
                raise self._cut()
            self._hasher.update(data)
            self._sink(data)
            self.offset += len(data)
            progress.at(self.offset)

    def _cut(self) -> Transient:
        host = self._registry.endpoint.host
        return Transient(
            f"connection to {host} was cut after {self.offset} of {self._blob.size} bytes", host
        )


def download(
    registry: Registry,
    blob: Descriptor,
    sink: Callable[[bytes], None],
    job: Job,
    progress: LayerProgress,
) -> None:
    """Gives every byte of ``blob`` to ``sink``, in order, and then verifies its digest.

    Raises DigestMismatch; Unavailable when five tries in a row brought nothing.
    """
    _Download(registry, blob, sink, job).run(progress)
