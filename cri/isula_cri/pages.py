"""Answers of streaming lists, in parts that no message limit minds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["pages"]

_ITEMS = 100


def pages(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """``items`` in parts of at most 100, none of them empty."""
    for start in range(0, len(items), _ITEMS):
        yield items[start : start + _ITEMS]
