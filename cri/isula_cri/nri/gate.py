"""Who changes pods and containers, and who must see them while nobody does."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Gate"]


class _Pass:
    __slots__ = ("valid",)

    def __init__(self) -> None:
        self.valid = True


class Gate:
    """Many may be inside at a time, or one alone.

    One who waits to be alone keeps nobody out: who is inside may wait for somebody who
    wants in (both hold locks of pods), and then nobody would ever leave.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._open = asyncio.Event()
        self._open.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._pass: ContextVar[_Pass | None] = ContextVar("pass", default=None)

    @property
    def closed(self) -> bool:
        """Whether somebody is alone inside."""
        return not self._open.is_set()

    @asynccontextmanager
    async def inside(self) -> AsyncIterator[None]:
        """Keeps out who wants to be alone; may be nested, in tasks started inside too."""
        held = self._pass.get()
        if held is not None and held.valid:
            yield
            return
        while self.closed:
            await self._open.wait()
        self._inside += 1
        self._empty.clear()
        own = _Pass()
        token = self._pass.set(own)
        try:
            yield
        finally:
            own.valid = False  # a task that was started inside and goes on holds it no more
            self._pass.reset(token)
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Keeps out everybody else; must not be asked for inside."""
        while self._inside or self.closed:
            await (self._open.wait() if self.closed else self._empty.wait())
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()
