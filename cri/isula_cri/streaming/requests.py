"""What a token stands for, and the tokens that wait for their client."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ATTACH", "EXEC", "PORT_FORWARD", "Tokens", "Wanted"]

EXEC, ATTACH, PORT_FORWARD = "exec", "attach", "portforward"
_LIFE_S = 60.0
_MOST = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request of the CRI that a client may take up."""

    kind: str
    ref: str
    """The container's id, or the pod's."""
    argv: tuple[str, ...] = ()
    tty: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    ports: tuple[int, ...] = ()


class Tokens:
    """Requests by random tokens, each for one use within a minute.

    At most 1000 wait; the oldest goes.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[str, tuple[float, Wanted]] = {}

    def add(self, wanted: Wanted) -> str:
        """A new token."""
        self._expire()
        while len(self._waiting) >= _MOST:
            del self._waiting[next(iter(self._waiting))]
        token = secrets.token_urlsafe(48)
        self._waiting[token] = (self._clock() + _LIFE_S, wanted)
        return token

    def find(self, kind: str, token: str) -> Wanted | None:
        """What the token stands for, if it is still good."""
        self._expire()
        _, wanted = self._waiting.get(token, (0.0, None))
        return wanted if wanted is not None and wanted.kind == kind else None

    def use(self, token: str) -> None:
        """Ends the token."""
        self._waiting.pop(token, None)

    def _expire(self) -> None:
        now = self._clock()
        while self._waiting:
            token = next(iter(self._waiting))
            if self._waiting[token][0] > now:
                return
            del self._waiting[token]
