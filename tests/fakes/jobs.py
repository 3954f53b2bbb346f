"""A daemon for tests of image work: takes a job's events and answers what is held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isula_edge.image.job import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.types import ChainId

__all__ = ["FakeClock", "FakeDaemon"]


class FakeClock:
    """A monotonic clock that only moves by sleeping on it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Moves the clock."""
        self.slept.append(seconds)
        self.now += seconds


class FakeDaemon:
    """Keeps the events of its ``job``; waits take no time."""

    def __init__(self, held: set[str] | None = None) -> None:
        self.events: list[dict[str, Any]] = []
        self.clock = FakeClock()
        self._held = held if held is not None else set()
        self.job = Job(
            self.events.append, self._answer, monotonic=self.clock, sleep=self.clock.sleep
        )

    def _answer(self, chain_ids: Sequence[ChainId]) -> set[str]:
        self.events.append({"need": list(chain_ids)})
        return {chain_id for chain_id in chain_ids if chain_id in self._held}

    def of(self, kind: str) -> list[Any]:
        """The values of all events of one kind."""
        return [event[kind] for event in self.events if kind in event]

    @property
    def image(self) -> dict[str, Any]:
        """The one image that was brought."""
        (found,) = self.of("image")
        assert isinstance(found, dict)
        return found
