"""Work that nothing may interrupt: what is half done cannot be undone."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["to_its_end"]

T = TypeVar("T")
_log = logging.getLogger(__name__)


async def to_its_end(work: Awaitable[T]) -> T:
    """What ``work`` gives; when the caller is cancelled it is awaited nevertheless.

    A thread goes on in any case: who undoes its work must wait for it.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled() and task.exception() is not None:
            _log.warning("after a cancellation: %s", task.exception())
        raise
