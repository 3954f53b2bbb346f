"""Commits layers while the next ones are unpacked.

To force a layer to the disk takes as long as to unpack it, on flash longer, and writes all
that the file system holds back, also what has come of the blobs above it.  So layers are
committed in their order, all that are ready at once, and no sooner than it is worth it.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from isula_edge import errors
from isula_edge.sys import atomic

if TYPE_CHECKING:
    from collections.abc import Callable

    from isula_edge.image.layers import Unpacked
    from isula_edge.snapshot.layers import LayerStore

    Item = tuple[Unpacked | None, Callable[[], object]]

__all__ = ["Committer"]

DELAY_S = 3.0
"""What was unpacked is forced to the disk after this time, at the latest."""


class Committer:
    """One thread that commits what :meth:`add` gives it, from first to last.

    ``failed`` is called in that thread with the error that ended it, once.  While ``eager``
    says so nothing is put off: what is lost with the power would take long to come again.
    """

    def __init__(
        self,
        store: LayerStore,
        failed: Callable[[errors.EngineError], object],
        eager: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._failed = failed
        self._eager = eager
        self._hurried = False
        self._since = 0.0
        self._changed = threading.Condition()
        self._items: list[Item] = []
        self._waiting = 0
        self._closed = False
        self.failure: errors.EngineError | None = None
        self._thread = threading.Thread(target=self._run, name="commit", daemon=True)
        self._thread.start()

    def add(self, layer: Unpacked | None, done: Callable[[], object]) -> None:
        """Takes a layer over; ``done`` is called once it is committed.  None: it is already."""
        with self._changed:
            if self.failure is None:
                if not self._items:
                    self._since = time.monotonic()
                self._items.append((layer, done))
                self._waiting += 1
                self._changed.notify_all()
                return
        if layer is not None:
            layer.abort()
        raise self.failure

    def hurry(self) -> None:
        """Somebody waits for what was given until now."""
        with self._changed:
            self._hurried = bool(self._items)
            self._changed.notify_all()

    def wait(self) -> None:
        """Returns when all that was given is committed; raises what has failed."""
        self.hurry()
        with self._changed:
            while self._waiting and self.failure is None:
                self._changed.wait()
            if self.failure is not None:
                raise self.failure

    def close(self) -> None:
        """Commits what was given, if nothing has failed, and ends the thread.

        A second call does nothing.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due():
                    self._changed.wait(DELAY_S if self._items else None)
                items, self._items = self._items, []
                self._hurried = False
            if not items:
                return
            self._commit(items)

    def _due(self) -> bool:
        if self._closed or self._hurried:
            return True
        late = time.monotonic() - self._since >= DELAY_S
        return bool(self._items) and (late or self._eager())

    def _commit(self, items: list[Item]) -> None:
        left = list(items)
        try:
            first = next((layer for layer, _ in items if layer is not None), None)
            if first is not None:
                first.check()
                with atomic.space_errors(self._store.driver.home):
                    self._store.sync()
            while left:
                layer, done = left.pop(0)
                if layer is not None:
                    layer.commit(synced=True)
                done()
                with self._changed:
                    self._waiting -= 1
                    self._changed.notify_all()
        except errors.EngineError as error:
            self._end(error, left)
        except OSError as error:
            self._end(errors.Internal(f"cannot commit a layer: {error}", kind="layer"), left)
        except Exception as error:  # noqa: BLE001 - outer loop: whoever waits must hear of it
            self._end(errors.Internal(f"a commit failed: {error!r}", kind="layer"), left)

    def _end(self, error: errors.EngineError, left: list[Item]) -> None:
        with self._changed:
            self.failure = error
            left += self._items
            self._items = []
            self._changed.notify_all()
        for layer, _ in left:
            if layer is not None:
                layer.abort()
        self._failed(error)
