"""Samples and what is made of them; a failed command has no figures."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Sample", "Summary", "VoidRunError", "percentile", "ratio", "summarise", "trimmed_mean"]

_TRIMMED_FROM = 3


class VoidRunError(Exception):
    """A command failed, so that nothing measured on its engine counts."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One client process, from before it was spawned until it was reaped."""

    operation: str | None
    argv: tuple[str, ...]
    wall_s: float
    cpu_s: float
    status: int  # exit code, or the negative number of the signal
    timed_out: bool = False

    @property
    def failed(self) -> bool:
        """Whether the command did not do what it was asked to do."""
        return self.status != 0 or self.timed_out


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of one operation, in milliseconds."""

    count: int
    trimmed_mean_ms: float
    median_ms: float
    p95_ms: float
    sum_ms: float
    cpu_median_ms: float


def trimmed_mean(values: Sequence[float]) -> float:
    """ptcr's average: the mean without one largest and one smallest of three or more values."""
    kept = sorted(values)
    if len(kept) >= _TRIMMED_FROM:
        kept = kept[1:-1]
    return math.fsum(kept) / len(kept)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least this share of all values does not exceed."""
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[max(rank, 1) - 1]


def ratio(value: float | None, reference: float | None) -> float | None:
    """``value`` as a multiple of ``reference``, if both were measured."""
    if value is None or not reference:
        return None
    return value / reference


def summarise(repeats: Sequence[Sequence[Sample]]) -> Summary:
    """Figures over all repeats: each repeat is trimmed by itself, as ptcr trims its one.

    VoidRunError when a single command failed, or when there is nothing.
    """
    samples = [sample for repeat in repeats for sample in repeat]
    if not samples:
        raise VoidRunError("nothing was measured")
    for sample in samples:
        if sample.failed:
            raise VoidRunError(f"{' '.join(sample.argv)} ended with {sample.status}")
    walls = [sample.wall_s * 1000 for sample in samples]
    means = [
        trimmed_mean([sample.wall_s * 1000 for sample in repeat]) for repeat in repeats if repeat
    ]
    return Summary(
        count=len(samples),
        trimmed_mean_ms=math.fsum(means) / len(means),
        median_ms=statistics.median(walls),
        p95_ms=percentile(walls, 95),
        sum_ms=math.fsum(walls) / len(means),
        cpu_median_ms=statistics.median(sample.cpu_s * 1000 for sample in samples),
    )
