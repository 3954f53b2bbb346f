"""What a client sent and nobody has taken yet, in bounded memory.

All streams of a connection share a :class:`Budget`.  When it is used up the connection is
not read any more, so that the client's own TCP stops it: the SPDY of Kubernetes' clients
knows no flow control per stream.
"""

from __future__ import annotations

import asyncio
import collections
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Budget", "Inbox"]

_LIMIT = 256 << 10
_EVENT = 256
"""What an event that is no data is counted as, in bytes."""


class Budget:
    """How many unread bytes a connection may have; ``peak`` is the most it ever had."""

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self.used = self.peak = 0
        self._room = asyncio.Event()
        self._room.set()

    @property
    def full(self) -> bool:
        """Whether nothing more should be read."""
        return self.used >= self._limit

    def take(self, size: int) -> None:
        """Counts ``size`` bytes more."""
        self.used += size
        self.peak = max(self.peak, self.used)
        if self.full:
            self._room.clear()

    def give(self, size: int) -> None:
        """Counts ``size`` bytes less."""
        self.used -= size
        if not self.full:
            self._room.set()

    async def room(self) -> None:
        """Waits until it is not full."""
        await self._room.wait()


class Inbox:
    """A queue of ("data", bytes), ("eof", None) and other events, for one reader.

    ``taken`` is told how many bytes the reader has got.
    """

    def __init__(
        self, budget: Budget, taken: Callable[[int], Awaitable[None]] | None = None
    ) -> None:
        self._budget = budget
        self._taken = taken
        self._events: collections.deque[tuple[str, object, int]] = collections.deque()
        self._arrived = asyncio.Event()
        self._ended = self._dropped = False

    def data(self, data: bytes) -> None:
        """Adds bytes."""
        self._put("data", data, len(data))

    def event(self, kind: str, value: object) -> None:
        """Adds something else."""
        self._put(kind, value, _EVENT)

    def _put(self, kind: str, value: object, size: int) -> None:
        if self._ended or self._dropped:
            return
        self._budget.take(size)
        self._events.append((kind, value, size))
        self._arrived.set()

    def end(self) -> None:
        """Nothing more comes; what is there can still be got."""
        self._ended = True
        self._arrived.set()

    def drop(self) -> None:
        """Nobody reads any more: forgets what is there, and all that comes."""
        self._dropped = True
        while self._events:
            self._budget.give(self._events.popleft()[2])
        self._arrived.set()

    async def get(self) -> tuple[str, object] | None:
        """The next event; None at the end."""
        while not self._events:
            if self._ended or self._dropped:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        kind, value, size = self._events.popleft()
        self._budget.give(size)
        if kind == "data" and self._taken is not None:
            await self._taken(size)
        return kind, value
