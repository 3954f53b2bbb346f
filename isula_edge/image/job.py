"""What all steps of one request share: cancellation, the clock, answers to the daemon."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from isula_edge.types import ChainId

__all__ = ["Job", "LayerProgress"]

_PROGRESS_EVERY_S = 0.1


class Job:
    """One request.

    ``emit`` sends an event to the daemon, from any thread; ``ask`` tells it which chain
    ids the request needs and returns those that are in the store and stay there until the
    end.
    ``monotonic`` and ``sleep`` are replaced by tests; nothing here reads the wall clock.
    """

    def __init__(
        self,
        emit: Callable[[dict[str, Any]], None],
        ask: Callable[[Sequence[ChainId]], set[str]] | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self.emit = emit
        self._ask = ask
        self._committed: set[str] = set()
        self._unfinished: set[str] = set()
        self._cancelled = threading.Event()
        self._closers: dict[object, Callable[[], None]] = {}
        self._closing = threading.Lock()
        self.now = monotonic
        self._custom_sleep = sleep
        self._sleep = sleep or self._cancelled.wait

    def held(self, chain_ids: Sequence[ChainId]) -> set[str]:
        """Which of ``chain_ids`` need not be brought."""
        return self._committed | (self._ask(chain_ids) if self._ask is not None else set())

    def committed(self, chain_id: ChainId) -> None:
        """A layer is in the store now, by this job."""
        self._committed.add(chain_id)
        self.emit({"layer": chain_id})

    @contextlib.contextmanager
    def unfinished(self, path: str) -> Iterator[None]:
        """While inside, ``path`` holds a layer that must be committed or removed."""
        self._unfinished.add(path)
        try:
            yield
        finally:
            self._unfinished.discard(path)

    @property
    def may_end(self) -> bool:
        """Whether the process may end now without leaving an unfinished layer."""
        return not self._unfinished

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._cancelled.is_set()

    def check(self) -> None:
        """Raises Aborted once the job is cancelled."""
        if self._cancelled.is_set():
            raise errors.Aborted("the request was cancelled")

    def sleep(self, seconds: float) -> None:
        """Waits; a cancellation ends the wait with Aborted."""
        self.check()
        self._sleep(seconds)
        self.check()

    def cancel(self) -> None:
        """Ends the job: what blocks is woken, and raises Aborted."""
        self._cancelled.set()
        with self._closing:
            closers = list(self._closers.values())
        for close in closers:
            close()

    @contextlib.contextmanager
    def closing(self, close: Callable[[], None]) -> Iterator[None]:
        """While inside, a cancellation calls ``close``, which must end what blocks."""
        key = object()
        with self._closing:
            self._closers[key] = close
        try:
            self.check()
            yield
        finally:
            with self._closing:
                del self._closers[key]

    @contextlib.contextmanager
    def scope(self) -> Iterator[Job]:
        """A part of this job that is cancelled with it, and at the latest when it ends."""
        part = Job(self.emit, self._ask, monotonic=self.now, sleep=self._custom_sleep)
        part._committed, part._unfinished = self._committed, self._unfinished
        with self.closing(part.cancel):
            try:
                yield part
            finally:
                part.cancel()

    def layer(self, digest: str, total: int) -> LayerProgress:
        """Progress of the layer whose blob is ``digest`` with ``total`` bytes."""
        return LayerProgress(self, digest.partition(":")[2][:12], total)


class LayerProgress:
    """Tells the daemon how far one layer is, at most ten times a second."""

    def __init__(self, job: Job, short_id: str, total: int) -> None:
        self._job = job
        self._id = short_id
        self._total = total
        self._current = 0
        self._status = ""
        self._next = 0.0

    def status(self, word: str) -> None:
        """The layer is now ``word``; sent at once."""
        self._status = word
        self._send()

    def at(self, current: int) -> None:
        """``current`` bytes of the blob have arrived."""
        self._current = current
        if self._job.now() >= self._next:
            self._send()

    def done(self, word: str = "Done") -> None:
        """All bytes are there and nothing more happens."""
        self._current = self._total
        self.status(word)

    def _send(self) -> None:
        self._next = self._job.now() + _PROGRESS_EVERY_S
        self._job.emit(
            {
                "v": {
                    "id": self._id,
                    "status": self._status,
                    "current": self._current,
                    "total": self._total,
                }
            }
        )
