"""Several layers on their way at once: a few download, one unpacks, in order.

A download may run at most ``max_concurrent`` layers ahead of the unpacking; that also
bounds the temporary files.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.image.blob import download
from isula_edge.image.layers import apply_layer
from isula_edge.image.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.image.job import Job, LayerProgress
    from isula_edge.image.layers import Applied
    from isula_edge.image.manifest import Descriptor
    from isula_edge.image.registry import Registry
    from isula_edge.snapshot.layers import LayerStore
    from isula_edge.types import ChainId, Digest

__all__ = ["fetch_layers"]

_JOIN_S = 5.0
_WORTH_READING_BYTES = 64 << 20


class _Fetch:
    def __init__(
        self,
        registry: Registry,
        layers: Sequence[Descriptor],
        job: Job,
        tmpdir: str,
        max_concurrent: int,
    ) -> None:
        self._registry = registry
        self._layers = layers
        self._job = job
        self._ahead = max(1, max_concurrent)
        self._spools = [Spool(tmpdir) for _ in layers]
        self._progress = [job.layer(layer.digest, layer.size) for layer in layers]
        self._changed = threading.Condition()
        self._started = 0
        self._applied = 0
        self.failure: errors.EngineError | None = None
        count = min(self._ahead, len(layers))
        self._threads = [
            threading.Thread(target=self._download_all, name=f"download-{i}", daemon=True)
            for i in range(count)
        ]

    def start(self) -> None:
        for progress in self._progress:
            progress.status("Waiting")
        for thread in self._threads:
            thread.start()

    def stream(self, number: int) -> tuple[Spool, LayerProgress]:
        return self._spools[number], self._progress[number]

    def applied(self) -> None:
        """One more layer is unpacked: another download may start."""
        with self._changed:
            self._applied += 1
            self._changed.notify_all()

    def fail(self, error: errors.EngineError) -> None:
        """Ends every download and the reader with ``error``; only the first one counts."""
        with self._changed:
            if self.failure is None:
                self.failure = error
            self._changed.notify_all()
        for spool in self._spools:
            spool.fail(self.failure)

    def stop(self) -> None:
        self._job.cancel()
        self.fail(errors.Aborted("the download has ended"))
        for thread in self._threads:
            thread.join(_JOIN_S)
        # a thread that still waits for a connection may write into its spool once more
        if not any(thread.is_alive() for thread in self._threads):
            for spool in self._spools:
                spool.close()

    def _next(self) -> int | None:
        with self._changed:
            while self.failure is None:
                if self._started >= len(self._layers):
                    return None
                if self._started < self._applied + self._ahead:
                    self._started += 1
                    return self._started - 1
                self._changed.wait()
            return None

    def _download_all(self) -> None:
        while (number := self._next()) is not None:
            spool, progress = self._spools[number], self._progress[number]
            complete = False
            try:
                progress.status("Downloading")
                download(self._registry, self._layers[number], spool.write, self._job, progress)
                progress.status("Extracting")
                spool.finish()
                complete = True
            except errors.EngineError as error:
                self.fail(error)
            except OSError as error:
                self.fail(errors.Internal(f"cannot keep a layer: {error}", kind="layer"))
            finally:
                if not complete:
                    self.fail(errors.Internal("a download ended unexpectedly", kind="layer"))


def fetch_layers(
    registry: Registry,
    store: LayerStore,
    job: Job,
    layers: Sequence[Descriptor],
    diff_ids: Sequence[Digest],
    parent: ChainId | None,
    *,
    tmpdir: str,
    max_concurrent: int,
) -> list[Applied]:
    """Downloads, verifies, unpacks and commits ``layers`` (bottom-up) on ``parent``.

    When one fails, those below it stay committed.  ``job`` ends with this call.
    """
    fetch = _Fetch(registry, layers, job, tmpdir, max_concurrent)
    done: list[Applied] = []
    fetch.start()
    try:
        with job.closing(lambda: fetch.fail(errors.Aborted("the request was cancelled"))):
            for layer, diff_id in zip(layers, diff_ids, strict=True):
                spool, progress = fetch.stream(len(done))
                done.append(_apply(store, job, spool, layer, diff_id, parent))
                parent = done[-1].chain_id
                progress.done()
                fetch.applied()
    except errors.EngineError as error:
        if fetch.failure is not None and fetch.failure is not error:
            raise fetch.failure from error
        raise
    finally:
        fetch.stop()
    return done


def _apply(
    store: LayerStore,
    job: Job,
    spool: Spool,
    layer: Descriptor,
    diff_id: Digest,
    parent: ChainId | None,
) -> Applied:
    try:
        return apply_layer(
            store,
            job,
            spool,
            parent=parent,
            diff_id=diff_id,
            digest=layer.digest,
            compressed_size=layer.size,
        )
    except (errors.DataLoss, errors.InvalidArgument):
        # a wrong blob rarely unpacks: say that it is wrong, not what is odd in it
        _read_rest(spool)
        raise


def _read_rest(spool: Spool) -> None:
    """Reads to the end, if it is near, so that the blob's digest is verified."""
    left = _WORTH_READING_BYTES
    while left > 0 and (data := spool.read(128 * 1024)):
        left -= len(data)
