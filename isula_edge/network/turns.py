"""Whose turn it is: one operation per container, many containers at once, garbage alone."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["Turns"]


class Turns:
    """Order among the operations of plugins (specification, section 3 "Lifecycle & Ordering")."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: dict[str, int] = {}
        self._running = 0
        self._alone = False
        self._waiting: list[asyncio.Future[None]] = []

    @contextlib.asynccontextmanager
    async def of(self, container_id: str) -> AsyncIterator[None]:
        """The turn of a container: nothing else is done for it, and no garbage collected."""
        lock = self._locks.setdefault(container_id, asyncio.Lock())
        self._users[container_id] = self._users.get(container_id, 0) + 1
        try:
            async with lock, self._among_others():
                yield
        finally:
            self._users[container_id] -= 1
            if not self._users[container_id]:
                del self._users[container_id], self._locks[container_id]

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """The turn of the whole: begins when all containers' ones have ended."""
        await self._until(lambda: not self._alone)
        self._alone = True
        try:
            await self._until(lambda: not self._running)
            yield
        finally:
            self._alone = False
            self._tell()

    @contextlib.asynccontextmanager
    async def _among_others(self) -> AsyncIterator[None]:
        await self._until(lambda: not self._alone)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self._tell()

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                await future
            finally:
                self._waiting.remove(future)

    def _tell(self) -> None:
        # no await: a cancelled task must not keep the others waiting
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
