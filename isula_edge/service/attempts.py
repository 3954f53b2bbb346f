"""Work that several callers may ask for at once, and that is done once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from isula_edge import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

__all__ = ["Attempts"]

T = TypeVar("T")


@dataclass(slots=True)
class _Attempt(Generic[T]):
    task: asyncio.Task[T]
    asked: object
    waiters: int = 0
    given_up: bool = False


class Attempts(Generic[T]):
    """Attempts by name.

    A caller whose request is under way joins it.  The work is cancelled when the last
    caller has gone, and who comes while it is undone waits for that and begins anew
    (case A31a).
    """

    def __init__(self) -> None:
        self._running: dict[str, _Attempt[T]] = {}

    async def run(self, key: str, asked: object, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What ``work`` gives for the request ``asked``.

        Raises AlreadyExists while another request is under way by the same name.
        """
        while (attempt := self._running.get(key)) is not None and attempt.given_up:
            await asyncio.wait({attempt.task})
        if attempt is None:
            attempt = _Attempt(asyncio.ensure_future(work()), asked)
            self._running[key] = attempt
            attempt.task.add_done_callback(lambda _: self._running.pop(key, None))
        elif attempt.asked != asked:
            raise errors.AlreadyExists(
                f"{key} is being made for another request", kind="name", ref=key, retryable=True
            )
        attempt.waiters += 1
        try:
            return await asyncio.shield(attempt.task)
        finally:
            attempt.waiters -= 1
            if not attempt.waiters and not attempt.task.done():
                attempt.given_up = True
                attempt.task.cancel()
