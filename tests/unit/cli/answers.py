"""Methods of a made-up daemon that answer with what they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from isula_edge import errors
    from isula_edge.daemon.server import Session

    Method = Callable[[dict[str, Any], Session], Awaitable[dict[str, Any]]]

__all__ = ["answer", "refusal"]


def answer(result: dict[str, Any], *items: tuple[str, Any]) -> Method:
    """A method that sends items and then its result."""

    async def method(_params: dict[str, Any], session: Session) -> dict[str, Any]:
        for kind, value in items:
            await {"v": session.item, "o": session.out, "E": session.err}[kind](value)
        return result

    return method


def refusal(error: errors.EngineError) -> Method:
    """A method that raises ``error``."""

    async def method(_params: dict[str, Any], _session: Session) -> dict[str, Any]:
        raise error

    return method
