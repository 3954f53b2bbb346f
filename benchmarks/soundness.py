"""Which engines of a run still count: one that fails is left out from then on."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from benchmarks.engines import Engine, EngineError

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

__all__ = ["Soundness"]


AnyEngine = TypeVar("AnyEngine", bound=Engine)


@dataclass(slots=True, kw_only=True)
class Soundness(Generic[AnyEngine]):
    """The engines of a run and what went wrong with some of them, by name."""

    rng: random.Random
    engines: list[AnyEngine] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def sound(self) -> list[AnyEngine]:
        """Engines without failures, in a new random order."""
        sound = [engine for engine in self.engines if engine.name not in self.failures]
        self.rng.shuffle(sound)
        return sound

    @contextlib.contextmanager
    def void_on_failure(self, name: str) -> Iterator[None]:
        """Voids the engine's figures when a command inside fails."""
        try:
            yield
        except EngineError as e:
            print(f"{name}: VOID: {e}", file=sys.stderr, flush=True)
            self.failures.setdefault(name, str(e))
