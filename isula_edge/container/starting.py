"""Starts that are going on, and how one that hangs is ended by somebody who wants that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from isula_edge import errors
from isula_edge.container.record import Status

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from isula_edge.container.record import Container

__all__ = ["PATIENCE_S", "Starts"]

T = TypeVar("T")
PATIENCE_S = 2.0
"""How long a start goes on for one who wants it ended at once: then it hangs."""


class Starts:
    """The starts of one engine."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._interrupted: set[str] = set()

    async def run(self, container: Container, work: Coroutine[Any, Any, T]) -> T:
        """What ``work``, which starts ``container``, gives; Aborted when it was interrupted."""
        task = asyncio.create_task(work)
        self._tasks[container.id] = task
        try:
            return await task
        except asyncio.CancelledError:
            if container.id not in self._interrupted:
                raise
            raise errors.Aborted(
                f"container {container.name} was ended while it was being started",
                kind="container",
                ref=container.id,
            ) from None
        finally:
            del self._tasks[container.id]
            self._interrupted.discard(container.id)

    async def settle(self, container: Container, patience_s: float | None) -> bool:
        """Waits while it is being started: until then there is nobody to signal.

        A start that takes longer than ``patience_s`` (None: any time) is ended: True then.
        """
        if container.state.status is not Status.STARTING:
            return False
        task = self._tasks.get(container.id)
        if task is not None:
            await asyncio.wait({task}, timeout=patience_s)
            if not task.done() and container.state.status is Status.STARTING:
                self._interrupted.add(container.id)
                task.cancel()
                await asyncio.wait({task})
                return True
        async with container.lock:
            return False
